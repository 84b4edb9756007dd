package api

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// tags gives batches their entity tags. A tag is made of the content alone,
// so it outlives restarts, but while a batch is under way it advances at most
// four times a second: a client that polls with it is not sent every item.
type tags struct {
	mu         sync.Mutex
	young, old map[batch.ID]held // together at most two times manyTags
}

// held is the tag that a batch has for a while.
type held struct {
	content [8]byte
	turn    int       // tells apart the times the same content came back
	passed  bool      // other content was given out under it
	since   time.Time // it was made
}

const (
	manyTags = 1024
	tagPause = 250 * time.Millisecond
)

// tag returns the weak tag of a batch whose representation is body. It is late
// if it was made for another one and can only be replaced in a while.
func (t *tags) tag(id batch.ID, body []byte, over bool, now time.Time) (tag string, late bool) {
	sum := sha256.Sum256(body)
	content := [8]byte(sum[:8])
	t.mu.Lock()
	defer t.mu.Unlock()
	if over {
		delete(t.young, id)
		delete(t.old, id)
		return held{content: content}.String(), false
	}
	h, ok := t.find(id)
	switch changed := h.content != content; {
	case !ok:
		h = held{content: content, since: now}
	case changed && now.Sub(h.since) < tagPause:
		h.passed = true
	case now.Sub(h.since) < tagPause:
	case h.passed:
		h = held{content: content, turn: h.turn + 1, since: now}
	case changed:
		h = held{content: content, turn: h.turn, since: now}
	}
	t.keep(id, h)
	return h.String(), h.passed
}

// expire has the tag of a batch advance with its next content, however young it
// is: its owner has changed the batch and is to see that.
func (t *tags) expire(id batch.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h, ok := t.find(id); ok {
		h.since = time.Time{}
		t.keep(id, h)
	}
}

func (h held) String() string { return fmt.Sprintf(`W/"%x.%d"`, h.content, h.turn) }

func (t *tags) find(id batch.ID) (held, bool) {
	if h, ok := t.young[id]; ok {
		return h, true
	}
	h, ok := t.old[id]
	return h, ok
}

// keep forgets the tags not asked for lately once there are many.
func (t *tags) keep(id batch.ID, h held) {
	if t.young == nil || len(t.young) >= manyTags {
		t.young, t.old = make(map[batch.ID]held, manyTags), t.young
	}
	t.young[id] = h
}

// matches reports whether an If-None-Match header names the tag, compared as
// weak tags are.
func matches(header http.Header, tag string) bool {
	tag = strings.TrimPrefix(tag, "W/")
	for v := range strings.SplitSeq(strings.Join(header.Values("If-None-Match"), ","), ",") {
		v = strings.TrimSpace(v)
		if v == "*" || strings.TrimPrefix(v, "W/") == tag {
			return true
		}
	}
	return false
}
