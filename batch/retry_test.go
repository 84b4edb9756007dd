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
	if wait, _ := (Policy{}).Next(4, &Failure{Retry: true}, func() float64 { return 0 }); wait != 0 {
		t.Errorf("full jitter goes down to nothing, not %s", wait)
	}
}
