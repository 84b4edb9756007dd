package batch

import (
	"math"
	"time"
)

// A Pace counts what was finished lately, a second a time. It is for how fast
// a batch moves now, not for how fast it was on the whole. It is not safe for
// concurrent use.
type Pace struct {
	begun  time.Time // of the work that is counted
	second int64     // the last that has a count
	counts [paceLong]uint32
}

// A rate is of the last paceShort seconds. Where fewer than paceFew items were
// finished in them it is of the last paceLong.
const (
	paceShort = 10
	paceLong  = 60
	paceFew   = 10
)

// Begin says that work begins, after a standstill or for the first time: the
// time before does not count.
func (p *Pace) Begin(at time.Time) {
	if p.begun.IsZero() || p.sum(at, paceShort) == 0 {
		*p = Pace{begun: at}
	}
}

// Add counts n items as finished now.
func (p *Pace) Add(now time.Time, n int) {
	if p.begun.IsZero() {
		p.begun = now
	}
	s := now.Unix()
	for p.second = max(p.second, s-paceLong); p.second < s; {
		p.second++
		p.counts[p.second%paceLong] = 0
	}
	p.counts[s%paceLong] += uint32(n)
}

// sum counts what was finished in the second of now and those before it.
func (p *Pace) sum(now time.Time, seconds int64) (n int) {
	for s := now.Unix(); s > now.Unix()-seconds; s-- {
		if s <= p.second && s > p.second-paceLong {
			n += int(p.counts[s%paceLong])
		}
	}
	return n
}

// Rate returns how many items a second are being finished; 0 while that is
// unknown: nothing was finished lately, or it all began less than a second ago.
func (p *Pace) Rate(now time.Time) float64 {
	seconds, n := int64(paceShort), p.sum(now, paceShort)
	if n < paceFew {
		seconds, n = paceLong, p.sum(now, paceLong)
	}
	since := time.Unix(now.Unix()-seconds+1, 0)
	if p.begun.After(since) {
		since = p.begun
	}
	if took := now.Sub(since); n > 0 && took >= time.Second {
		return float64(n) / took.Seconds()
	}
	return 0
}

// ETA returns when the batch will have ended if it goes on at its rate; the
// zero time while that is unknown.
func (b Batch) ETA(now time.Time) time.Time {
	if b.Rate <= 0 {
		return time.Time{}
	}
	left := time.Duration(math.Min(float64(b.Items-b.Done.Sum())/b.Rate*float64(time.Second), float64(farOff)))
	return now.Add(left)
}

// farOff is the latest an ETA tells.
const farOff = 10 * 365 * 24 * time.Hour
