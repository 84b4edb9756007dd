package storagetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/callbatch/callbatch/batch"
)

// reporter is what the fixture needs of a test; a rapid.T is one too.
type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

// ending is how a store goes down in a restart.
type ending int

const (
	closed ending = iota
	killed
)

// hold is the terminal message's unless a case asks for another: longer than
// any case, so that what is held back stays held back.
const hold = time.Hour

// patience is how long a case waits for what must happen by itself.
const patience = 20 * time.Second

// fixture is an open store with the batches a case made in it. Its helpers
// end the test if what they ask for is refused.
type fixture struct {
	batch.Store
	t     reporter
	ctx   context.Context
	place Place
	terms batch.Terms
	down  ending
	dead  []batch.Store // killed, still to be let go
	made  *register

	patience time.Duration // for what must happen by itself
	stray    int           // attempts under way of batches that were deleted
}

// register is what the suite made, by batch: what the store is held to.
type register struct {
	mu   sync.Mutex
	list []*given
}

// given is a batch as it was handed to the store.
type given struct {
	batch.Spec
	items []batch.Item
	first []int // index of each block's first item
	again int   // how often it was retried
	gone  bool  // it was deleted
	parts []int // which block each part begins with; none: it is sent as a whole
}

// round is the one that g is in.
func (g *given) round() int { return g.again + 1 }

func newFixture(t reporter, p Place) *fixture {
	s := &fixture{t: t, ctx: context.Background(), place: p, terms: batch.Terms{Hold: hold}, made: &register{}, patience: patience}
	s.open()
	return s
}

func (s *fixture) open() {
	s.t.Helper()
	store, err := s.place.Open(s.terms)
	s.ok(err)
	s.Store = store
}

// endings are the ways in which a store of the place may go down.
func (s *fixture) endings() []ending {
	if s.place.Kill == nil {
		return []ending{closed}
	}
	return []ending{closed, killed}
}

// restart ends the store as the case's family says and opens it again.
func (s *fixture) restart() {
	s.t.Helper()
	if s.down == killed {
		s.dead = append(s.dead, s.Store)
		s.ok(s.place.Kill())
	} else {
		s.ok(s.Close())
	}
	s.Store = nil
	s.open()
}

// shut lets go of every store. What a killed one says to that is nobody's
// concern.
func (s *fixture) shut() {
	for _, d := range s.dead {
		_ = d.Close()
	}
	if s.Store == nil {
		return
	}
	if err := s.Close(); err != nil {
		s.t.Fatalf("close: %v", err)
	}
}

func (s *fixture) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%v", err)
	}
}

// refused fails unless err is a refusal with the code.
func (s *fixture) refused(err error, code batch.Code) {
	s.t.Helper()
	if batch.CodeOf(err) != code {
		s.t.Fatalf("error is %v, want a refusal %q", err, code)
	}
}

