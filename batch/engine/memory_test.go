package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
)

var _ engine.Store = (*memory)(nil)

// memory is a store that keeps its promises but for the power loss, and asks
// the domain like a real one. It runs in a bubble of synctest.
type memory struct {
	changed, messagesChanged chan struct{}
	failed                   chan struct{}

	// Set before use; called with the store locked.
	onRecord    func([]batch.Report) error
	onAttempted func([]batch.AttemptOutcome) error

	mu       sync.Mutex
	err      error
	token    uint64
	tenants  []batch.TenantID // whose turn it is stands first
	order    map[batch.TenantID][]batch.ID
	batches  map[batch.ID]*kept
	messages map[batch.MessageID]*letter
	held     []batch.Holding // of the last Renew
	groups   [][]batch.Report
	claims   int
	renewErr error
}

type kept struct {
	batch.Spec
	batch.Progress
	blocks  []*keptBlock
	results map[int]batch.Result
	over    chan struct{}
}

type keptBlock struct {
	batch.Block
	state batch.BlockState
	lease *batch.Lease
}

type letter struct {
	batch.Message
	url      string
	attempts []batch.Attempt
	log      []batch.AttemptOutcome
}

func newMemory() *memory {
	return &memory{
		changed: make(chan struct{}, 1), messagesChanged: make(chan struct{}, 1), failed: make(chan struct{}),
		order: map[batch.TenantID][]batch.ID{}, batches: map[batch.ID]*kept{}, messages: map[batch.MessageID]*letter{},
	}
}

func raise(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// submit makes a batch of n items, each its index, in blocks of at most per.
func (m *memory) submit(s batch.Spec, n, per int) batch.ID {
	now := time.Now()
	s.ID, s.Created, s.Items, s.Options = batch.NewID(now), now, n, s.Options.WithDefaults()
	k := &kept{Spec: s, results: map[int]batch.Result{}, over: make(chan struct{})}
	for first := 0; first < n; first += per {
		b := &keptBlock{Block: batch.Block{First: first}}
		for i := first; i < min(n, first+per); i++ {
			b.Items = append(b.Items, batch.Item{Raw: []byte(strconv.Itoa(i))})
		}
		b.state = batch.BlockState{}.In(1, len(b.Items))
		k.blocks = append(k.blocks, b)
	}
	k.Spec.Blocks = len(k.blocks)
	k.Progress = batch.Progress{Status: batch.Queued, Round: 1, Open: len(k.blocks)}
	m.mu.Lock()
	m.batches[s.ID] = k
	if m.order[s.Tenant] == nil {
		m.tenants = append(m.tenants, s.Tenant)
	}
	m.order[s.Tenant] = append(m.order[s.Tenant], s.ID)
	m.mu.Unlock()
	raise(m.changed)
	return s.ID
}

func (m *memory) Claim(_ context.Context, c batch.Claim) ([]batch.Work, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims++
	var works []batch.Work
	for vain := 0; vain < len(m.tenants) && len(works) < c.Blocks; vain++ {
		t := m.tenants[0]
		m.tenants = append(m.tenants[1:], t)
		for range m.order[t] {
			k := m.batches[m.order[t][0]]
			m.order[t] = append(m.order[t][1:], k.ID)
			if !k.Status.Claimable() || !slices.Contains(c.Processors, k.Options.Processor) {
				continue
			}
			if w, ok := m.lease(k, c); ok {
				works, vain = append(works, w), -1
				break
			}
		}
	}
	return works, m.err
}

func (m *memory) lease(k *kept, c batch.Claim) (batch.Work, bool) {
	now, leased := time.Now(), 0
	for _, b := range k.blocks {
		if b.lease != nil {
			leased++
		}
	}
	for n, b := range k.blocks {
		if leased >= c.PerBatch || b.lease != nil || b.state.Finished() || b.state.Due().After(now) {
			continue
		}
		m.token++
		key := batch.BlockKey{Tenant: k.Tenant, Batch: k.ID, Number: uint32(n)}
		b.lease = &batch.Lease{Block: key, Owner: c.Owner, Token: m.token}
		w := batch.Work{Lease: *b.lease, Spec: &k.Spec, Round: k.Round}
		for i, it := range b.Items {
			if st := b.state.Items[i]; !st.Status.Terminal() && !st.Due.After(now) {
				w.Items = append(w.Items, batch.WorkItem{Index: b.First + i, ID: it.ID, Raw: it.Raw, Attempts: st.Attempts})
			}
		}
		return w, true
	}
	return batch.Work{}, false
}

func (m *memory) Record(_ context.Context, reports []batch.Report, offer batch.MessageClaim) (batch.Recorded, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return batch.Recorded{}, m.err
	}
	if m.onRecord != nil {
		if err := m.onRecord(reports); err != nil {
			return batch.Recorded{}, err
		}
	}
	m.groups = append(m.groups, reports)
	var out batch.Recorded
	for i, r := range reports {
		k := m.batches[r.Lease.Block.Batch]
		b := k.blocks[r.Lease.Block.Number]
		if b.lease == nil || *b.lease != r.Lease || k.Status.Terminal() {
			out.Lost = append(out.Lost, i)
			continue
		}
		tally, err := b.state.Apply(b.First, r)
		if err != nil {
			panic(fmt.Sprintf("a report the engine may not make: %v", err))
		}
		for _, res := range r.Results {
			k.results[res.Index] = res
		}
		finished := 0
		if r.Release {
			b.lease = nil
		}
		if b.state.Finished() {
			finished, b.lease = 1, nil
		}
		k.Begin(r.Started)
		k.Absorb(tally, 0, finished)
		m.end(k, &offer, &out)
	}
	raise(m.changed)
	raise(m.messagesChanged)
	return out, nil
}

