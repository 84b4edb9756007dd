package intake

import (
	"bufio"
	"cmp"
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
)

// An idSet finds ids that come twice among any number, in bounded memory:
// sorted runs of hashes, spilled to a file and merged at the end.
//
// Ids are told apart by 128 bits of SHA-256. Two different ids taken for one
// would need a collision: among ten million ids that is a chance below 10^-24,
// to find one on purpose takes 2^64 attempts, and its worst effect is a batch
// refused.
type idSet struct {
	dir   string
	share *share
	held  int       // for run and merging
	run   []idEntry // being filled
	file  *os.File  // full runs, sorted, one behind the other; nil: none yet
	runs  int       // in file
}

// An idEntry is the hash of an id, the first half of which is that of
// [batch.HashID], and where it stands. line is -1 if unknown.
type idEntry struct {
	hash        [2]uint64
	index, line int64
}

const (
	entryBytes = 32
	runEntries = 4 << 20 / entryBytes
	runBytes   = runEntries * entryBytes
	runBuffer  = 16 << 10 // of each run while merging
)

func newIDSet(dir string, sh *share) *idSet {
	return &idSet{dir: dir, share: sh}
}

func (s *idSet) add(id []byte, index, line int) error {
	if len(s.run) == runEntries {
		if err := s.spill(); err != nil {
			return err
		}
	}
	if n := len(s.run); n == cap(s.run) {
		size := min(max(64, 2*n), runEntries)
		if err := s.share.grow(&s.held, size*entryBytes); err != nil {
			return err
		}
		s.run = append(make([]idEntry, 0, size), s.run...)
	}
	sum := sha256.Sum256(id)
	s.run = append(s.run, idEntry{
		hash:  [2]uint64{binary.BigEndian.Uint64(sum[:]), binary.BigEndian.Uint64(sum[8:])},
		index: int64(index), line: int64(line),
	})
	return nil
}

// spill moves the run, which is full, to the file.
func (s *idSet) spill() error {
	if s.file == nil {
		f, err := unlinkedFile(s.dir)
		if err != nil {
			return err
		}
		s.file = f
	}
	slices.SortFunc(s.run, idEntry.compare)
	w := bufio.NewWriterSize(s.file, readBuffer)
	var b [entryBytes]byte
	for _, e := range s.run {
		if _, err := w.Write(e.append(b[:0])); err != nil {
			return spillError(err)
		}
	}
	if err := w.Flush(); err != nil {
		return spillError(err)
	}
	s.run = s.run[:0]
	s.runs++
	return nil
}

// each calls f with every entry, by hash, until it fails, and before that
// report with those whose id came before and the first of that id. It is called
// once, after the last add.
func (s *idSet) each(report func(first, again idEntry), f func(idEntry) error) error {
	if err := s.share.grow(&s.held, cap(s.run)*entryBytes+s.runs*runBuffer); err != nil {
		return err
	}
	slices.SortFunc(s.run, idEntry.compare)
	m := merge{{memory: s.run}}
	for i := range s.runs {
		r := io.NewSectionReader(s.file, int64(i)*runBytes, runBytes)
		m = append(m, &sortedRun{file: bufio.NewReaderSize(r, runBuffer)})
	}
	if err := m.start(); err != nil {
		return err
	}
	var first idEntry
	for i := 0; len(m) > 0; i++ {
		e := m[0].head
		if i > 0 && e.hash == first.hash {
			report(first, e)
		} else {
			first = e
		}
		if err := f(e); err != nil {
			return err
		}
		if err := m.advance(); err != nil {
			return err
		}
	}
	return nil
}

func (s *idSet) close() {
	if s.file != nil {
		_ = s.file.Close() // a temporary file without a name
	}
}

func (e idEntry) compare(f idEntry) int {
	if c := cmp.Compare(e.hash[0], f.hash[0]); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(e.hash[1], f.hash[1]), cmp.Compare(e.index, f.index))
}

func (e idEntry) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.hash[0])
	b = binary.LittleEndian.AppendUint64(b, e.hash[1])
	b = binary.LittleEndian.AppendUint64(b, uint64(e.index))
	return binary.LittleEndian.AppendUint64(b, uint64(e.line))
}

// A sortedRun walks a run in memory or in a file.
type sortedRun struct {
	head   idEntry
	memory []idEntry
	file   *bufio.Reader // nil: in memory
}

// next moves head to the next entry. It returns io.EOF behind the last.
func (r *sortedRun) next() error {
	if r.file == nil {
		if len(r.memory) == 0 {
			return io.EOF
		}
		r.head, r.memory = r.memory[0], r.memory[1:]
		return nil
	}
	b, err := r.file.Peek(entryBytes)
	if err == io.EOF && len(b) == 0 {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("read spilled ids: %w", err)
	}
	r.head = idEntry{
		hash:  [2]uint64{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])},
		index: int64(binary.LittleEndian.Uint64(b[16:])), line: int64(binary.LittleEndian.Uint64(b[24:])),
	}
	_, err = r.file.Discard(entryBytes)
	return err
}

// A merge is a heap of runs, that with the least head first.
type merge []*sortedRun

// start moves every run to its first entry.
func (m *merge) start() error {
	live := (*m)[:0]
	for _, r := range *m {
		switch err := r.next(); err {
		case nil:
			live = append(live, r)
		case io.EOF:
		default:
			return err
		}
	}
	*m = live
	heap.Init(m)
	return nil
}

// advance moves the first run on.
func (m *merge) advance() error {
	switch err := (*m)[0].next(); err {
	case nil:
		heap.Fix(m, 0)
	case io.EOF:
		heap.Pop(m)
	default:
		return err
	}
	return nil
}

func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return m[i].head.compare(m[j].head) < 0 }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)        { *m = append(*m, x.(*sortedRun)) }

func (m *merge) Pop() any {
	last := len(*m) - 1
	r := (*m)[last]
	*m = (*m)[:last]
	return r
}
