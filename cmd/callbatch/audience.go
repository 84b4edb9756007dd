package main

import (
	"net/http"
	"slices"
	"sync"
)

// An audience is the demo's way to answer: it remembers what arrives and, to
// show a retry, turns the first away.
type audience struct {
	seen func(arrival) // called once for each, one at a time

	mu       sync.Mutex
	arrivals []arrival
}

func (d *audience) answer(w http.ResponseWriter, _ *http.Request, a arrival) {
	if a.Bad == nil {
		a.Bad = a.Strange
	}
	w.WriteHeader(d.remember(a))
}

func (d *audience) remember(a arrival) (status int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case a.Bad != nil:
		a.Status = http.StatusUnauthorized
	case len(d.arrivals) == 0:
		a.Status = http.StatusServiceUnavailable
	default:
		a.Status = http.StatusNoContent
	}
	d.arrivals = append(d.arrivals, a)
	d.seen(a)
	return a.Status
}

// all returns what has arrived so far, in order.
func (d *audience) all() []arrival {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.arrivals)
}
