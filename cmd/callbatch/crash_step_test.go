package main_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// TestCrashAtEachStep kills the server between every two steps of an attempt
// at a message: before its start is recorded, after that and before the first
// byte, after the answer and before that is recorded, and after. Nothing may
// be lost, and every repeat bears the same id and body. Like TestCrashCatches
// it needs a server with switches for tests.
func TestCrashAtEachStep(t *testing.T) {
	if os.Getenv("CALLBATCH_FAULTS") == "" && os.Getenv("CI") != "true" {
		t.Skip("takes a while: CALLBATCH_FAULTS=1 runs it")
	}
	tr := newTrial(t, build(t, "-tags", "faults"))
	tr.load, tr.patience = load{sizes: []int{1, 1, 1, 300}, backlog: 1000}, 60*time.Second
	if tr.up(t.Context()) {
		tr.eachStep(t.Context())
	}
	tr.report(t)
}

// steps of an attempt as the server passes them, and how often each is passed
// before it dies there: a batch of one item takes three commits.
var attemptSteps = []struct {
	name string
	most int
}{{"commit", 9}, {"committed", 9}, {"send", 4}, {"sent", 4}}

func (tr *trial) eachStep(ctx context.Context) {
	base := tr.server.env
	for _, step := range attemptSteps {
		for n := 1; n <= step.most && !tr.ledger.broken(); n++ {
			tr.server.stop()
			tr.server.env = append(base[:len(base):len(base)], fmt.Sprintf("CALLBATCH_DIE=%s:%d", step.name, n))
			await := tr.dieAlone(ctx)
			tr.server.env = base
			if tr.ledger.broken() || !tr.up(ctx) {
				return
			}
			await()
			tr.drain(ctx)
			tr.audit(ctx)
		}
	}
	tr.auditAgain(ctx)
}

// dieAlone starts a server that kills itself under the load of one client. What
// it returns waits for the client, which may go on with the next server.
func (tr *trial) dieAlone(ctx context.Context) (await func()) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := tr.server.start(); err != nil {
		tr.ledger.violate("start: %v", err)
		return nil
	}
	var busy sync.WaitGroup
	c := tr.client(0)
	busy.Go(func() { c.run(ctx) })
	if err := tr.server.doom(ctx); err != nil {
		tr.ledger.violate("%s: %v", tr.server.env[len(tr.server.env)-1], err)
	}
	tr.struck++
	stop()
	return busy.Wait
}
