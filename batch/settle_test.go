package batch

import (
	"testing"
	"time"
)

func done(i int, s ItemStatus) Result { return Result{Index: i, Status: s, Attempts: 1} }

func TestBlockState(t *testing.T) {
	soon := time.Now().Add(time.Minute)
	later := soon.Add(time.Minute)

	t.Run("takes each item's result once", func(t *testing.T) {
		st := BlockState{}.In(1, 3)
		tally, err := st.Apply(10, Report{Results: []Result{done(11, ItemSucceeded), done(12, ItemFailed)}})
		if err != nil || tally != (Tally{Succeeded: 1, Failed: 1}) || st.Finished() {
			t.Fatalf("%+v, %v, finished %v", tally, err, st.Finished())
		}
		if _, err := st.Apply(10, Report{Results: []Result{done(11, ItemFailed)}}); CodeOf(err) != Lost {
			t.Errorf("a second result of an item gave %v", err)
		}
		if _, err := st.Apply(10, Report{Results: []Result{done(10, ItemSucceeded)}}); err != nil || !st.Finished() {
			t.Errorf("the last item: %v, finished %v", err, st.Finished())
		}
		if got := st.Tally(); got != (Tally{Succeeded: 2, Failed: 1}) {
			t.Errorf("it counts %+v", got)
		}
	})
	for name, r := range map[string]Report{
		"an item before the block": {Results: []Result{done(9, ItemSucceeded)}},
		"an item behind it":        {Results: []Result{done(13, ItemSucceeded)}},
		"no outcome":               {Results: []Result{done(10, ItemRunning)}},
		"one item twice":           {Results: []Result{done(10, ItemFailed), done(10, ItemFailed)}},
		"again after its result":   {Results: []Result{done(10, ItemFailed)}, Again: []Again{{Index: 10}}},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			st := BlockState{}.In(1, 3)
			if _, err := st.Apply(10, r); err == nil {
				t.Error("it was taken")
			}
		})
	}
	t.Run("is due when the first of its items is", func(t *testing.T) {
		st := BlockState{}.In(1, 3)
		if !st.Due().IsZero() {
			t.Errorf("untouched it is due at %s", st.Due())
		}
		st.Apply(0, Report{Results: []Result{done(0, ItemFailed)}, Again: []Again{{Index: 1, Attempts: 1, Due: later}, {Index: 2, Attempts: 2, Due: soon}}})
		if !st.Due().Equal(soon) {
			t.Errorf("it is due at %s, not %s", st.Due(), soon)
		}
	})
	t.Run("a closed block takes nothing", func(t *testing.T) {
		st := BlockState{}.In(1, 1)
		st.Closed = true
		if _, err := st.Apply(0, Report{Results: []Result{done(0, ItemFailed)}}); CodeOf(err) != Lost {
			t.Errorf("got %v", err)
		}
	})
	t.Run("says nothing of another round", func(t *testing.T) {
		st := BlockState{}.In(1, 3)
		st.Apply(0, Report{Results: []Result{done(0, ItemSucceeded), done(1, ItemFailed)}})
		st.Closed = true
		next := st.In(2, 3)
		if next.Round != 2 || next.Closed || next.Tally().Sum() != 0 || len(next.Items) != 3 {
			t.Errorf("got %+v", next)
		}
		if st.Items[1].Status != ItemFailed {
			t.Error("the old round was changed")
		}
	})
}

func TestProgress(t *testing.T) {
	now := time.Now()
	running := Progress{Status: Running, Round: 1, Open: 2, Started: now}

	for name, c := range map[string]struct {
		p      Progress
		leased int
		as     Status
		over   bool
	}{
		"blocks are open":                    {Progress{Status: Running, Open: 1}, 0, Completed, false},
		"the last block is done":             {Progress{Status: Running}, 1, Completed, true},
		"canceling, one in flight":           {Progress{Status: Canceling, Open: 3}, 1, Canceled, false},
		"canceling, none in flight":          {Progress{Status: Canceling, Open: 3}, 0, Canceled, true},
		"a cancel wins over the last item":   {Progress{Status: Canceling}, 0, Canceled, true},
		"what has ended does not end again":  {Progress{Status: Completed}, 0, 0, false},
		"what is uploaded does not end":      {Progress{Status: Open}, 0, 0, false},
		"a paused batch whose last one ends": {Progress{Status: Paused}, 0, Completed, true},
	} {
		t.Run(name, func(t *testing.T) {
			if as, over := c.p.Over(c.leased); over != c.over || over && as != c.as {
				t.Errorf("got %s, %v", as, over)
			}
		})
	}
	t.Run("a cancel is idempotent and loses against an end", func(t *testing.T) {
		p := running
		if changed, err := p.Cancel(); !changed || err != nil || p.Status != Canceling {
			t.Fatalf("%v, %v, %s", changed, err, p.Status)
		}
		if changed, err := p.Cancel(); changed || err != nil {
			t.Errorf("again: %v, %v", changed, err)
		}
		p.End(Canceled, 10, now)
		if changed, err := p.Cancel(); changed || err != nil {
			t.Errorf("when canceled: %v, %v", changed, err)
		}
		p.Status = Completed
		if _, err := p.Cancel(); CodeOf(err) != Conflict {
			t.Errorf("when completed: %v", err)
		}
	})
	t.Run("counts sum to the total whatever is in flight", func(t *testing.T) {
		for _, inFlight := range []int{0, 3, 7, 1000, -1} {
			b := Batch{Spec: Spec{Items: 10}, Progress: running, InFlight: inFlight}
			b.Absorb(Tally{Succeeded: 2, Failed: 1}, 0, 0)
			c := b.Counts()
			if c.Pending+c.Running+c.Finished() != 10 || c.Pending < 0 || c.Running < 0 {
				t.Errorf("in flight %d: %+v", inFlight, c)
			}
			b.End(Canceled, 10, now)
			if c := b.Counts(); c.Running != 0 || c.Canceled != 7 || c.Finished() != 10 {
				t.Errorf("at the end: %+v", c)
			}
		}
	})
	t.Run("every change raises the version", func(t *testing.T) {
		p := Progress{Status: Queued, Round: 1, Open: 1}
		was := p.Version
		for name, f := range map[string]func(){
			"absorb":  func() { p.Absorb(Tally{}, 0, 0) },
			"post":    func() { p.Post(Message{Type: TypeResults}) },
			"deliver": func() { p.Deliver(&Message{Type: TypeResults, Round: 1, State: MessageDelivered}) },
			"reopen":  func() { p.Reopen(Message{Type: TypeResults, Round: 1}, MessageDelivered) },
			"tell":    func() { p.Post(Message{Type: TypeProgress}) },
		} {
			if f(); p.Version <= was {
				t.Errorf("%s left it at %d", name, p.Version)
			}
			was = p.Version
		}
	})
	t.Run("the state table has no way out of an end but a retry", func(t *testing.T) {
		for s := Open; s <= Expired; s++ {
			for next := Open; next <= Expired; next++ {
				if s.Terminal() && s.CanBecome(next) && next != Queued {
					t.Errorf("%s can become %s", s, next)
				}
			}
		}
	})
}
