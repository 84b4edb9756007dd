package main_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/url"
	"sync"
)

// submission is one batch as its client knows it. Its items follow from its
// token, so they need not be kept; the token travels in the metadata, so that
// a batch whose 202 never arrived is known again.
type submission struct {
	token     string
	items     int
	processor string // "twice" (the upstream) or "sum" (jq)
	ndjson    bool
	idField   bool
	callback  bool   // it has a URL
	mode      string // of the callback; empty is "results"
	progress  bool   // is to be told as well
	headers   bool   // extra ones
	parts     int    // it is sent in; 0: as a whole
	keyed     bool   // it bears an Idempotency-Key, and is sent until it is answered

	mu        sync.Mutex
	id        string // once known
	answered  bool   // by a complete 202
	refused   string // by a complete other answer
	canceled  bool   // a cancel was answered
	mayCancel bool   // one was sent, and no answer arrived
	again     bool   // what was delivered may come again
	seen      [][8]byte
	last      *batchDoc // as last shown
	audited   [sha256.Size]byte
	watching  sync.Mutex // one watcher at a time: or answers could overtake each other
}

func newSubmission(rnd *rand.Rand, l load) *submission {
	s := &submission{
		token:     fmt.Sprintf("t%016x", rnd.Uint64()),
		items:     l.sizes[rnd.IntN(len(l.sizes))],
		processor: "twice",
		ndjson:    rnd.IntN(2) == 0,
		idField:   rnd.IntN(3) == 0,
		callback:  rnd.IntN(8) > 0,
		progress:  rnd.IntN(2) == 0,
		keyed:     rnd.IntN(2) == 0,
	}
	if rnd.IntN(3) == 0 {
		s.processor = "sum"
	}
	if s.items >= 10 && rnd.IntN(3) == 0 {
		s.parts = 3
	}
	switch rnd.IntN(12) {
	case 0:
		s.mode = "summary"
	case 1, 2:
		s.mode, s.callback = "pull", rnd.IntN(2) == 0
	}
	s.headers = s.callback && rnd.IntN(3) == 0
	return s
}

// messages reports whether there are any, sent or to be pulled.
func (s *submission) messages() bool { return s.callback || s.mode == "pull" }

// pass is what the receiver's gateway asks for, if it does.
func (s *submission) pass() string {
	if !s.headers {
		return ""
	}
	return "Bearer " + s.token
}

// item returns the item at index i.
func (s *submission) item(i int) []byte {
	return fmt.Appendf(nil, `{"token":%q,"i":%d, "n":%d,"order":"%s-%d"}`, s.token, i, s.number(i), s.token, i)
}

func (s *submission) number(i int) int { return int(s.hash(i) % 1000) }

func (s *submission) hash(i int) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%d", s.token, i)
	return h.Sum64() >> 7
}

func (s *submission) itemID(i int) string {
	if s.idField {
		return fmt.Sprintf("%s-%d", s.token, i)
	}
	return fmt.Sprint(i)
}

// options are what is asked for.
func (s *submission) options(receiver string) map[string]any {
	o := map[string]any{"processor": s.processor, "metadata": map[string]string{"token": s.token}}
	if s.callback {
		o["callback_url"] = receiver
	}
	if s.mode != "" {
		o["callback_mode"] = s.mode
	}
	if s.progress {
		o["callback_events"] = []string{typeProgress}
	}
	if s.headers {
		o["callback_headers"] = map[string]string{"Authorization": s.pass()}
	}
	if s.idField {
		o["id_field"] = "/order"
	}
	return o
}

// query is the same, for a body without options.
func (s *submission) query(receiver string) url.Values {
	q := url.Values{"metadata.token": {s.token}}
	o := s.options(receiver)
	delete(o, "metadata")
	for name, v := range o {
		text, ok := v.(string)
		if !ok {
			text = string(plain(v))
		}
		q.Set(name, text)
	}
	return q
}

// plain returns the JSON of what always has one.
func plain(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// body returns what is sent, as a stream.
func (s *submission) body(receiver string) io.Reader {
	var b bytes.Buffer
	if s.ndjson {
		for i := range s.items {
			b.Write(s.item(i))
			b.WriteByte('\n')
		}
		return &b
	}
	b.Write(bytes.TrimSuffix(plain(s.options(receiver)), []byte("}")))
	b.WriteString(`,"items":[`)
	for i := range s.items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(s.item(i))
	}
	b.WriteString("]}")
	return &b
}

// judge says what is wrong with a result line, if anything: whatever happens,
// an item has one right outcome.
func (s *submission) judge(r resultLine) error {
	i := r.Index
	switch {
	case i < 0 || i >= s.items:
		return fmt.Errorf("index %d of %d items", i, s.items)
	case r.ID != s.itemID(i):
		return fmt.Errorf("item %d has the id %q, not %q", i, r.ID, s.itemID(i))
	case r.Status == "canceled":
		return nil // where that is allowed is for the audit
	case s.processor == "sum":
		return s.judgeOutput(r, fmt.Sprintf(`{"sum":%d}`, s.number(i)+i))
	case planOf(s.hash(i)) == refuse:
		if r.Status != "failed" || r.Error.Code != "upstream_status" || r.Error.UpstreamStatus != 422 {
			return fmt.Errorf("item %d should have failed with 422: %+v", i, r)
		}
		return nil
	default:
		return s.judgeOutput(r, twice(i, s.number(i)))
	}
}

func (s *submission) judgeOutput(r resultLine, want string) error {
	if r.Status != "succeeded" || string(r.Output) != want {
		return fmt.Errorf("item %d should have succeeded with %s: %s", r.Index, want, r)
	}
	return nil
}

// note remembers a result line that was shown, wherever: it may never change.
func (s *submission) note(raw []byte) (resultLine, error) {
	var r resultLine
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("result %s: %w", raw, err)
	}
	if err := s.judge(r); err != nil {
		return r, err
	}
	sum := sha256.Sum256(raw)
	digest := [8]byte(sum[:8])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = make([][8]byte, s.items)
	}
	if was := s.seen[r.Index]; was != [8]byte{} && was != digest {
		return r, fmt.Errorf("item %d had another result before; now it is %s", r.Index, raw)
	}
	s.seen[r.Index] = digest
	return r, nil
}

// advance remembers the batch as it was shown and says how it went back, if
// it did. Its caller holds watching.
func (s *submission) advance(b *batchDoc) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := b.sound(s); err != nil {
		return err
	}
	if s.last != nil {
		if err := b.after(s.last, s.again); err != nil {
			return err
		}
	}
	s.last = b
	return nil
}

func (s *submission) mayComeAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again = true
}

func (s *submission) name() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%s (%s, %d items, %s)", s.id, s.token, s.items, s.processor)
}

func (s *submission) batchID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}
