package bolt

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// rises makes a host answer until it is proven.
func rises(t *testing.T, s *Store, host string) {
	t.Helper()
	err := s.do(s.small, 0, func(tx *txn) error {
		d := batch.Delivery{Message: batch.Message{Host: host, Started: time.Now()}}
		for range 3 {
			if err := tx.judge(s, hostOf(d.Tenant, host), d, batch.HostUp); err != nil {
				return errBroken{err}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAProvenHostIsKnownAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path)
	rises(t, s, "shop.example:443")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path)
	if h := s.healthOf(hostOf(batch.TenantID{}, "shop.example:443")); !h.Proven() {
		t.Errorf("got %+v", h)
	}
	if hosts, err := s.Hosts(t.Context(), batch.TenantID{}); len(hosts) != 0 || err != nil {
		t.Errorf("nothing is known against it, and it is shown: %+v, %v", hosts, err)
	}
}

func TestAnAttemptThatACrashCutShortTakesNoStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path)
	completed(t, s)
	for n := range 3 {
		if d := sent(t, s); d.Made != n+1 || d.Made-d.Spared != 1 {
			t.Fatalf("start %d: attempt %d, the schedule's number %d", n, d.Made, d.Made-d.Spared)
		}
		if err := s.Close(); err != nil { // it is in flight, and nobody says how it ended
			t.Fatal(err)
		}
		s = openAt(t, path)
	}
}

// A tenant whose hosts all hang leaves places to others.
func TestOneTenantCannotTakeAllTrials(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	l := s.lanes
	s.mu.Lock()
	defer s.mu.Unlock()
	greedy, other := batch.TenantID{1}, batch.TenantID{2}
	for n := range trialsOfTenant {
		l.depart(flight{host: hostOf(greedy, fmt.Sprint(n)), trial: true})
	}
	if n := l.mayTry(hostOf(greedy, "one more"), demand{}); n != 0 {
		t.Errorf("it may begin %d more", n)
	}
	if n := l.mayTry(hostOf(other, "first"), demand{}); n != trialsOfTenant {
		t.Errorf("another may begin %d", n)
	}
	lane := laneOf(batch.Message{Tenant: greedy, Host: "one more"})
	l.host(lane.host().trials()).held[lane] = struct{}{}
	l.arrive(flight{host: hostOf(greedy, "7"), trial: true})
	if !l.turns[first].queues(lane) || l.mayTry(lane.host(), demand{}) != 1 {
		t.Error("a place is free, and nobody is told")
	}
}

func TestRetriesLeaveAPlaceHoweverFewThereAre(t *testing.T) {
	fresh := batch.Message{Tenant: batch.TenantID{1}, Host: "shop.example:443"}
	again := fresh
	again.Made = 1
	for _, perHost := range []int{1, 2, 4, 8, 64} {
		l := newLanes()
		l.heal(laneOf(fresh).host(), batch.Health{Room: 1000})
		l.wakeUp(laneOf(fresh))
		took := 0
		for ; took <= perHost; took++ {
			if n, _ := l.room(laneOf(again), demand{}, perHost, time.Now()); n == 0 {
				break
			}
			l.depart(flight{host: laneOf(again).host()})
		}
		if n, _ := l.room(laneOf(fresh), demand{}, perHost, time.Now()); n == 0 {
			t.Errorf("of %d places retries took %d", perHost, took)
		}
		if took == 0 && perHost > 1 {
			t.Errorf("of %d places retries may take none", perHost)
		}
	}
	l := newLanes()
	if n, _ := l.room(laneOf(again), demand{}, 1, time.Now()); n != 1 {
		t.Error("nothing else waits, and a retry may not take the only place")
	}
}
