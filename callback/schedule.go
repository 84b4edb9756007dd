package callback

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

const (
	defaultWindow = 7 * 24 * time.Hour

	jitter = 0.1 // of the delay, only ever added
)

// Schedule says when the attempts of a message are made. The zero value is the
// default one.
type Schedule struct {
	// Steps are the delays before each attempt, the first counted from when the
	// message was made, each other from the end of the attempt before. There are
	// as many attempts as steps. Empty means 0s,5s,5m,30m,2h,5h,10h,14h,20h,24h.
	Steps []time.Duration

	// Window is how long after a message was made its last attempt may start,
	// whatever it was waiting for meanwhile; 0 means 7 days.
	Window time.Duration
}

// Spent says what of a Schedule a message has used up.
type Spent uint8

const (
	NotSpent Spent = iota
	Steps          // no attempt is left
	Window         // the next attempt would start too late
)

func (s Spent) String() string {
	switch s {
	case NotSpent:
		return "not spent"
	case Steps:
		return "steps"
	case Window:
		return "window"
	}
	return "Spent(" + strconv.Itoa(int(s)) + ")"
}

// Until returns when the window of a message made at from ends.
func (s Schedule) Until(from time.Time) time.Time {
	return from.Add(s.WithDefaults().Window)
}

// Next says when to try again a message of which a number of attempts was made,
// the last one just now, and asked for retryAfter (0: nothing). The attempt
// starts at until at the latest; zero means that there is no end. If anything
// is spent, at is zero.
//
// A receiver may ask for more delay than the step's, up to the longest step.
// Up to 10 % is added at random, by rnd in [0,1); nil means math/rand.
func (s Schedule) Next(attempts int, retryAfter time.Duration, until, now time.Time, rnd func() float64) (at time.Time, spent Spent) {
	s = s.WithDefaults()
	if attempts < 0 || attempts >= len(s.Steps) {
		return time.Time{}, Steps
	}
	delay := max(s.Steps[attempts], min(retryAfter, slices.Max(s.Steps)))
	late := func(t time.Time) bool { return !until.IsZero() && t.After(until) }
	if at = now.Add(delay); late(at) {
		return time.Time{}, Window
	}
	if rnd == nil {
		rnd = rand.Float64
	}
	if at = at.Add(time.Duration(float64(delay) * jitter * rnd())); late(at) {
		at = until
	}
	return at, NotSpent
}

// WithDefaults returns s with the zero fields filled in.
func (s Schedule) WithDefaults() Schedule {
	if len(s.Steps) == 0 {
		s.Steps = []time.Duration{
			0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute,
			2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
		}
	}
	if s.Window <= 0 {
		s.Window = defaultWindow
	}
	return s
}
