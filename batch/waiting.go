package batch

import "time"

// Why a batch that is not moving is not moving: the words of waiting_on.
const (
	WaitingNotBefore = "not_before"
	WaitingPaused    = "paused"
	WaitingRateLimit = "rate_limit"           // attempts are bounded, by us or by the upstream's wish
	WaitingUpstream  = "upstream_unavailable" // its breaker is open
	WaitingBackoff   = "retry_backoff"        // all that is left waits for its next attempt
	WaitingCapacity  = "capacity"             // others are served
	WaitingProcessor = "processor_missing"    // nobody here serves its processor
	WaitingDisk      = "disk_full"            // nothing is started for want of room
)

// A Standstill is what a store knows about whether a batch moves, and if not,
// why.
type Standstill struct {
	Gate     Gate
	InFlight int       // items being worked on
	Held     bool      // somebody holds blocks of it
	Holder   string    // and says why he does not work on them; empty: he does
	Due      time.Time // when the first item of its open blocks may be tried; zero: at once
}

// Why says why the batch is not moving, in a word of the contract; empty if it
// is moving, is being uploaded, is stopping or has ended.
func (s Standstill) Why(now time.Time) string {
	if word := s.Gate.WaitingOn(now); word != "" {
		return word
	}
	switch open, _ := s.Gate.Open(now); {
	case !open || s.InFlight > 0:
		return ""
	case s.Held:
		return s.Holder
	case s.Due.After(now):
		return WaitingBackoff
	default:
		return WaitingCapacity
	}
}

// Surroundings are what a server knows and a store does not: how things stand
// for the batches of one processor.
type Surroundings struct {
	Missing  bool // nobody here serves the processor
	DiskFull bool // no block is claimed
	Down     bool // the breaker of its upstream is open
	Held     bool // the upstream asked to be left alone for a while
}

// Explain says more exactly what a batch waits on of which a store knows only
// that nobody works on it, or that all of it is to be tried again.
func (s Surroundings) Explain(word string) string {
	if word != WaitingCapacity && word != WaitingBackoff {
		return word
	}
	switch {
	case s.Missing:
		return WaitingProcessor
	case s.DiskFull:
		return WaitingDisk
	case s.Down:
		return WaitingUpstream
	case s.Held && word == WaitingCapacity:
		return WaitingRateLimit
	default:
		return word
	}
}
