package engine

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/callbatch/callbatch/batch"
)

func TestABudgetIsNeverOverdrawnAndNobodyWaitsForWhatIsFree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.IntRange(1, 64).Draw(t, "all")
		b := newBudget(all)
		var taken []slots
		var lacked slots // what the last claim found none of
		woken := true    // whether it was told since that there is some
		check := func(t *rapid.T) {
			sum := slots{}
			for _, s := range taken {
				sum = sum.plus(s)
			}
			if sum != b.used {
				t.Fatalf("%+v is taken, %+v counted", sum, b.used)
			}
			if sum.all > all || sum.retries > max(1, all*7/8) || sum.trials > max(1, all/2) {
				t.Fatalf("%+v of %d is taken", sum, all)
			}
			next := b
			got := next.claim(all)
			if !woken && (lacked.all > 0 && got.all > 0 || lacked.retries > 0 && got.retries > 0 || lacked.trials > 0 && got.trials > 0) {
				t.Fatalf("the last claim lacked %+v, now there is %+v, and nobody said so", lacked, got)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": check,
			"offer": func(t *rapid.T) {
				n := rapid.IntRange(0, 2*all).Draw(t, "n")
				s := b.offer(n)
				if s.all > n || s.retries != 0 || s.trials > s.all {
					t.Fatalf("offered %+v for %d", s, n)
				}
				taken = append(taken, s)
			},
			"claim": func(t *rapid.T) {
				s := b.claim(rapid.IntRange(1, 2*all).Draw(t, "n"))
				taken = append(taken, s)
				lacked, woken = slots{}, false
				if s.all == 0 {
					lacked.all = 1
				}
				if s.retries == 0 {
					lacked.retries = 1
				}
				if s.trials == 0 {
					lacked.trials = 1
				}
			},
			"free": func(t *rapid.T) {
				if len(taken) == 0 {
					t.Skip("nothing is taken")
				}
				i := rapid.IntRange(0, len(taken)-1).Draw(t, "which")
				s := &taken[i]
				part := slots{all: rapid.IntRange(0, s.all).Draw(t, "all")}
				part.retries = rapid.IntRange(0, s.retries).Draw(t, "retries")
				part.trials = rapid.IntRange(0, s.trials).Draw(t, "trials")
				*s = s.minus(part)
				woken = b.free(part) || woken
			},
		})
	})
}

func TestSlotsOfAMessage(t *testing.T) {
	for _, c := range []struct {
		made  int
		trial bool
		want  slots
	}{
		{1, false, slots{all: 1}},
		{2, false, slots{all: 1, retries: 1}},
		{1, true, slots{all: 1, trials: 1}},
		{3, true, slots{all: 1, retries: 1, trials: 1}},
	} {
		if got := slotsOf(&batch.Delivery{Message: batch.Message{Made: c.made}, Trial: c.trial}); got != c.want {
			t.Errorf("attempt %d, trial %v: %+v, want %+v", c.made, c.trial, got, c.want)
		}
	}
}
