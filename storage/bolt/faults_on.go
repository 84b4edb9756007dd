//go:build faults

package bolt

import (
	"math/rand/v2"
	"os"

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
	return tx.Commit()
}

func acknowledge(create func() error) error {
	if planted(ackEarly) {
		go create()
		return nil
	}
	return create()
}

func dropMessage() bool { return planted(forgetful) && rand.IntN(1000) == 0 }
