package batch

import (
	"testing"
	"time"
)

// fired reports whether a channel is closed.
func fired(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestWatches(t *testing.T) {
	mine, other := TenantID{1}, TenantID{2}
	a, b := ID{1}, ID{2}
	t.Run("a watch of a batch sees that batch only", func(t *testing.T) {
		var ws Watches
		w := ws.Watch(mine, &a)
		defer w.Close()
		changed, ended := w.After(w.Version())
		ws.Tell(mine, b, Ended)
		ws.Tell(other, a, Ended)
		if fired(changed) || fired(ended) {
			t.Fatal("it was hinted at another's change")
		}
		ws.Tell(mine, a, Moved)
		if !fired(changed) || fired(ended) {
			t.Fatal("a move is a change and no end")
		}
	})
	t.Run("an end is a change, what is settled after it no end", func(t *testing.T) {
		var ws Watches
		w := ws.Watch(mine, &a)
		defer w.Close()
		before := w.Version()
		ws.Tell(mine, a, Ended)
		if changed, ended := w.After(before); !fired(changed) || !fired(ended) {
			t.Fatal("the end was not hinted at")
		}
		seen := w.Version()
		ws.Tell(mine, a, Settled)
		if changed, ended := w.After(seen); !fired(changed) || fired(ended) {
			t.Fatal("what was settled is a change and no end")
		}
		if w.LastEnd() <= before || w.LastEnd() > seen {
			t.Errorf("the last end is %d, it came after %d and by %d", w.LastEnd(), before, seen)
		}
	})
	t.Run("a change between the version and the wait is not lost", func(t *testing.T) {
		var ws Watches
		w := ws.Watch(mine, &a)
		defer w.Close()
		v := w.Version()
		ws.Tell(mine, a, Moved)
		if changed, _ := w.After(v); !fired(changed) {
			t.Fatal("it waits for the next")
		}
		if changed, _ := w.After(w.Version()); fired(changed) {
			t.Fatal("it does not wait")
		}
	})
	t.Run("a watch of a tenant names what changed, each batch once", func(t *testing.T) {
		var ws Watches
		w := ws.Watch(mine, nil)
		defer w.Close()
		for range 3 {
			ws.Tell(mine, a, Moved)
			ws.Tell(mine, b, Moved)
		}
		ws.Tell(mine, a, Ended)
		ws.Tell(mine, b, Settled)
		ws.Tell(other, a, Moved)
		hints, missed := w.Take()
		if missed || len(hints) != 2 || hints[0].ID != b || hints[1].ID != a || hints[0].Version >= hints[1].Version || hints[1].Version != w.Version() {
			t.Errorf("%+v %v", hints, missed)
		}
		if hints, missed := w.Take(); len(hints) > 0 || missed {
			t.Errorf("and again %+v %v", hints, missed)
		}
	})
	t.Run("one that falls behind knows that it missed some", func(t *testing.T) {
		var ws Watches
		w, quick := ws.Watch(mine, nil), ws.Watch(mine, nil)
		defer w.Close()
		defer quick.Close()
		for i := range 3 * watchLog {
			ws.Tell(mine, ID{byte(i), byte(i >> 8)}, Moved)
			if i%watchLog == watchLog-1 {
				if hints, missed := quick.Take(); missed || len(hints) != watchLog {
					t.Fatalf("the quick one has %d, %v", len(hints), missed)
				}
			}
		}
		if hints, missed := w.Take(); !missed || len(hints) > 0 {
			t.Errorf("%d hints, %v", len(hints), missed)
		}
		ws.Tell(mine, a, Moved)
		if hints, missed := w.Take(); missed || len(hints) != 1 {
			t.Errorf("afterwards %d hints, %v", len(hints), missed)
		}
	})
	t.Run("versions rise also when nobody watched in between", func(t *testing.T) {
		var ws Watches
		w := ws.Watch(mine, &a)
		ws.Tell(mine, a, Moved)
		v := w.Version()
		w.Close()
		w.Close()
		if ws.Any() {
			t.Error("somebody watches")
		}
		ws.Tell(mine, a, Moved)
		w = ws.Watch(mine, &a)
		defer w.Close()
		if w.Version() < v {
			t.Errorf("%d comes after %d", w.Version(), v)
		}
		ws.Tell(mine, a, Moved)
		if w.Version() <= v {
			t.Errorf("%d is a later change than %d", w.Version(), v)
		}
	})
}

func TestPace(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	near := func(got, want float64) bool { return got > want*0.9 && got < want*1.1 }
	steady := func(p *Pace, from, to, rate int) {
		for s := from; s < to; s++ {
			for i := range 10 {
				p.Add(at(float64(s)+float64(i)/10), rate/10)
			}
		}
	}
	t.Run("is unknown within the first second and while nothing is finished", func(t *testing.T) {
		var p Pace
		p.Begin(start)
		if p.Rate(at(5)) != 0 {
			t.Error("nothing was finished")
		}
		p = Pace{}
		p.Begin(start)
		p.Add(at(0.5), 100)
		if p.Rate(at(0.9)) != 0 {
			t.Error("it has run for less than a second")
		}
	})
	t.Run("is right from the second second on", func(t *testing.T) {
		var p Pace
		p.Begin(start)
		steady(&p, 0, 2, 500)
		if got := p.Rate(at(2)); !near(got, 500) {
			t.Errorf("%v", got)
		}
	})
	t.Run("is that of late, not of the whole", func(t *testing.T) {
		var p Pace
		p.Begin(start)
		steady(&p, 0, 30, 1000)
		steady(&p, 30, 45, 10)
		if got := p.Rate(at(45)); !near(got, 10) {
			t.Errorf("%v", got)
		}
	})
	t.Run("of slow work is that of a minute", func(t *testing.T) {
		var p Pace
		p.Begin(start)
		for s := 0.0; s < 120; s += 6 {
			p.Add(at(s), 1)
		}
		if got := p.Rate(at(119)); !near(got, 1.0/6) {
			t.Errorf("%v", got)
		}
	})
	t.Run("is unknown again once nothing was finished for a minute", func(t *testing.T) {
		var p Pace
		p.Begin(start)
		steady(&p, 0, 5, 100)
		if p.Rate(at(30)) == 0 || p.Rate(at(65)) != 0 {
			t.Errorf("%v, %v", p.Rate(at(30)), p.Rate(at(65)))
		}
	})
	t.Run("does not count a standstill", func(t *testing.T) {
		var p Pace
		p.Begin(start)
		steady(&p, 0, 5, 100)
		p.Begin(at(100))
		steady(&p, 100, 103, 100)
		if got := p.Rate(at(103)); !near(got, 100) {
			t.Errorf("%v", got)
		}
	})
	t.Run("bears a clock that goes back", func(t *testing.T) {
		var p Pace
		p.Begin(at(100))
		steady(&p, 100, 103, 100)
		p.Add(at(0), 5)
		p.Rate(at(0))
		p.Add(at(103), 5)
	})
	b := Batch{Spec: Spec{Items: 1000}, Progress: Progress{Done: Tally{Succeeded: 400}}}
	if !b.ETA(start).IsZero() {
		t.Error("without a rate there is an end in sight")
	}
	b.Rate = 20
	if got := b.ETA(start); !got.Equal(at(30)) {
		t.Errorf("600 at 20 a second end at %v", got.Sub(start))
	}
	if b.Rate = 1e-300; !b.ETA(start).After(start) {
		t.Error("a far end is before now")
	}
}

func TestStandstill(t *testing.T) {
	now := time.Now()
	soon, running := now.Add(time.Second), Gate{Status: Running}
	for name, c := range map[string]struct {
		s    Standstill
		want string
	}{
		"nobody holds it":                {Standstill{Gate: Gate{Status: Queued}}, "capacity"},
		"nobody holds it any more":       {Standstill{Gate: running}, "capacity"},
		"all waits for its next attempt": {Standstill{Gate: running, Due: soon}, "retry_backoff"},
		"some is due again":              {Standstill{Gate: running, Due: now}, "capacity"},
		"its holder is at it":            {Standstill{Gate: running, Held: true, Due: soon}, ""},
		"its holder says why not":        {Standstill{Gate: running, Held: true, Holder: "rate_limit"}, "rate_limit"},
		"it moves":                       {Standstill{Gate: running, InFlight: 1, Held: true, Holder: "rate_limit"}, ""},
		"its time has not come":          {Standstill{Gate: Gate{Status: Queued, NotBefore: soon}}, "not_before"},
		"its time has come":              {Standstill{Gate: Gate{Status: Queued, NotBefore: now}}, "capacity"},
		"paused":                         {Standstill{Gate: Gate{Status: Paused, NotBefore: soon}, Due: soon}, "paused"},
		"paused, the last in flight":     {Standstill{Gate: Gate{Status: Paused}, InFlight: 1, Held: true}, "paused"},
		"its deadline has come":          {Standstill{Gate: Gate{Status: Running, Expires: now}}, ""},
		"it has lapsed":                  {Standstill{Gate: Gate{Status: Paused, Lapsed: true}}, ""},
		"open":                           {Standstill{Gate: Gate{Status: Open}}, ""},
		"canceling":                      {Standstill{Gate: Gate{Status: Canceling}, Due: soon}, ""},
		"completed":                      {Standstill{Gate: Gate{Status: Completed}}, ""},
		"canceled":                       {Standstill{Gate: Gate{Status: Canceled}}, ""},
		"expired":                        {Standstill{Gate: Gate{Status: Expired}}, ""},
	} {
		if got := c.s.Why(now); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestSurroundings(t *testing.T) {
	every := Surroundings{Missing: true, DiskFull: true, Down: true, Held: true}
	for _, word := range []string{"", "paused", "not_before", "rate_limit", "upstream_unavailable"} {
		if got := every.Explain(word); got != word {
			t.Errorf("%q is known better, and %q is said", word, got)
		}
	}
	for want, s := range map[string]Surroundings{
		"processor_missing":    every,
		"disk_full":            {DiskFull: true, Down: true, Held: true},
		"upstream_unavailable": {Down: true, Held: true},
		"retry_backoff":        {Held: true},
	} {
		if got := s.Explain("retry_backoff"); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
	if got := (Surroundings{Held: true}).Explain("capacity"); got != "rate_limit" {
		t.Errorf("its upstream asked to be left alone: %q", got)
	}
	if got := (Surroundings{}).Explain("capacity"); got != "capacity" {
		t.Errorf("others are served: %q", got)
	}
}
