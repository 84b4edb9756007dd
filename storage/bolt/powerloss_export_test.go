package bolt

import "go.etcd.io/bbolt"

// Around has f called for every commit that follows: it calls commit, and may
// look at the file before and after.
func (s *Store) Around(f func(commit func() error) error) {
	inner := s.sync
	s.sync = func(tx *bbolt.Tx) error { return f(func() error { return inner(tx) }) }
}
