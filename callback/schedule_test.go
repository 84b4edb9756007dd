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
		at, exhausted := callback.Schedule{}.Next(attempts, 0, made, now, never)
		if exhausted {
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
	short := callback.Schedule{Steps: []time.Duration{0, time.Minute, 10 * time.Minute}, Window: time.Hour}
	made := time.Unix(1_780_000_000, 0)
	for name, tc := range map[string]struct {
		schedule   callback.Schedule
		attempts   int
		retryAfter time.Duration
		elapsed    time.Duration // since the message was made
		rnd        func() float64
		delay      time.Duration // -1: exhausted
	}{
		"the first attempt is due at once":                  {schedule: short, rnd: utmost},
		"the second after a step":                           {schedule: short, attempts: 1, delay: time.Minute},
		"jitter adds at most a tenth":                       {schedule: short, attempts: 1, rnd: func() float64 { return 0.5 }, delay: 63 * time.Second},
		"no step is left":                                   {schedule: short, attempts: 3, delay: -1},
		"attempts beyond all steps":                         {schedule: short, attempts: 40, delay: -1},
		"a nonsense count":                                  {schedule: short, attempts: -1, delay: -1},
		"Retry-After below the step changes nothing":        {schedule: short, attempts: 1, retryAfter: time.Second, delay: time.Minute},
		"Retry-After above the step is honoured":            {schedule: short, attempts: 1, retryAfter: 5 * time.Minute, delay: 5 * time.Minute},
		"Retry-After is capped at the longest step":         {schedule: short, attempts: 1, retryAfter: 900 * day, delay: 10 * time.Minute},
		"jitter comes on top of Retry-After":                {schedule: short, attempts: 1, retryAfter: 5 * time.Minute, rnd: func() float64 { return 0.5 }, delay: 315 * time.Second},
		"the last moment of the window":                     {schedule: short, attempts: 2, elapsed: 50 * time.Minute, delay: 10 * time.Minute},
		"jitter does not leave the window":                  {schedule: short, attempts: 2, elapsed: 50 * time.Minute, rnd: utmost, delay: 10 * time.Minute},
		"the window is spent":                               {schedule: short, attempts: 2, elapsed: 51 * time.Minute, delay: -1},
		"Retry-After beyond the window":                     {schedule: short, attempts: 1, elapsed: 51 * time.Minute, retryAfter: 10 * time.Minute, delay: -1},
		"time spent parked counts for the window":           {schedule: short, attempts: 0, elapsed: 2 * time.Hour, delay: -1},
		"a clock set back":                                  {schedule: short, attempts: 1, elapsed: -time.Hour, delay: time.Minute},
		"the default window is seven days":                  {attempts: 1, elapsed: week - 5*time.Second, delay: 5 * time.Second},
		"one second later it is spent":                      {attempts: 1, elapsed: week - 4*time.Second, delay: -1},
		"the default longest step is a day":                 {attempts: 1, retryAfter: 29 * day, delay: day},
		"steps of zero leave nothing to cap Retry-After at": {schedule: callback.Schedule{Steps: make([]time.Duration, 5)}, attempts: 1, retryAfter: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.rnd == nil {
				tc.rnd = never
			}
			now := made.Add(tc.elapsed)
			at, exhausted := tc.schedule.Next(tc.attempts, tc.retryAfter, made, now, tc.rnd)
			switch {
			case exhausted != (tc.delay == -1), exhausted && !at.IsZero():
				t.Errorf("at %v, exhausted %t", at, exhausted)
			case !exhausted && at.Sub(now) != tc.delay:
				t.Errorf("due in %s, want %s", at.Sub(now), tc.delay)
			}
		})
	}
}

func TestNextOnlyEverAddsAndNeverLeavesTheWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durations := rapid.Map(rapid.Int64Range(0, int64(30*day)), func(n int64) time.Duration { return time.Duration(n) })
		s := callback.Schedule{Steps: rapid.SliceOfN(durations, 1, 12).Draw(t, "steps"), Window: durations.Draw(t, "window") + 1}
		attempts := rapid.IntRange(0, len(s.Steps)-1).Draw(t, "attempts")
		retryAfter := durations.Draw(t, "retryAfter")
		made := time.Unix(1_780_000_000, 0)
		now := made.Add(durations.Draw(t, "elapsed"))

		at, exhausted := s.Next(attempts, retryAfter, made, now, nil)
		delay := max(s.Steps[attempts], min(retryAfter, slices.Max(s.Steps)))
		if want := now.Add(delay).After(made.Add(s.Window)); exhausted != want {
			t.Fatalf("exhausted %t, want %t", exhausted, want)
		}
		if exhausted {
			return
		}
		if at.Before(now.Add(delay)) || at.After(now.Add(delay+delay/10)) || at.After(made.Add(s.Window)) {
			t.Fatalf("due in %s, step %s, window ends in %s", at.Sub(now), delay, made.Add(s.Window).Sub(now))
		}
	})
}
