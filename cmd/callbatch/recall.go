package main

// A sighting says whether a message has been here before.
type sighting string

const (
	unseen       sighting = ""
	turnedAway   sighting = "here again"
	acknowledged sighting = "acknowledged before: a receiver drops it"
)

// A recall remembers the messages that were here last, mostRecalled of them.
type recall struct {
	seen map[string]sighting
	ring []string // the ids in seen, in the order of their coming
	next int      // in ring: the oldest, once it is full
}

const mostRecalled = 10_000

// note remembers a message, and returns what it was until now. What has no id,
// or one so long that only a stranger could have sent it, is always new.
func (r *recall) note(id string, acknowledgedNow bool) (before sighting) {
	if id == "" || len(id) > mostShown {
		return unseen
	}
	before = r.seen[id]
	switch {
	case before != unseen:
	case len(r.ring) < mostRecalled:
		r.ring = append(r.ring, id)
	default:
		delete(r.seen, r.ring[r.next])
		r.ring[r.next] = id
		r.next = (r.next + 1) % mostRecalled
	}
	if r.seen == nil {
		r.seen = make(map[string]sighting)
	}
	r.seen[id] = turnedAway
	if acknowledgedNow || before == acknowledged {
		r.seen[id] = acknowledged
	}
	return before
}
