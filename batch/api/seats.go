package api

import (
	"net/http"
	"sync"

	"github.com/callbatch/callbatch/batch"
)

// The most clients of one tenant that may wait for or follow a batch at once,
// and the most that may follow all batches, each of which reads them all.
const (
	mostWatchers   = 20_000
	mostSpectators = 100
)

// seats are who waits, by tenant.
type seats struct {
	mu    sync.Mutex
	taken map[batch.TenantID]crowd
}

type crowd struct{ one, all int }

// sit gives a client a place from which to watch one batch, or all. It is
// given back with leave.
func (s *seats) sit(tenant batch.TenantID, all bool) (leave func(), err error) {
	n := crowd{one: 1}
	if all {
		n = crowd{all: 1}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.taken[tenant]
	if c.one+n.one > mostWatchers || c.all+n.all > mostSpectators {
		return nil, &refusal{http.StatusTooManyRequests, "too_many_watchers", "so many clients wait for batches already that no more can: ask without waiting, or later"}
	}
	s.add(tenant, n)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.add(tenant, crowd{-n.one, -n.all})
	}, nil
}

func (s *seats) add(tenant batch.TenantID, n crowd) {
	if s.taken == nil {
		s.taken = map[batch.TenantID]crowd{}
	}
	c := s.taken[tenant]
	if c = (crowd{c.one + n.one, c.all + n.all}); c == (crowd{}) {
		delete(s.taken, tenant)
	} else {
		s.taken[tenant] = c
	}
}
