package main_test

import (
	"os"
	"testing"
	"time"
)

// TestCrashCatches plants faults in the real server and shows that the tests
// of this folder notice each of them. CI always runs it; elsewhere it takes
// CALLBATCH_FAULTS=1.
func TestCrashCatches(t *testing.T) {
	if os.Getenv("CALLBATCH_FAULTS") == "" && os.Getenv("CI") != "true" {
		t.Skip("takes a minute: CALLBATCH_FAULTS=1 runs it")
	}
	bin := build(t, "-tags", "faults")
	t.Run("no fault, no alarm", func(t *testing.T) {
		tr := newTrial(t, bin)
		tr.run(t.Context(), 3)
		tr.report(t)
	})
	t.Run("an acknowledgement before the commit", func(t *testing.T) {
		wantCaught(t, newTrial(t, bin, "CALLBATCH_FAULT=ack_early"))
	})
	t.Run("one message in a thousand dropped", func(t *testing.T) {
		wantCaught(t, newTrial(t, bin, "CALLBATCH_FAULT=drop_message"))
	})
	t.Run("an acknowledgement before the commit, in the trace", func(t *testing.T) {
		wantTraced(t, traceOrder(t, bin, "CALLBATCH_FAULT=ack_early"))
	})
	t.Run("commits that are not synced, in the trace", func(t *testing.T) {
		wantTraced(t, traceOrder(t, bin, "CALLBATCH_FAULT=nosync"))
	})
}

// mostKills bounds how long a fault may go unnoticed.
const mostKills = 100

func wantCaught(t *testing.T, tr *trial) {
	t.Helper()
	tr.load, tr.patience = smallLoad, 20*time.Second
	tr.run(t.Context(), mostKills)
	tr.server.stop()
	if !tr.ledger.broken() {
		t.Errorf("nothing noticed: seed %d, %s", tr.seed, tr.summary())
	}
	for _, v := range tr.ledger.violations() {
		t.Logf("caught after %d kills and %s: %.300s", tr.struck, tr.receiver.summary(), v)
	}
	if err := os.RemoveAll(tr.dir); err != nil {
		t.Error(err)
	}
}

func wantTraced(t *testing.T, o order) {
	t.Helper()
	caught := o.violations()
	if len(caught) == 0 {
		t.Error("nothing noticed")
	}
	for _, err := range caught[:min(3, len(caught))] {
		t.Logf("caught: %.300s", err)
	}
}
