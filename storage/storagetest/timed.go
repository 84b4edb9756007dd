package storagetest

import (
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// RunTimed runs the families in which minutes and hours pass. in runs a test
// as [testing/synctest.Test] does: there time passes as soon as nothing else
// is left to do. An engine whose clock is not that of its process takes its
// own time, or leaves them out.
func RunTimed(t *testing.T, open Opener, in func(t *testing.T, f func(t *testing.T))) {
	families := []struct {
		name  string
		cases cases
	}{
		{"health", healing},
		{"window", lapsing},
		{"progress", telling},
		{"pace", pacing},
		{"retain", retaining},
		{"left alone", leftAlone},
		{"forget", forgetting},
		{"due", timing},
	}
	for _, f := range families {
		for _, c := range f.cases {
			t.Run(f.name+"/"+c.says, func(t *testing.T) {
				in(t, func(t *testing.T) {
					time.Sleep(time.Until(batch.Epoch.AddDate(1, 0, 0))) // a bubble begins before the first id
					s := newFixture(t, open(t))
					defer s.shut()
					c.so(s)
					s.audit()
				})
			})
		}
	}
}

// pass lets time go by until at.
func (s *fixture) pass(at time.Time) { time.Sleep(time.Until(at) + 2*time.Millisecond) }
