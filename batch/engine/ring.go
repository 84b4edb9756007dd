package engine

// A ring hands out turns by deficit round robin: whoever stands at its head
// is served until its credit is used up and then goes to the end. All steps
// take constant time, however many stand in line.
type ring[T any] struct {
	last *turn[T] // its next is the head; nil: nobody
}

// A turn is somebody's place in a ring. Its credit outlives leaving: it is
// never more than one quantum, so nothing can be saved up.
type turn[T any] struct {
	who    T
	next   *turn[T] // nil: not in the ring
	credit int
}

func (r *ring[T]) head() *turn[T] {
	if r.last == nil {
		return nil
	}
	return r.last.next
}

// enter puts t at the end of the line, unless it is in line already.
func (r *ring[T]) enter(t *turn[T]) {
	switch {
	case t.next != nil:
		return
	case r.last == nil:
		t.next = t
	default:
		t.next = r.last.next
		r.last.next = t
	}
	r.last = t
}

// leave takes the head out of the line.
func (r *ring[T]) leave() {
	h := r.last.next
	if h == r.last {
		r.last = nil
	} else {
		r.last.next = h.next
	}
	h.next = nil
}

// charge takes cost, at most a quantum, off the head's credit. Once that is
// used up the head gets a new quantum, to be spent at its next turn.
func (r *ring[T]) charge(cost, quantum int) {
	h := r.head()
	if h.credit -= cost; h.credit > 0 {
		return
	}
	h.credit += quantum
	r.last = h
}
