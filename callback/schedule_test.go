package callback_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/callbatch/callbatch/callback"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

func never() float64  { return 0 }
func utmost() float64 { return 0.999999 }

func TestTheDefaultScheduleIsTenAttemptsIn75Hours(t *testing.T) {
	var (
		made  = time.Unix(1_780_000_000, 0)
		now   = made
		steps []string
	)
	for attempts := 0; ; attempts++ {
		at, spent := callback.Schedule{}.Next(attempts, 0, time.Time{}, now, never)
		if spent != callback.NotSpent {
			break
		}
		steps = append(steps, at.Sub(now).String())
		now = at
	}
	if got := strings.Join(steps, " "); got != "0s 5s 5m0s 30m0s 2h0m0s 5h0m0s 10h0m0s 14h0m0s 20h0m0s 24h0m0s" {
		t.Errorf("steps %s", got)
	}
	if got := now.Sub(made); got != 75*time.Hour+35*time.Minute+5*time.Second {
		t.Errorf("the last attempt comes after %s", got)
	}
}

func TestNext(t *testing.T) {
	short := callback.Schedule{Steps: []time.Duration{0, time.Minute, 10 * time.Minute}}
	now := time.Unix(1_780_000_000, 0)
	half := func() float64 { return 0.5 }
	for name, tc := range map[string]struct {
		schedule   callback.Schedule
		attempts   int
		retryAfter time.Duration
		left       time.Duration // of the window; 0: it has no end
		rnd        func() float64
		delay      time.Duration
		spent      callback.Spent
	}{
		"the first attempt is due at once":                  {schedule: short, rnd: utmost},
		"the second after a step":                           {schedule: short, attempts: 1, delay: time.Minute},
		"jitter adds at most a tenth":                       {schedule: short, attempts: 1, rnd: half, delay: 63 * time.Second},
		"no step is left":                                   {schedule: short, attempts: 3, spent: callback.Steps},
		"attempts beyond all steps":                         {schedule: short, attempts: 40, spent: callback.Steps},
		"a nonsense count":                                  {schedule: short, attempts: -1, spent: callback.Steps},
		"neither a step nor time is left":                   {schedule: short, attempts: 3, left: -time.Hour, spent: callback.Steps},
		"Retry-After below the step changes nothing":        {schedule: short, attempts: 1, retryAfter: time.Second, delay: time.Minute},
		"Retry-After above the step is honoured":            {schedule: short, attempts: 1, retryAfter: 5 * time.Minute, delay: 5 * time.Minute},
		"Retry-After is capped at the longest step":         {schedule: short, attempts: 1, retryAfter: 900 * day, delay: 10 * time.Minute},
		"a negative Retry-After changes nothing":            {schedule: short, attempts: 1, retryAfter: -time.Hour, delay: time.Minute},
		"jitter comes on top of Retry-After":                {schedule: short, attempts: 1, retryAfter: 5 * time.Minute, rnd: half, delay: 315 * time.Second},
		"the last moment of the window":                     {schedule: short, attempts: 2, left: 10 * time.Minute, delay: 10 * time.Minute},
		"jitter does not leave the window":                  {schedule: short, attempts: 2, left: 10 * time.Minute, rnd: utmost, delay: 10 * time.Minute},
		"the window ends before the step":                   {schedule: short, attempts: 2, left: 9 * time.Minute, spent: callback.Window},
		"Retry-After beyond the window":                     {schedule: short, attempts: 1, left: 9 * time.Minute, retryAfter: 10 * time.Minute, spent: callback.Window},
		"the window ended while the message was parked":     {schedule: short, left: -time.Second, spent: callback.Window},
		"a window without an end":                           {schedule: callback.Schedule{Steps: []time.Duration{900 * day}, Window: time.Second}, delay: 900 * day},
		"the default longest step is a day":                 {attempts: 1, retryAfter: 29 * day, delay: day},
		"steps of zero leave nothing to cap Retry-After at": {schedule: callback.Schedule{Steps: make([]time.Duration, 5)}, attempts: 1, retryAfter: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.rnd == nil {
				tc.rnd = never
			}
			var until time.Time
			if tc.left != 0 {
				until = now.Add(tc.left)
			}
			at, spent := tc.schedule.Next(tc.attempts, tc.retryAfter, until, now, tc.rnd)
			switch {
			case spent != tc.spent, (spent != callback.NotSpent) != at.IsZero():
				t.Errorf("at %v, spent: %s, want %s", at, spent, tc.spent)
			case spent == callback.NotSpent && at.Sub(now) != tc.delay:
				t.Errorf("due in %s, want %s", at.Sub(now), tc.delay)
			}
		})
	}
}

func TestUntilIsTheEndOfTheWindow(t *testing.T) {
	made := time.Unix(1_780_000_000, 0)
	for window, want := range map[time.Duration]time.Duration{0: week, -1: week, time.Hour: time.Hour, 90 * day: 90 * day} {
		if got := (callback.Schedule{Window: window}).Until(made).Sub(made); got != want {
			t.Errorf("a window of %s ends after %s, want %s", window, got, want)
		}
	}
}

func TestNextOnlyEverAddsAndNeverLeavesTheWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.Map(rapid.Int64Range(0, int64(30*day)), func(n int64) time.Duration { return time.Duration(n) })
		s := callback.Schedule{Steps: rapid.SliceOfN(durations, 1, 12).Draw(t, "steps"), Window: durations.Draw(t, "window") + 1}
		attempts := rapid.IntRange(0, len(s.Steps)+1).Draw(t, "attempts")
		retryAfter := durations.Draw(t, "retryAfter")
		made := time.Unix(1_780_000_000, 0)
		now, until := made.Add(durations.Draw(t, "elapsed")), s.Until(made)
		if rapid.Bool().Draw(t, "endless") {
			until = time.Time{}
		}

		at, spent := s.Next(attempts, retryAfter, until, now, nil)
		if attempts >= len(s.Steps) {
			if spent != callback.Steps {
				t.Fatalf("no step is left, yet spent: %s", spent)
			}
			return
		}
		longest := slices.Max(s.Steps)
		delay := max(s.Steps[attempts], min(retryAfter, longest))
		late := func(t time.Time) bool { return !until.IsZero() && t.After(until) }
		if want := late(now.Add(delay)); (spent == callback.Window) != want || spent == callback.Steps {
			t.Fatalf("spent: %s, though late is %t", spent, want)
		}
		if spent != callback.NotSpent {
			return
		}
		if at.Before(now.Add(delay)) || at.After(now.Add(delay+delay/10)) || at.After(now.Add(longest+longest/10)) || late(at) {
			t.Fatalf("due in %s, step %s, window ends in %s", at.Sub(now), delay, until.Sub(now))
		}
	})
}

func TestWhatIsSpentHasAName(t *testing.T) {
	for spent, want := range map[callback.Spent]string{callback.NotSpent: "not spent", callback.Steps: "steps", callback.Window: "window", 9: "Spent(9)"} {
		if got := spent.String(); got != want {
			t.Errorf("%d is called %q, want %q", spent, got, want)
		}
	}
}
