package bolt

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"
)

// A snapshot is a read transaction that several readers may share: they only
// follow pages of the mapped file, which bbolt's readers do without a lock.
type snapshot struct {
	tx    *bbolt.Tx
	users atomic.Int32
}

// enter returns what is durable. bbolt shows a commit as soon as its meta page
// is written, before that is synced: while a commit is under way readers share
// the state before it, and nobody waits.
func (s *Store) enter() (*snapshot, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	sn := s.before
	if sn == nil {
		tx, err := s.db.Begin(false)
		if err != nil {
			return nil, err
		}
		sn = &snapshot{tx: tx}
	}
	sn.users.Add(1)
	return sn, nil
}

func (sn *snapshot) leave() {
	if sn.users.Add(-1) == 0 {
		sn.tx.Rollback()
	}
}

func (s *Store) show(sn *snapshot) {
	s.reading.Lock()
	defer s.reading.Unlock()
	s.before = sn
}

// remapMargin is more than one transaction lets the file grow: a block's
// results are at most 256 MiB, and a transaction stops at one such step.
const remapMargin = 1 << 30

// makeDurable commits a transaction, and shows it only then. After an error
// that leaves the outcome unknown the state before is shown for good.
func (s *Store) makeDurable(tx *bbolt.Tx) error {
	id := tx.ID()
	if tx.Size()+remapMargin > s.mapped {
		// The file may have to be mapped anew, which waits for every reader: one
		// of ours must not be among them. New readers wait for the commit.
		s.reading.Lock()
		defer s.reading.Unlock()
		return s.undone(id, s.sync(tx))
	}
	before, err := s.enter()
	if err != nil {
		return err
	}
	s.show(before)
	if err = s.undone(id, s.sync(tx)); err == nil || errors.Is(err, errNoSpace) {
		s.show(nil)
		before.leave()
	}
	return err
}

// errNoSpace is a commit that the disk had no room for. Nothing of it is
// there, and the next may succeed.
var errNoSpace = errors.New("no space left for a commit")

// noSpace reports whether err says so. bbolt gives some errors of the system
// as text only.
func noSpace(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, e) || strings.Contains(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}

// undone tells a commit that surely did not happen from one of which nobody
// knows: no room for its pages, and the file does not show it.
func (s *Store) undone(id int, err error) error {
	if err == nil || !noSpace(err) {
		return err
	}
	tx, readErr := s.db.Begin(false)
	if readErr != nil {
		return err
	}
	defer tx.Rollback()
	if tx.ID() >= id {
		return err
	}
	return errNoSpace
}
