package batch

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// afterAll returns the health after several attempts that ended now.
func (h Health) afterAll(now time.Time, states ...HostState) Health {
	for _, s := range states {
		h = h.After(s, now, now)
	}
	return h
}

func times(n int, s HostState) []HostState {
	all := make([]HostState, n)
	for i := range all {
		all[i] = s
	}
	return all
}

func TestHealth(t *testing.T) {
	now := made
	down := Health{}.afterAll(now, times(5, HostDown)...) // its breaker has just opened

	t.Run("a host nobody has heard of is given a few attempts at once", func(t *testing.T) {
		var h Health
		if h.Open() || h.Recovering() || h.Proven() || h.Notable() || h.Allows(0, now) != 4 || h.Allows(3, now) != 1 || h.Allows(4, now) != 0 {
			t.Errorf("got %+v, which allows %d", h, h.Allows(0, now))
		}
	})
	t.Run("and more with every answer", func(t *testing.T) {
		var h Health
		for _, want := range []int{8, 16, 32} {
			if h = h.After(HostUp, now, now); h.Allows(0, now) != want || h.Notable() {
				t.Fatalf("got %+v, want %d", h, want)
			}
		}
		if h = h.afterAll(now, times(100, HostUp)...); !h.Proven() || h.Room != mostRoom {
			t.Errorf("after many answers: %+v", h)
		}
	})
	t.Run("what is known against it is worth nothing long after the last news", func(t *testing.T) {
		last := down.Until
		for at, want := range map[time.Time]bool{last: false, last.Add(30 * 24 * time.Hour): false, last.Add(30*24*time.Hour + 1): true} {
			if got := down.Stale(at); got != want {
				t.Errorf("%v after its pause: %v", at.Sub(last), got)
			}
		}
		once := Health{}.After(HostDown, now, now)
		if late := now.Add(31 * 24 * time.Hour); !once.Stale(late) || (Health{Room: 32}).Stale(late) {
			t.Error("a host that failed once is forgotten, one that answers is not")
		}
	})
	t.Run("5 failures in a row open the breaker", func(t *testing.T) {
		for _, s := range []HostState{HostDown, HostUnreachable} {
			h := Health{}.afterAll(now, HostUp, HostUp).afterAll(now, times(4, s)...)
			if h.Open() || h.Allows(0, now) != 4 || h.Failures != 4 || !h.Notable() {
				t.Errorf("after 4: %+v", h)
			}
			h = h.After(s, now.Add(time.Second), now.Add(time.Second))
			want := Health{Failures: 5, Since: now, Room: 1, Pause: 5 * time.Second, Until: now.Add(6 * time.Second)}
			if diff := cmp.Diff(want, h); diff != "" {
				t.Errorf("after 5 (-want +got):\n%s", diff)
			}
		}
	})
	t.Run("failures that are not in a row do not", func(t *testing.T) {
		h := Health{}
		for range 10 {
			h = h.afterAll(now, HostDown, HostDown, HostDown, HostUnreachable, HostUp)
			if h.Open() || h.Failures != 0 || !h.Since.IsZero() || h.Notable() {
				t.Fatalf("got %+v", h)
			}
		}
	})
	t.Run("what says nothing changes nothing, but does not stand between failures", func(t *testing.T) {
		h := Health{}.afterAll(now, HostDown, HostDown, HostUnknown, HostDown, HostUnknown, HostDown, HostDown)
		if !h.Open() {
			t.Errorf("got %+v", h)
		}
	})
	t.Run("an open breaker lets nothing through, and then one", func(t *testing.T) {
		for after, want := range map[time.Duration]int{0: 0, 5*time.Second - 1: 0, 5 * time.Second: 1, time.Hour: 1} {
			if got := down.Allows(0, now.Add(after)); got != want {
				t.Errorf("after %s it allows %d, not %d", after, got, want)
			}
			if got := down.Allows(1, now.Add(after)); got != 0 {
				t.Errorf("after %s, with one under way, it allows %d", after, got)
			}
		}
	})
	t.Run("attempts that began before it opened do not make the pause longer", func(t *testing.T) {
		if diff := cmp.Diff(down, down.afterAll(now.Add(4*time.Second), times(11, HostDown)...)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("an answer to one of them closes it", func(t *testing.T) {
		if h := down.After(HostUp, now.Add(time.Second), now.Add(time.Second)); h.Open() || h.Allows(0, now) != 2 {
			t.Errorf("got %+v", h)
		}
	})
	t.Run("each failure of the one let through doubles the pause, up to 5 min", func(t *testing.T) {
		h := down
		for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300, 300} {
			at := h.Until
			if h = h.After(HostDown, at, at); h.Pause != want*time.Second || !h.Until.Equal(at.Add(h.Pause)) || h.Allows(0, h.Until) != 1 {
				t.Fatalf("got %+v, want %d s", h, want)
			}
		}
		if h.Failures != 13 || !h.Since.Equal(now) {
			t.Errorf("got %+v", h)
		}
	})
	t.Run("what began before it was let through and fails after does not", func(t *testing.T) {
		if h := down.After(HostDown, down.Until.Add(-time.Second), down.Until.Add(time.Second)); h != down {
			t.Errorf("got %+v of %+v", h, down)
		}
	})
	t.Run("a clock that went back does not keep it open", func(t *testing.T) {
		earlier := down.Until.Add(-time.Hour)
		if down.Allows(0, earlier) != 1 || !down.Opens(earlier).IsZero() {
			t.Errorf("an hour before, %+v allows %d", down, down.Allows(0, earlier))
		}
		if h := down.After(HostDown, earlier, earlier); h.Pause != 2*down.Pause || !h.Until.Equal(earlier.Add(h.Pause)) {
			t.Errorf("got %+v", h)
		}
	})
	t.Run("if our own stop cut that one short, another is let through", func(t *testing.T) {
		if h := down.After(HostUnknown, down.Until, down.Until); h.Allows(0, down.Until) != 1 {
			t.Errorf("got %+v", h)
		}
	})
	t.Run("when it succeeds more are let through step by step", func(t *testing.T) {
		h, at := down, down.Until
		for _, want := range []int{2, 4, 8} {
			if h = h.After(HostUp, at, at); h.Open() || !h.Recovering() || h.Proven() || !h.Notable() || h.Allows(0, at) != want {
				t.Fatalf("got %+v, want %d", h, want)
			}
		}
		if h = h.After(HostUp, at, at); h.Recovering() || !h.Proven() || h.Notable() {
			t.Errorf("proven again: %+v", h)
		}
		if h = h.afterAll(at, times(5, HostDown)...); h.Pause != 5*time.Second {
			t.Errorf("and down again, it begins with a pause of %s", h.Pause)
		}
	})
	t.Run("one failure on the way back does not open it again, five in a row do, for longer", func(t *testing.T) {
		at := down.Until
		h := down.afterAll(at, HostUp, HostUp, HostUnreachable)
		if h.Open() || !h.Recovering() || h.Failures != 1 {
			t.Errorf("got %+v", h)
		}
		h = h.afterAll(at, times(4, HostDown)...)
		want := Health{Failures: 5, Since: at, Room: 1, Pause: 10 * time.Second, Until: at.Add(10 * time.Second)}
		if diff := cmp.Diff(want, h); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Whatever becomes of attempts, and whenever, a host's health follows the
// rules.
func TestHealthFollowsTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, now := Health{Host: "shop.example:443"}, made
		inARow := 0
		for range rapid.IntRange(1, 60).Draw(t, "attempts") {
			was := h
			s := rapid.SampledFrom([]HostState{HostUnknown, HostUp, HostDown, HostDown, HostUnreachable}).Draw(t, "state")
			now = now.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 5, 40, 400}).Draw(t, "seconds")) * time.Second)
			h = h.After(s, now, now)
			failed := (s == HostDown || s == HostUnreachable) && !was.Until.After(now)
			switch {
			case failed:
				inARow++
			case s == HostUp:
				inARow = 0
			}
			switch {
			case h.Host != was.Host:
				t.Fatalf("it became %q", h.Host)
			case !failed && s != HostUp && h != was:
				t.Fatalf("%d made %+v of %+v", s, h, was)
			case h.Failures != inARow, h.Since.IsZero() != (inARow == 0):
				t.Fatalf("%d failures in a row: %+v", inARow, h)
			case s == HostUp && (h.Open() || h.Room <= was.Room && was.Room < mostRoom):
				t.Fatalf("an answer made %+v of %+v", h, was)
			case failed && h.Open() != (inARow >= breakAfter || was.Open()):
				t.Fatalf("failure %d made %+v of %+v", inARow, h, was)
			case failed && h.Open() && (h.Pause != min(max(2*was.Pause, shortestPause), longestPause) || !h.Until.Equal(now.Add(h.Pause))):
				t.Fatalf("failure %d made %+v of %+v", inARow, h, was)
			case h.Room < 0 || h.Room > mostRoom || h.Proven() && h.Recovering():
				t.Fatalf("got %+v", h)
			}
			checkAllows(t, h, now)
		}
	})
}

func checkAllows(t *rapid.T, h Health, now time.Time) {
	for _, at := range []time.Time{now, h.Until.Add(-1), h.Until, now.Add(time.Hour)} {
		if at.Before(made) {
			continue
		}
		last := h.Allows(0, at)
		switch {
		case h.Open() && at.Before(h.Until) && last != 0, h.Open() && !at.Before(h.Until) && last != 1, !h.Open() && last < 2:
			t.Fatalf("%+v allows %d at %v", h, last, at)
		}
		for _, inFlight := range []int{1, 3, 17, mostRoom + 1} {
			if n := h.Allows(inFlight, at); n < 0 || n > last || n > 0 && n+inFlight > h.Allows(0, at) {
				t.Fatalf("%+v allows %d beside %d", h, n, inFlight)
			}
		}
	}
}
