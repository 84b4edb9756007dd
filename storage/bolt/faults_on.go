//go:build faults

package bolt

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"
)

// With the build tag "faults" a store has the fault that CALLBATCH_FAULT
// names. Tests plant it to show that they would notice.
const (
	ackEarly  = "ack_early"    // a batch is acknowledged before its commit
	unsynced  = "nosync"       // commits are not synced
	forgetful = "drop_message" // one message in a thousand is not kept
)

func planted(fault string) bool { return os.Getenv("CALLBATCH_FAULT") == fault }

func syncTx(tx *bbolt.Tx) error {
	tx.DB().NoSync = planted(unsynced)
	pass("commit")
	err := tx.Commit()
	pass("committed")
	return err
}

var passed atomic.Int64

// pass kills the process when it passes a step for the n-th time, if
// CALLBATCH_DIE is "step:n".
func pass(step string) {
	at, n, _ := strings.Cut(os.Getenv("CALLBATCH_DIE"), ":")
	if at == step && strconv.FormatInt(passed.Add(1), 10) == n {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func acknowledge(create func() error) error {
	if planted(ackEarly) {
		go create()
		return nil
	}
	return create()
}

func dropMessage() bool { return planted(forgetful) && rand.IntN(1000) == 0 }
