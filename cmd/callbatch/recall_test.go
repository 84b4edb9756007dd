package main

import (
	"strconv"
	"strings"
	"testing"
)

func TestRecallForgetsTheOldest(t *testing.T) {
	var r recall
	for i := range 2 * mostRecalled {
		if r.note(strconv.Itoa(i), false) != unseen {
			t.Fatalf("%d is not new", i)
		}
	}
	if len(r.seen) != mostRecalled || len(r.ring) != mostRecalled {
		t.Errorf("%d are remembered, in a ring of %d; want %d", len(r.seen), len(r.ring), mostRecalled)
	}
	for id, want := range map[string]sighting{
		strconv.Itoa(mostRecalled):        turnedAway, // the oldest that is left
		strconv.Itoa(2*mostRecalled - 1):  turnedAway,
		"":                                unseen,
		strings.Repeat("x", mostRecalled): unseen,
	} {
		if got := r.note(id, true); got != want {
			t.Errorf("%.20q: %q, want %q", id, got, want)
		}
	}
	if got := r.note(strconv.Itoa(mostRecalled), false); got != acknowledged {
		t.Errorf("what was acknowledged is %q", got)
	}
	if got := r.note("0", false); got != unseen {
		t.Errorf("the first is %q", got)
	}
}
