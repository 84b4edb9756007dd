package batch

import (
	"fmt"
	"time"
)

// A Policy decides about the next attempt of an item. The zero value is the
// default of the contract: 5 attempts, 1 s to 5 min, full jitter, and an
// upstream's Retry-After honoured up to 10 min.
type Policy struct {
	Attempts      int           // per item, 1 and up; default 5
	Base          time.Duration // the first wait is up to this; default 1 s
	Most          time.Duration // no wait is longer; default 5 min
	MostRetryWait time.Duration // cap on what an upstream may ask for; default 10 min
}

// WithDefaults returns p with the zero fields filled in.
func (p Policy) WithDefaults() Policy {
	if p.Attempts == 0 {
		p.Attempts = 5
	}
	if p.Base == 0 {
		p.Base = time.Second
	}
	if p.Most == 0 {
		p.Most = 5 * time.Minute
	}
	if p.MostRetryWait == 0 {
		p.MostRetryWait = 10 * time.Minute
	}
	return p
}

// Bounded returns p with at most n attempts, if n is set: a client may ask
// for fewer than the processor allows, never for more.
func (p Policy) Bounded(n int) Policy {
	p = p.WithDefaults()
	if n > 0 {
		p.Attempts = min(p.Attempts, n)
	}
	return p
}

// Next says how long an item waits after its attempt number made, which
// ended with f, before the next; again is false when it failed for good.
// The wait is full jitter over an exponential backoff (rnd gives [0,1)), and
// never shorter than what the other side asked for.
func (p Policy) Next(made int, f *Failure, rnd func() float64) (wait time.Duration, again bool) {
	p = p.WithDefaults()
	if !f.Retry || made >= p.Attempts {
		return 0, false
	}
	ceiling := p.Most
	if shift := made - 1; shift < 30 && p.Base<<shift < p.Most && p.Base<<shift > 0 {
		ceiling = p.Base << shift
	}
	wait = time.Duration(rnd() * float64(ceiling))
	return max(wait, p.Hold(f)), true
}

// MostDeaths is how often the worker of an item may die of it in a round. The
// item is poison then, and not tried again.
const MostDeaths = 3

// suspect is how often the whole process may die while an item and others are
// worked on, before the item has the process to itself.
const suspect = 2

// Alone reports whether an item that was there when the process died, so many
// times, is to be tried while nothing else is.
func Alone(deaths int) bool { return deaths >= suspect }

// Fatal returns how an item fails that has taken the process with it too often,
// nil for one that has not: only deaths while it had the process to itself are
// its own. A death that an item may be the cause of is on record before the
// item begins, and taken back if it was none.
func Fatal(deaths int) *Failure {
	if deaths < suspect+MostDeaths {
		return nil
	}
	return &Failure{Code: CodePoison, Message: fmt.Sprintf("the process died %d times while it was worked on, at last %d times while nothing else was", deaths, MostDeaths)}
}

// At returns f as it is to be judged for an item whose workers died deaths
// times before, and how often they have by now.
func (f *Failure) At(deaths int) (*Failure, int) {
	if !f.Died {
		return f, deaths
	}
	if deaths++; deaths < MostDeaths {
		return f, deaths
	}
	return &Failure{Code: CodePoison, Message: fmt.Sprintf("its worker died %d times, the last time: %s", deaths, f.Message)}, deaths
}

// Hold returns how long f asks the whole processor to wait, within bounds.
func (p Policy) Hold(f *Failure) time.Duration {
	return max(0, min(f.RetryAfter, p.WithDefaults().MostRetryWait))
}
