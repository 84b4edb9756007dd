// Package storagetest is the suite that every storage engine passes: the
// sentences of [batch.Store], each as a case that can fail. An engine's own
// test is a constructor and one call of [Run].
//
// A change of the seam begins here: write the promise, see it fail on every
// engine, then keep it.
//
// The engine must be able to keep 100,000 items and a few MiB of outputs.
// After every case the store is audited from outside, batch by batch, and
// its own Check must find nothing.
package storagetest

import (
	"slices"
	"testing"

	"github.com/callbatch/callbatch/batch"
)

// A Place is where a store keeps what must outlive it. One store of a place
// is open at a time.
type Place struct {
	// Open opens the store with what the place holds. The key of the links is
	// the store's own.
	Open func(terms batch.Terms) (batch.Store, error)

	// Kill leaves the place as it is when the process of the open store dies
	// at once: nothing that store does from now on, its Close included,
	// reaches the place. Without Kill the cases that need it are skipped.
	Kill func() error
}

// An Opener makes a new and empty place that is gone when t ends.
type Opener func(t testing.TB) Place

// cases are what a family promises, a sentence each.
type cases []struct {
	says string
	so   func(s *fixture)
}

// run runs each case on a place of its own and audits what it leaves.
func (cs cases) run(t *testing.T, open Opener, down ending) {
	for _, c := range cs {
		t.Run(c.says, func(t *testing.T) {
			s := newFixture(t, open(t))
			s.down = down
			defer s.shut()
			c.so(s)
			s.audit()
		})
	}
}

// Run runs every family and the model against the engine. The model's
// length is rapid's to set: -rapid.checks and -rapid.steps.
func Run(t *testing.T, open Opener) {
	families := []struct {
		name  string
		cases cases
	}{
		{"create", creating},
		{"claim", claiming},
		{"record", recording},
		{"cancel", canceling},
		{"retry", retrying},
		{"remove", removing},
		{"steer", steering},
		{"amend", amending},
		{"deliver", delivering},
		{"budget", budgeting},
		{"redeliver", redelivering},
		{"pull", pulling},
		{"feed", feeding},
		{"read", reading},
		{"limits", limits},
		{"keep", keeping},
		{"parts", parting},
		{"once", binding},
		{"watch", watching},
	}
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) { f.cases.run(t, open, closed) })
	}
	reopening := slices.Concat(reopening, reopenedParts, reopenedOnce)
	t.Run("reopen after close", func(t *testing.T) { reopening.run(t, open, closed) })
	t.Run("reopen after kill", func(t *testing.T) {
		if open(t).Kill == nil {
			t.Skip("this engine is killed by tests of its own")
		}
		reopening.run(t, open, killed)
	})
	t.Run("model", func(t *testing.T) { checkModel(t, open) })
}
