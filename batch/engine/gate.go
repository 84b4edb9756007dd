package engine

import "time"

// The breaker of the contract: open after this many failures in a row, tried
// again after the shortest pause, which doubles up to the longest. For an hour
// a probe without an answer is not counted as an attempt of its item; then it
// is, or a batch would never end whose last items bring their upstream down.
const (
	breakerFailures = 5
	shortestPause   = 5 * time.Second
	longestPause    = 5 * time.Minute
	freeProbes      = time.Hour
)

// A breaker keeps attempts off somebody who does not answer. The zero value
// is closed. It is not safe for concurrent use.
type breaker struct {
	failures int           // in a row
	pause    time.Duration // the current one; 0: closed
	opened   time.Time
	opens    time.Time // end of the pause
	probing  bool      // one attempt is under way to see
}

func (b *breaker) open() bool { return b.pause > 0 }

// admit says whether an attempt may start: at once, at once as the one probe,
// or not. wait is how long until the next probe may start; 0 while one is
// under way.
func (b *breaker) admit(now time.Time) (ok, probe bool, wait time.Duration) {
	switch {
	case !b.open():
		return true, false, 0
	case b.probing:
		return false, false, 0
	case now.Before(b.opens):
		return false, false, b.opens.Sub(now)
	default:
		return true, true, 0
	}
}

// up notes that the other side answered, whatever it said.
func (b *breaker) up() { *b = breaker{} }

// down notes an attempt without an answer. While the breaker is open only the
// probe counts: the others were under way before.
func (b *breaker) down(probe bool, now time.Time) {
	switch {
	case b.open() && probe:
		b.pause = min(2*b.pause, longestPause)
	case b.open():
		return
	default:
		if b.failures++; b.failures < breakerFailures {
			return
		}
		b.pause, b.opened = shortestPause, now
	}
	b.opens, b.probing = now.Add(b.pause), false
}

// A gate is what may keep a whole lane from starting attempts.
type gate struct {
	breaker
	held time.Time // the other side asked to be left alone until then
}

// admit is the breaker's, held by what the other side asked for.
func (g *gate) admit(now time.Time) (ok, probe bool, wait time.Duration) {
	if now.Before(g.held) {
		return false, false, g.held.Sub(now)
	}
	return g.breaker.admit(now)
}

// hold keeps the gate shut until at, at least.
func (g *gate) hold(at time.Time) {
	if at.After(g.held) {
		g.held = at
	}
}
