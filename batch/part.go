package batch

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits of an upload in parts.
const (
	MaxParts = 10_000
	OpenKept = 24 * time.Hour // an open batch that nobody touches is removed after this
)

// A Part is one part of a batch that is sent in parts. The order of parts is
// that of their numbers.
type Part struct {
	Number  int // from 0
	Key     uint32
	Items   int
	Blocks  int
	Size    int64             // of its items, in bytes
	Bytes   int64             // of the text of the items, decoded
	SHA256  [sha256.Size]byte // of the same text
	Content [sha256.Size]byte // digest of the items, each with its length, in whatever text they stood
	Sent    time.Time
}

// keyBits of the key of a part are its number; the others tell its uploads
// apart.
const keyBits = 14

// PartKey is what stands as Part in the [BlockKey] of an upload of a part. Of
// uploads of the same part, each has a number of its own, less than
// [MaxUploads].
func PartKey(number, upload int) uint32 { return uint32(upload)<<keyBits | uint32(number) }

// PartNumber returns the number of the part that a key belongs to.
func PartNumber(key uint32) int { return int(key & (1<<keyBits - 1)) }

// MaxUploads is how many uploads of one part can be told apart.
const MaxUploads = 1 << (32 - keyBits)

// A Start says where a part of a batch begins: its key, the index of its first
// item and how many blocks there are before it.
type Start struct {
	Key   uint32
	Item  int
	Block int
}

// A Layout says where each part of a sealed batch begins, by number. It has
// none for a batch that was sent as a whole, whose one part has the key 0.
type Layout []Start

// NewLayout returns the layout of parts, which are complete and in order.
func NewLayout(parts []Part) Layout {
	l := make(Layout, len(parts))
	items, blocks := 0, 0
	for i, p := range parts {
		l[i] = Start{Key: p.Key, Item: items, Block: blocks}
		items, blocks = items+p.Items, blocks+p.Blocks
	}
	return l
}

// MarshalText writes a layout compactly: a part takes about ten bytes.
func (l Layout) MarshalText() ([]byte, error) {
	var b []byte
	var last Start
	for _, s := range l {
		b = binary.AppendUvarint(b, uint64(s.Key>>keyBits))
		b = binary.AppendUvarint(b, uint64(s.Item-last.Item))
		b = binary.AppendUvarint(b, uint64(s.Block-last.Block))
		last = s
	}
	return base64.RawStdEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText reads what MarshalText wrote.
func (l *Layout) UnmarshalText(text []byte) error {
	b, err := base64.RawStdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("a layout is not in base 64: %w", err)
	}
	*l = nil
	var last Start
	for len(b) > 0 {
		var v [3]uint64
		for i := range v {
			n := 0
			if v[i], n = binary.Uvarint(b); n <= 0 {
				return fmt.Errorf("a layout ends in the middle of a part")
			}
			b = b[n:]
		}
		last = Start{Key: PartKey(len(*l), int(v[0])), Item: last.Item + int(v[1]), Block: last.Block + int(v[2])}
		*l = append(*l, last)
	}
	return nil
}

// At returns where the part with a key begins; ok is false if the batch has no
// such part: its blocks are not the batch's, or not any more.
func (l Layout) At(key uint32) (s Start, ok bool) {
	if len(l) == 0 {
		return Start{}, key == 0
	}
	n := PartNumber(key)
	if n >= len(l) || l[n].Key != key {
		return Start{}, false
	}
	return l[n], true
}

// BlockAt returns the key of the n-th block of the batch.
func (s Spec) BlockAt(n int) BlockKey {
	k := BlockKey{Tenant: s.Tenant, Batch: s.ID, Number: uint32(n)}
	if len(s.Parts) > 0 {
		at := s.Parts.last(n, func(p Start) int { return p.Block })
		k.Part, k.Number = at.Key, uint32(n-at.Block)
	}
	return k
}

// Ordinal returns which block of the batch a key names, from 0.
func (s Spec) Ordinal(k BlockKey) int {
	at, _ := s.Parts.At(k.Part)
	return at.Block + int(k.Number)
}

// last returns the last part that begins at n or before.
func (l Layout) last(n int, begin func(Start) int) Start {
	i, found := slices.BinarySearchFunc(l, n, func(p Start, n int) int { return cmp.Compare(begin(p), n) })
	if !found {
		i--
	}
	return l[max(i, 0)]
}

// A Room bounds what the parts of a batch may hold together.
type Room struct {
	Items int
	Bytes int64
}

// Add takes a part into an open batch.
func (b *Batch) Add(p Part, room Room) error {
	switch {
	case b.Status != Open:
		return b.notOpen()
	case b.Items+p.Items > room.Items:
		return Refuse(TooLarge, "too_many_items", "a batch has at most %d items in all its parts (limits.items)", room.Items)
	case b.Bytes+p.Size > room.Bytes:
		return Refuse(TooLarge, "body_too_large", "the parts of a batch have at most %d bytes together (limits.body_bytes)", room.Bytes)
	}
	b.Items, b.Blocks, b.Bytes, b.Touched = b.Items+p.Items, b.Blocks+p.Blocks, b.Bytes+p.Size, p.Sent
	b.Open += p.Blocks
	b.Version++
	return nil
}

// Remove takes a part out of an open batch.
func (b *Batch) Remove(p Part, now time.Time) error {
	if b.Status != Open {
		return b.notOpen()
	}
	b.Items, b.Blocks, b.Bytes, b.Touched = b.Items-p.Items, b.Blocks-p.Blocks, b.Bytes-p.Size, now
	b.Open -= p.Blocks
	b.Version++
	return nil
}

