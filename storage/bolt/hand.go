package bolt

import "github.com/callbatch/callbatch/batch"

// The bodies of new messages that are small and due at once are kept at hand,
// so that they need not be read again when they are sent. What a claim does
// not find here is read then, so forgetting all of them is always right.
const (
	smallResults = 4 << 10 // bytes of results that are made into a body within a transaction
	mostAtHand   = 8 << 20 // bytes of bodies
)

// atHand keeps the body of a new message until it is claimed.
func (t *txn) atHand(s *Store, m batch.Message) {
	if m.Due.After(t.now) {
		return
	}
	if body := smallBody(m); body != nil {
		t.after(func() {
			if s.handBytes += len(body); s.handBytes > mostAtHand {
				clear(s.hand)
				s.handBytes = len(body)
			}
			s.hand[m.ID] = body
		})
	}
}

// fromHand returns the body of a message if it is at hand.
func (s *Store) fromHand(id batch.MessageID) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	body := s.hand[id]
	if body != nil {
		delete(s.hand, id)
		s.handBytes -= len(body)
	}
	return body
}

// smallBody returns the body of a message that was just made, if it is small.
func smallBody(m batch.Message) []byte {
	size := 0
	for _, r := range m.Carried {
		size += len(r.Payload)
	}
	if len(m.Carried) == 0 || size > smallResults {
		return nil
	}
	return batch.AppendBody(make([]byte, 0, len(m.Head)+len(m.Tail)+size+256*len(m.Carried)), m, m.Carried)
}
