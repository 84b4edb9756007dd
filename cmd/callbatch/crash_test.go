package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestCrash kills the real server again and again under load, and holds what
// it said before against what it shows afterwards: promises 1 to 5 and 8 of
// the contract, seen from outside.
//
// CALLBATCH_KILLS says how often (5 unless set), CALLBATCH_SEED which plan to
// repeat. A violation keeps the store, its log and the seed.
func TestCrash(t *testing.T) {
	tr := newTrial(t, build(t))
	tr.run(t.Context(), envNumber(t, "CALLBATCH_KILLS", 5))
	tr.report(t)
}

// trial is a server that is killed, and everything around it that remembers
// what it said.
type trial struct {
	seed     uint64
	dir      string
	server   *victim
	api      *api
	ledger   *ledger
	upstream *upstream
	receiver *receiver
	trigger  *trigger
	follower *follower
	operator *operator
	nemesis  *nemesis
	load     load
	patience time.Duration // how long a drain may stand still
	struck   int           // kills so far
	breakers int           // that were open when a kill came
	replayed atomic.Int64  // submissions that were sent again and had been done
}

// newTrial sets up a server that has not been started. The directory outlives
// the test if it fails.
func newTrial(t *testing.T, bin string, env ...string) *trial {
	t.Helper()
	dir, err := os.MkdirTemp("", "callbatch-crash-")
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(envNumber(t, "CALLBATCH_SEED", int(time.Now().UnixNano()>>10)))
	tr := &trial{seed: seed, dir: dir, trigger: &trigger{}, load: mixedLoad, patience: 90 * time.Second}
	tr.ledger = newLedger()
	tr.upstream = newUpstream(t, tr.ledger, tr.trigger)
	tr.receiver = newReceiver(t, tr.ledger, tr.trigger, rand.New(rand.NewPCG(seed, 1)))
	tr.server = newVictim(t, bin, dir, env)
	tr.server.configure(t, tr.upstream.url(), tr.receiver.port())
	tr.api = newAPI(tr.server)
	tr.receiver.api = tr.api
	tr.follower = newFollower(tr.ledger, tr.trigger, tr.api)
	tr.operator = &operator{trial: tr, rnd: rand.New(rand.NewPCG(seed, 3))}
	tr.nemesis = &nemesis{rnd: rand.New(rand.NewPCG(seed, 2)), trigger: tr.trigger}
	t.Cleanup(tr.server.stop)
	return tr
}

// run kills the server so many times, in rounds that each end with an audit.
func (tr *trial) run(ctx context.Context, kills int) {
	for tr.struck < kills && !tr.ledger.broken() {
		tr.round(ctx, min(tr.load.kills, kills-tr.struck))
		tr.drain(ctx)
		tr.audit(ctx)
	}
	if !tr.ledger.broken() {
		tr.auditAgain(ctx)
	}
}

// round kills the server n times under load and leaves it running, idle.
func (tr *trial) round(ctx context.Context, n int) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if !tr.up(ctx) {
		return
	}
	if err := tr.operator.retire(ctx); err != nil {
		tr.ledger.violate("operator: %v", err)
		return
	}
	var busy sync.WaitGroup
	for i := range tr.load.clients {
		c := tr.client(i)
		busy.Go(func() { c.run(ctx) })
	}
	for i := range tr.load.watchers {
		w := tr.watcher(i)
		busy.Go(func() { w.run(ctx) })
	}
	busy.Go(func() { tr.follower.run(ctx) })
	busy.Go(func() { tr.operator.run(ctx) })
	tr.strikes(ctx, n)
	for ctx.Err() == nil && !tr.ledger.broken() && len(tr.ledger.unsettled()) < tr.load.fill {
		breathe(ctx, 20*time.Millisecond)
	}
	stop()
	busy.Wait()
	if !tr.ledger.broken() {
		tr.up(context.WithoutCancel(ctx))
	}
}

// strikes kills the server n times, if all goes well. In every other round one
// of the kills, not one of the last, hits an open breaker.
func (tr *trial) strikes(ctx context.Context, n int) {
	dark := -1
	if round := tr.struck / tr.load.kills; tr.load.outages && (tr.seed+uint64(round))%2 == 0 {
		dark = tr.rand(300).IntN((n + 1) / 2)
	}
	for i := range n {
		strike := tr.strike
		if i == dark {
			strike = tr.strikeDark
		}
		if tr.ledger.broken() || !strike(ctx) {
			return
		}
	}
}

// strike kills the running server once and starts it again.
func (tr *trial) strike(ctx context.Context) bool {
	tr.nemesis.strike(ctx, tr.server)
	tr.struck++
	if err := tr.server.ended(); err != nil {
		tr.ledger.violate("the server ended by itself: %v", err)
		return false
	}
	if tr.struck%5 == 0 {
		if out, err := tr.server.check(ctx); err != nil {
			tr.ledger.violate("check after kill %d: %v\n%s", tr.struck, err, out)
			return false
		}
	}
	if err := tr.server.start(); err != nil {
		tr.ledger.violate("start after kill %d: %v", tr.struck, err)
		return false
	}
	return true
}

// up makes sure that the server runs, answers, and signs with the secret it
// said.
func (tr *trial) up(ctx context.Context) bool {
	if err := tr.server.start(); err != nil {
		tr.ledger.violate("start: %v", err)
		return false
	}
	if err := tr.server.ready(ctx); err != nil {
		tr.ledger.violate("it does not come up: %v", err)
		return false
	}
	if err := tr.trust(ctx); err != nil {
		tr.ledger.violate("%v", err)
		return false
	}
	return true
}

// trust has the receiver know the signing secret that the API shows.
func (tr *trial) trust(ctx context.Context) error {
	secret, err := tr.api.secret(ctx)
	if err != nil {
		return err
	}
	if err := tr.receiver.keys.trust(secret); err != nil {
		return violation{fmt.Errorf("the signing secret: %w", err)}
	}
	return nil
}

// report fails the test if anything was wrong, and then says where the store
// is; otherwise it removes it.
func (tr *trial) report(t *testing.T) {
	t.Helper()
	tr.server.stop()
	t.Logf("seed %d: %s", tr.seed, tr.summary())
	if !tr.ledger.broken() {
		if err := os.RemoveAll(tr.dir); err != nil {
			t.Error(err)
		}
		return
	}
	for _, v := range tr.ledger.violations() {
		t.Error(v)
	}
	t.Logf("CALLBATCH_SEED=%d; store and log are kept in %s", tr.seed, tr.dir)
}

func (tr *trial) summary() string {
	return fmt.Sprintf("%d kills (%d while a breaker was open), %d submissions replayed, %s, %s, %s, %s, %s", tr.struck, tr.breakers, tr.replayed.Load(),
		tr.ledger.summary(), tr.upstream.summary(), tr.receiver.summary(), tr.follower.summary(), tr.operator.summary())
}

func envNumber(t *testing.T, name string, unset int) int {
	t.Helper()
	text, ok := os.LookupEnv(name)
	if !ok {
		return unset
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// rand returns the stream of numbers of one client or watcher in this round.
func (tr *trial) rand(stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(tr.seed, stream+uint64(tr.struck)<<32))
}
