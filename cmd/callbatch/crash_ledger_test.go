package main_test

import (
	"fmt"
	"slices"
	"sync"
)

// ledger is what the outside knows: every submission, what became of it, and
// what was wrong.
type ledger struct {
	mu      sync.Mutex
	byToken map[string]*submission
	byID    map[string]*submission
	live    []*submission // known by id, not audited yet
	settled []*submission // audited
	wrong   []string
}

const mostViolations = 20

func newLedger() *ledger {
	return &ledger{byToken: make(map[string]*submission), byID: make(map[string]*submission)}
}

// violate records that a promise was broken.
func (l *ledger) violate(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < mostViolations {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) broken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.wrong) > 0
}

func (l *ledger) violations() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.wrong)
}

// sent remembers a submission before its first byte leaves.
func (l *ledger) sent(s *submission) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.byToken[s.token] = s
}

// unsent forgets a submission of which no byte can have arrived.
func (l *ledger) unsent(s *submission) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byToken, s.token)
}

// exists remembers that a submission became the batch id: its 202 said so, or
// the list did.
func (l *ledger) exists(s *submission, id string, answered bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.id != "" && s.id != id {
		l.wrong = append(l.wrong, fmt.Sprintf("one submission became two batches: %s and %s", s.id, id))
		return
	}
	s.answered = s.answered || answered
	if s.id == "" {
		s.id = id
		l.byID[id] = s
		l.live = append(l.live, s)
	}
}

// refuse remembers a complete answer that was not 202: it may leave nothing.
func (l *ledger) refuse(s *submission, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = why
}

// settle moves what was audited out of the way.
func (l *ledger) settle(done []*submission) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = slices.DeleteFunc(l.live, func(s *submission) bool { return slices.Contains(done, s) })
	l.settled = append(l.settled, done...)
}

// reopen says that a message of a batch may be sent once more from now on: a
// batch that was audited will be again.
func (l *ledger) reopen(s *submission) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.mayComeAgain()
	if i := slices.Index(l.settled, s); i >= 0 {
		l.settled = slices.Delete(l.settled, i, i+1)
		l.live = append(l.live, s)
	}
}

// reopenAll says that messages of any batch may be sent once more. Those of
// which that concerns what was audited are for reopen.
func (l *ledger) reopenAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.byToken {
		s.mayComeAgain()
	}
}

func (l *ledger) token(t string) *submission {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byToken[t]
}

func (l *ledger) batch(id string) *submission {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id]
}

func (l *ledger) unsettled() []*submission {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.live)
}

func (l *ledger) audited() []*submission {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.settled)
}

// ids returns every batch that is known to exist.
func (l *ledger) ids() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id := range l.byID {
		ids = append(ids, id)
	}
	return ids
}

func (l *ledger) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	items := 0
	for _, s := range l.byID {
		items += s.items
	}
	return fmt.Sprintf("%d batches (%d items) of %d submissions", len(l.byID), items, len(l.byToken))
}
