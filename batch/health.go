package batch

import "time"

// A HostState is what one attempt says about the host it went to.
type HostState uint8

// What an attempt says about its host.
const (
	HostUnknown     HostState = iota // nothing
	HostUp                           // it answered
	HostDown                         // it was reached, and did not answer as a working host does
	HostUnreachable                  // no connection: its name, TCP or TLS failed
)

// The steps of a breaker and of the trust in a host.
const (
	breakAfter    = 5 // failures in a row
	shortestPause = 5 * time.Second
	longestPause  = 5 * time.Minute
	firstRoom     = 4  // attempts at once to a host that is not known yet
	provenRoom    = 16 // from here on a host is known to answer
	mostRoom      = 1 << 16
)

// Health is how the host of a receiver stands, as one tenant knows it or as
// all of them do. A host that is not known is given a few attempts at once,
// and more with every answer; 5 failures in a row open its breaker, which
// lets one attempt through after 5 s, then after ever longer pauses up to
// 5 min, and when that succeeds lets more through step by step. The zero
// value is a host nobody has heard of.
type Health struct {
	Host     string        `json:"host"`
	Failures int           `json:"failures"`       // in a row
	Since    time.Time     `json:"since,omitzero"` // of the first of them
	Room     int           `json:"room"`           // most attempts at once; 0: not known
	Pause    time.Duration `json:"pause"`          // the breaker's last; 0 once the host is proven again
	Until    time.Time     `json:"until,omitzero"` // while open: no attempt before; zero: closed
}

// Open reports whether the breaker is open, or lets just one attempt through.
func (h Health) Open() bool { return !h.Until.IsZero() }

// Recovering reports whether the breaker is open or was, and the host is not
// yet proven again.
func (h Health) Recovering() bool { return h.Pause > 0 }

// Proven reports whether the host is known to answer.
func (h Health) Proven() bool { return h.Room >= provenRoom }

// Notable reports whether the health is worth keeping over a restart.
func (h Health) Notable() bool { return h.Failures > 0 || h.Pause > 0 }

// staleAfter is for how long what is known against a host is worth keeping
// without news of it.
const staleAfter = 30 * 24 * time.Hour

// Stale reports whether what is known against the host is so old that it says
// nothing any more: it begins anew, as one nobody has heard of.
func (h Health) Stale(now time.Time) bool {
	last := h.Since
	if h.Until.After(last) {
		last = h.Until
	}
	return h.Notable() && !last.IsZero() && now.Sub(last) > staleAfter
}

// Opens returns until when an open breaker lets nothing through; zero if it
// does now. A time that lies farther ahead than the pause is that of a clock
// which has gone back since.
func (h Health) Opens(now time.Time) time.Time {
	if !h.Until.After(now) || h.Until.After(now.Add(h.Pause)) {
		return time.Time{}
	}
	return h.Until
}

// Allows returns how many attempts more may start while some are in flight.
func (h Health) Allows(inFlight int, now time.Time) int {
	room := h.Room
	switch {
	case !h.Opens(now).IsZero():
		return 0
	case h.Open():
		room = 1
	case room == 0:
		room = firstRoom
	}
	return max(0, room-inFlight)
}

// After returns the health after an attempt that began at a time and ended
// now. What began before the breaker let one through and fails does not make
// the pause longer.
func (h Health) After(s HostState, began, now time.Time) Health {
	switch s {
	case HostUp:
		return h.answered()
	case HostDown, HostUnreachable:
		if h.Open() && began.Before(h.Until) && !h.Until.After(now.Add(h.Pause)) {
			return h
		}
		return h.failed(now)
	default:
		return h
	}
}

func (h Health) answered() Health {
	switch {
	case h.Open():
		h.Room = 2
	case h.Room == 0:
		h.Room = 2 * firstRoom
	default:
		h.Room = min(2*h.Room, mostRoom)
	}
	h.Failures, h.Since, h.Until = 0, time.Time{}, time.Time{}
	if h.Proven() {
		h.Pause = 0
	}
	return h
}

func (h Health) failed(now time.Time) Health {
	if h.Failures++; h.Failures == 1 {
		h.Since = now.UTC()
	}
	if h.Room == 0 || h.Room > firstRoom {
		h.Room = firstRoom
	}
	if h.Failures >= breakAfter || h.Open() {
		h.Pause = min(max(2*h.Pause, shortestPause), longestPause)
		h.Until, h.Room = now.Add(h.Pause).UTC(), 1
	}
	return h
}
