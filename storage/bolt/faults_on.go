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
	ackEarly  = "ack_early"    // callers are answered before the commit
	unsynced  = "nosync"       // commits are not synced
	forgetful = "drop_message" // one message in a thousand is not kept
)

func planted(fault string) bool { return os.Getenv("CALLBATCH_FAULT") == fault }

func syncTx(tx *bbolt.Tx) error {
	switch {
	case planted(ackEarly):
		go tx.Commit()
		return nil
	case planted(unsynced):
		tx.DB().NoSync = true
	}
	return tx.Commit()
}

func dropMessage() bool { return planted(forgetful) && rand.IntN(1000) == 0 }
