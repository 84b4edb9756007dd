//go:build !faults

package bolt

import "go.etcd.io/bbolt"

// syncTx makes a transaction durable.
func syncTx(tx *bbolt.Tx) error { return tx.Commit() }

// acknowledge makes a batch exist, and returns when it does.
func acknowledge(create func() error) error { return create() }

// dropMessage is true only where tests plant a fault.
func dropMessage() bool { return false }
