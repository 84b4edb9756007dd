package batch

import (
	"testing"
	"time"
)

func TestPolicy(t *testing.T) {
	full := func() float64 { return 1 }
	for name, c := range map[string]struct {
		p     Policy
		made  int
		f     Failure
		wait  time.Duration
		again bool
	}{
		"the first wait is up to a second":       {Policy{}, 1, Failure{Retry: true}, time.Second, true},
		"it doubles":                             {Policy{}, 3, Failure{Retry: true}, 4 * time.Second, true},
		"the last attempt is the last":           {Policy{}, 5, Failure{Retry: true}, 0, false},
		"what will not get better ends at once":  {Policy{}, 1, Failure{}, 0, false},
		"no wait is longer than the most":        {Policy{Attempts: 100}, 40, Failure{Retry: true}, 5 * time.Minute, true},
		"nor overflows":                          {Policy{Attempts: 100, Base: time.Hour, Most: 24 * time.Hour}, 29, Failure{Retry: true}, 24 * time.Hour, true},
		"a longer Retry-After counts":            {Policy{}, 1, Failure{Retry: true, RetryAfter: time.Minute}, time.Minute, true},
		"a shorter one does not":                 {Policy{}, 1, Failure{Retry: true, RetryAfter: time.Millisecond}, time.Second, true},
		"a Retry-After is honoured up to a cap":  {Policy{}, 1, Failure{Retry: true, RetryAfter: time.Hour}, 10 * time.Minute, true},
		"a negative Retry-After is none":         {Policy{}, 1, Failure{Retry: true, RetryAfter: -time.Hour}, time.Second, true},
		"a client may ask for fewer attempts":    {Policy{}.Bounded(2), 2, Failure{Retry: true}, 0, false},
		"a client may not ask for more attempts": {Policy{Attempts: 3}.Bounded(9), 3, Failure{Retry: true}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			if wait, again := c.p.Next(c.made, &c.f, full); wait != c.wait || again != c.again {
				t.Errorf("got %s, %v, want %s, %v", wait, again, c.wait, c.again)
			}
		})
	}
	t.Run("an item whose worker died three times is poison", func(t *testing.T) {
		death := &Failure{Code: CodeProcessorError, Message: "it fell over", Retry: true, Died: true}
		for before := range 4 {
			f, deaths := death.At(before)
			if deaths != before+1 || f.Retry != (before < 2) || (f.Code == CodePoison) != (before >= 2) {
				t.Errorf("after %d deaths: %d, %+v", before, deaths, f)
			}
		}
		want := "its worker died 3 times, the last time: it fell over"
		if f, _ := death.At(2); f.Message != want {
			t.Errorf("it says %q, not %q", f.Message, want)
		}
		if f, deaths := (&Failure{Code: CodeTimeout, Retry: true}).At(2); deaths != 2 || f.Code != CodeTimeout {
			t.Errorf("what is no death counts as one: %d, %+v", deaths, f)
		}
	})
	t.Run("so is one that the process died of three times while it was alone", func(t *testing.T) {
		for deaths := range 8 {
			if alone := Alone(deaths); alone != (deaths >= 2) {
				t.Errorf("after %d deaths it is alone: %v", deaths, alone)
			}
			if f := Fatal(deaths); (f != nil) != (deaths >= 5) || f != nil && (f.Code != CodePoison || f.Retry) {
				t.Errorf("after %d deaths: %+v", deaths, f)
			}
		}
	})
	if wait, _ := (Policy{}).Next(4, &Failure{Retry: true}, func() float64 { return 0 }); wait != 0 {
		t.Errorf("full jitter goes down to nothing, not %s", wait)
	}
}