// Accepts says whether an open batch may be touched at all: [Conflict] with
// reason wrong_state if it is not open.
func (b Batch) Accepts() error {
	if b.Status != Open {
		return b.notOpen()
	}
	return nil
}

// Readable says whether items of the batch may be read: [Conflict] with reason
// wrong_state while it is open.
func (b Batch) Readable() error {
	if b.Status == Open {
		return Refuse(Conflict, "wrong_state", "the batch is open: its items are there to be read once it is sealed")
	}
	return nil
}

func (b Batch) notOpen() error {
	return Refuse(Conflict, "wrong_state", "the batch is %s: only an open batch has parts to be sent and sealed", b.Status)
}

// Again says how a part that is sent stands to the one that is there already:
// the same items in another text are the same part.
func (p Part) Again(content [sha256.Size]byte) error {
	if p.Content != content {
		return Refuse(Conflict, "part_mismatch", "part %d is there already with other content: delete it first to replace it", p.Number)
	}
	return nil
}

// CheckParts refuses parts, by number, that are no whole batch. want is how
// many there are to be, if that is known; else -1.
func CheckParts(parts []Part, want int) error {
	last := want
	for _, p := range parts {
		last = max(last, p.Number+1)
	}
	switch {
	case len(parts) == 0 && want <= 0:
		return Refuse(Invalid, "empty_batch", "a batch has at least one part")
	case want >= 0 && last > want:
		return Refuse(Conflict, "too_many_parts", "there is a part %d, and %d parts are said to be all: delete what is too much", last-1, want)
	}
	var missing []string
	next := 0
	gap := func(to int) {
		switch {
		case to == next || len(missing) > namedGaps:
		case len(missing) == namedGaps:
			missing = append(missing, "…")
		case to == next+1:
			missing = append(missing, strconv.Itoa(next))
		default:
			missing = append(missing, fmt.Sprintf("%d to %d", next, to-1))
		}
	}
	for _, p := range parts {
		gap(p.Number)
		next = p.Number + 1
	}
	gap(last)
	if len(missing) > 0 {
		return Refuse(Conflict, "missing_parts", "parts are missing: %s", strings.Join(missing, ", "))
	}
	return nil
}

// namedGaps is how many gaps a refusal names.
const namedGaps = 50

// Seal makes an open batch one that is worked on.
func (b *Batch) Seal(l Layout, now time.Time) error {
	if b.Status != Open {
		return b.notOpen()
	}
	b.Parts, b.Touched = l, time.Time{}
	b.Status = Queued
	b.Accept(b.Options, now)
	b.Version++
	return nil
}

// Abandoned reports whether an open batch has been left alone for so long that
// it is removed.
func (b Batch) Abandoned(now time.Time) bool {
	return b.Status == Open && !now.Before(b.Touched.Add(OpenKept))
}

// An IndexEntry is where an item with an id of its own stands in its part.
// Line is -1 if unknown.
type IndexEntry struct {
	Hash  uint64 // of the id: see [HashID]
	Index int
	Line  int
}

// IndexEntries is how many entries of an index travel together at most.
const IndexEntries = 4096

// HashID returns the hash of an item's id by which it is found. Ids of one
// hash are told apart by themselves.
func HashID(id []byte) uint64 {
	sum := sha256.Sum256(id)
	return binary.BigEndian.Uint64(sum[:])
}

// A Place is where an item stands in a part. Line is -1 if unknown.
type Place struct{ Part, Index, Line int }

func (p Place) compare(q Place) int {
	return cmp.Or(cmp.Compare(p.Part, q.Part), cmp.Compare(p.Index, q.Index))
}

// Repeats are the ids of a batch that come again in other parts: the first
// [MaxProblems] by place, and the count of the others.
type Repeats struct {
	Field string // where the ids are

	places []Place // of those that come again, in order
	firsts []Place
	more   int
}

// Lists reports whether a repeat at a place would be listed, not just counted.
func (r *Repeats) Lists(p Place) bool {
	return len(r.places) < MaxProblems || p.compare(r.places[len(r.places)-1]) < 0
}

// Count counts a repeat that is not to be listed.
func (r *Repeats) Count() { r.more++ }

// Add takes note of an id that comes again.
func (r *Repeats) Add(first, again Place) {
	if !r.Lists(again) {
		r.more++
		return
	}
	at, _ := slices.BinarySearchFunc(r.places, again, Place.compare)
	if len(r.places) == MaxProblems {
		r.more++
		r.places, r.firsts = r.places[:MaxProblems-1], r.firsts[:MaxProblems-1]
	}
	r.places, r.firsts = slices.Insert(r.places, at, again), slices.Insert(r.firsts, at, first)
}

// Err returns the refusal that names the repeats, nil if there are none.
func (r *Repeats) Err() error {
	if len(r.places) == 0 {
		return nil
	}
	e := &Error{Code: Invalid, Reason: "duplicate_id", More: r.more}
	for i, p := range r.places {
		e.Places = append(e.Places, Problem{
			Part: &r.places[i].Part, Index: p.Index, Line: p.Line, Pointer: r.Field, Code: e.Reason,
			Detail: "the id is that of " + r.firsts[i].text() + " already",
		})
	}
	e.Message = r.places[0].text() + ": " + e.Places[0].Detail
	if n := len(r.places) + r.more; n > 1 {
		e.Message = fmt.Sprintf("%d problems, the first: %s", n, e.Message)
	}
	return e
}

func (p Place) text() string {
	if p.Line > 0 {
		return fmt.Sprintf("part %d, line %d (index %d)", p.Part, p.Line, p.Index)
	}
	return fmt.Sprintf("part %d, index %d", p.Part, p.Index)
}
