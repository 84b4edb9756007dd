//go:build !faults

package bolt

import "go.etcd.io/bbolt"

// syncTx makes a transaction durable.
func syncTx(tx *bbolt.Tx) error { return tx.Commit() }

// dropMessage is true only where tests plant a fault.
func dropMessage() bool { return false }