// same fails unless got is want, times by the millisecond.
func (s *fixture) same(what string, got, want any) {
	s.t.Helper()
	if d := diff(got, want); d != "" {
		s.t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func diff(got, want any) string {
	return gocmp.Diff(want, got, cmpopts.EquateEmpty(), gocmp.Comparer(func(a, b time.Time) bool {
		return a.Truncate(time.Millisecond).Equal(b.Truncate(time.Millisecond))
	}))
}

// eventually asks again and again until so says yes.
func (s *fixture) eventually(what string, so func() bool) {
	s.t.Helper()
	for end := time.Now().Add(s.patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within %v", what, s.patience)
		}
	}
}

// together calls f n times at once, each in a goroutine of its own, and
// waits for all.
func (s *fixture) together(n int, f func(i int) error) {
	s.t.Helper()
	errs := make([]error, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	all.Wait()
	s.ok(errors.Join(errs...))
}

// hook is a callback URL with parts that a store may not touch.
const hook = "https://shop.example/hooks?shop=7&k=%2F"

// work is the processor that everybody in the suite serves.
const work = "work"

// tenant returns the n-th tenant of the suite.
func tenant(n byte) batch.TenantID { return batch.TenantID{15: n} }

// now is a time as every engine can keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// sample describes a batch to make. Its zero value is one small item for the
// processor work, without a callback.
type sample struct {
	Tenant   batch.TenantID
	ID       batch.ID // default: made now
	Items    int      // default 1
	PerBlock int      // default batch.BlockItems
	PerPart  int      // items of a part; default: it is sent as a whole
	Options  batch.Options
	BaseURL  string
	Item     func(index int) batch.Item // default: {"n":index} without an id
}

// called returns a sample with the callback of the suite.
func called(items, perBlock int) sample {
	return sample{Items: items, PerBlock: perBlock, Options: batch.Options{CallbackURL: hook}}
}

// given returns what the sample describes.
func (m sample) given() *given {
	if m.Options.Processor == "" {
		m.Options.Processor = work
	}
	if m.ID == (batch.ID{}) {
		m.ID = batch.NewID(time.Now())
	}
	if m.Item == nil {
		m.Item = func(i int) (it batch.Item) {
			if m.Options.IDField != "" {
				it.ID = fmt.Sprint("id ", i)
			}
			it.Raw = fmt.Appendf(nil, `{"n":%d}`, i)
			return it
		}
	}
	if m.PerBlock == 0 {
		m.PerBlock = batch.BlockItems
	}
	g := &given{Spec: batch.Spec{
		ID: m.ID, Tenant: m.Tenant, Options: m.Options.WithDefaults(), BaseURL: m.BaseURL,
		Items: max(1, m.Items), Created: now(),
	}}
	for i := range g.Items {
		it := m.Item(i)
		g.items = append(g.items, it)
		g.Bytes += int64(len(it.Raw))
		within := i
		if m.PerPart > 0 {
			within = i % m.PerPart
		}
		if m.PerPart > 0 && within == 0 {
			g.parts = append(g.parts, len(g.first))
		}
		if within%m.PerBlock == 0 {
			g.first = append(g.first, i)
		}
	}
	g.Blocks = len(g.first)
	return g
}

// block returns a copy of the n-th block: a stage keeps what it is given.
func (g *given) block(n int) batch.Block {
	end := g.Items
	if n+1 < len(g.first) {
		end = g.first[n+1]
	}
	b := batch.Block{First: g.first[n], Items: slices.Clone(g.items[g.first[n]:end])}
	for i := range b.Items {
		b.Items[i].Raw = bytes.Clone(b.Items[i].Raw)
	}
	return b
}

// stage appends every block of g to a new stage.
func (s *fixture) stage(g *given) (batch.Stage, error) {
	st := s.Stage(s.ctx, g.Tenant, g.ID)
	for n := range g.first {
		if err := st.Append(s.ctx, g.block(n)); err != nil {
			st.Discard()
			return st, fmt.Errorf("append block %d: %w", n, err)
		}
	}
	return st, s.index(st, g, g.items)
}

// index appends the index of the items of g, or of one of its parts, if their
// ids are their own.
func (s *fixture) index(to batch.Sink, g *given, items []batch.Item) error {
	if g.Options.IDField == "" {
		return nil
	}
	entries := make([]batch.IndexEntry, len(items))
	for i, it := range items {
		entries[i] = batch.IndexEntry{Hash: batch.HashID([]byte(it.ID)), Index: i, Line: i + 1}
		if i%3 == 2 {
			entries[i].Line = -1
		}
	}
	slices.SortFunc(entries, func(a, b batch.IndexEntry) int { return cmp.Compare(a.Hash, b.Hash) })
	for chunk := range slices.Chunk(entries, 100) {
		if err := to.Index(s.ctx, chunk); err != nil {
			return fmt.Errorf("append index: %w", err)
		}
	}
	return nil
}

// accept makes g exist.
func (s *fixture) accept(g *given) (batch.Batch, error) {
	if len(g.parts) > 0 {
		return s.acceptParts(g)
	}
	st, err := s.stage(g)
	if err != nil {
		return batch.Batch{}, err
	}
	defer st.Discard()
	b, err := st.Create(s.ctx, batch.Spec{Options: g.Options, BaseURL: g.BaseURL, Created: g.Created}, batch.Once{})
	if err != nil {
		return b, fmt.Errorf("create: %w", err)
	}
	return b, nil
}

// submit makes g exist and remembers it. It may be called from any goroutine.
func (s *fixture) submit(g *given) error {
	b, err := s.accept(g)
	if err != nil {
		return err
	}
	if d := diff(b.Spec, g.Spec); d != "" {
		return fmt.Errorf("what Create returned (-want +got):\n%s", d)
	}
	s.made.add(g)
	return nil
}

func (s *fixture) create(m sample) *given {
	s.t.Helper()
	g := m.given()
	s.ok(s.submit(g))
	return g
}

func (r *register) add(g *given) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, g)
}

func (r *register) all() []*given {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.list)
}

// batch returns g as the store shows it.
func (s *fixture) batch(g *given) batch.Batch {
	s.t.Helper()
	b, err := s.Batch(s.ctx, g.Tenant, g.ID)
	s.ok(err)
	return b
}

// stands fails unless g has the status and its items are finished so.
func (s *fixture) stands(g *given, as batch.Status, done batch.Tally) {
	s.t.Helper()
	b := s.batch(g)
	s.same("status", b.Status, as)
	s.same("done", b.Done, done)
}

// ends waits for the end of g, which a cancel only begins, and fails unless it
// is as it should be.
func (s *fixture) ends(g *given, as batch.Status, done batch.Tally) {
	s.t.Helper()
	s.eventually("the batch ends", func() bool { return s.batch(g).Status.Terminal() })
	s.stands(g, as, done)
}

// cancel cancels g, which then is canceled or about to be.
func (s *fixture) cancel(g *given) batch.Batch {
	s.t.Helper()
	b, err := s.Cancel(s.ctx, g.Tenant, g.ID)
	s.ok(err)
	if b.Status != batch.Canceling && b.Status != batch.Canceled {
		s.t.Fatalf("a canceled batch is %v", b.Status)
	}
	return b
}

// retry opens the next round of g.
func (s *fixture) retry(g *given, r batch.Retry) batch.Batch {
	s.t.Helper()
	r.From = g.round()
	b, err := s.Retry(s.ctx, g.Tenant, g.ID, r, batch.Once{})
	s.ok(err)
	g.Spec = b.Spec
	g.again++
	s.same("round", []any{b.Round, b.Status, b.Done.Sum() < g.Items}, []any{g.round(), batch.Queued, true})
	return b
}

// remove deletes g.
func (s *fixture) remove(g *given, force bool) {
	s.t.Helper()
	s.ok(s.Delete(s.ctx, g.Tenant, g.ID, force))
	g.gone = true
}