func (m *memory) end(k *kept, offer *batch.MessageClaim, out *batch.Recorded) {
	leased := 0
	for _, b := range k.blocks {
		if b.lease != nil {
			leased++
		}
	}
	as, over := k.Over(leased)
	if !over {
		return
	}
	k.End(as, k.Items, time.Now())
	out.Ended = append(out.Ended, batch.Batch{Spec: k.Spec, Progress: k.Progress})
	close(k.over)
	if k.Options.CallbackURL == "" {
		return
	}
	l := m.letter(k.Spec)
	if offer.Max > 0 {
		offer.Max--
		out.Deliveries = append(out.Deliveries, l.begin())
	}
}

func (m *memory) letter(s batch.Spec) *letter {
	now := time.Now()
	l := &letter{url: s.Options.CallbackURL, Message: batch.Message{
		ID: batch.NewMessageID(now), Tenant: s.Tenant, Batch: s.ID, Type: batch.TypeCompleted, Round: 1,
		Host: batch.CallbackHost(s.Options.CallbackURL), State: batch.MessageWaiting, Created: now, Due: now,
	}}
	m.messages[l.ID] = l
	return l
}

// post makes n messages that are due now, as if a batch had ended.
func (m *memory) post(url string, n int) (ids []batch.MessageID) {
	m.mu.Lock()
	for range n {
		ids = append(ids, m.letter(batch.Spec{ID: batch.NewID(time.Now()), Options: batch.Options{CallbackURL: url}}).ID)
	}
	m.mu.Unlock()
	raise(m.messagesChanged)
	return ids
}

func (l *letter) begin() batch.Delivery {
	l.State, l.Made = batch.MessageSending, l.Made+1
	return batch.Delivery{Message: l.Message, URL: l.url, Token: uint64(l.Made)}
}

func (m *memory) Renew(_ context.Context, _ string, held []batch.Holding) (batch.Renewed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.renewErr != nil {
		return batch.Renewed{}, m.renewErr
	}
	m.held = held
	var r batch.Renewed
	for _, h := range held {
		k := m.batches[h.Batch]
		if !k.Status.Claimable() {
			r.Stop = append(r.Stop, h.Batch)
		}
		for _, l := range h.Leases {
			if b := k.blocks[l.Block.Number]; b.lease == nil || *b.lease != l {
				r.Lost = append(r.Lost, l)
			}
		}
	}
	return r, m.err
}

func (m *memory) NextDue(context.Context, []string) (at time.Time, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.batches {
		for _, b := range k.blocks {
			if due := b.state.Due(); k.Status.Claimable() && b.lease == nil && !b.state.Finished() && (!ok || due.Before(at)) {
				at, ok = due, true
			}
		}
	}
	return at, ok, m.err
}

func (m *memory) ClaimMessages(_ context.Context, c batch.MessageClaim) (ds []batch.Delivery, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.messages {
		if len(ds) < c.Max && l.State == batch.MessageWaiting && !l.Due.After(time.Now()) {
			ds = append(ds, l.begin())
		}
	}
	return ds, m.err
}

func (m *memory) Attempted(_ context.Context, outcomes []batch.AttemptOutcome) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.onAttempted != nil {
		if err := m.onAttempted(outcomes); err != nil {
			return err
		}
	}
	for _, o := range outcomes {
		l := m.messages[o.Delivery.ID]
		if l.State != batch.MessageSending || o.Delivery.Token != uint64(l.Made) {
			continue
		}
		l.State, l.Reason, l.Due = o.State, o.Reason, o.Due
		l.log = append(l.log, o)
		if o.Refund {
			l.Made--
		} else {
			l.attempts = append(l.attempts, o.Attempt)
		}
	}
	raise(m.messagesChanged)
	return m.err
}

func (m *memory) NextMessage(context.Context) (at time.Time, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.messages {
		if l.State == batch.MessageWaiting && (!ok || l.Due.Before(at)) {
			at, ok = l.Due, true
		}
	}
	return at, ok, m.err
}

func (m *memory) Body(context.Context, batch.Message) ([]byte, error) { return []byte(`{}`), nil }

func (m *memory) Secrets(_ context.Context, _ batch.TenantID, fresh batch.Secret) ([]batch.Secret, error) {
	return []batch.Secret{fresh}, nil
}

func (m *memory) Changed() <-chan struct{}         { return m.changed }
func (m *memory) MessagesChanged() <-chan struct{} { return m.messagesChanged }
func (m *memory) Failed() <-chan struct{}          { return m.failed }
func (m *memory) Err() error                       { m.mu.Lock(); defer m.mu.Unlock(); return m.err }

// cancel begins the end of a batch.
func (m *memory) cancel(id batch.ID) {
	m.with(id, func(k *kept) {
		k.Cancel()
		m.end(k, &batch.MessageClaim{}, &batch.Recorded{})
	})
}

// fail makes the store one that does not know its state any more.
func (m *memory) fail(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
	close(m.failed)
}

// with looks at a batch, or changes it.
func (m *memory) with(id batch.ID, do func(*kept)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	do(m.batches[id])
}

// await returns the batch once its round is over.
func (m *memory) await(t *testing.T, id batch.ID) kept {
	t.Helper()
	var over chan struct{}
	m.with(id, func(k *kept) { over = k.over })
	select {
	case <-over:
	case <-time.After(24 * time.Hour):
		t.Fatal("the batch did not end within a day")
	}
	var got kept
	m.with(id, func(k *kept) { got = *k })
	return got
}

// message returns a message as it is now.
func (m *memory) message(id batch.MessageID) letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *m.messages[id]
}
