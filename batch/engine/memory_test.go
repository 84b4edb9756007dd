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
	onClaim     func(batch.MessageClaim)
	terms       batch.Terms
	crashed     bool
	silent      bool // it gives no hint that messages have changed, but for new ones

	// Called with the store not locked.
	onBody    func(batch.Message) ([]byte, error)
	onSecrets func() // once they are read

	mu       sync.Mutex
	err      error
	token    uint64
	tenants  []batch.TenantID // whose turn it is stands first
	order    map[batch.TenantID][]batch.ID
	batches  map[batch.ID]*kept
	messages map[batch.MessageID]*letter
	hosts    map[receiving]*standing
	secrets  []batch.Secret  // those of every tenant; empty: what the engine brings
	asked    int             // how often for them
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
	headers  map[string]string
	token    uint64 // of the attempt in flight
	attempts []batch.Attempt
	log      []batch.AttemptOutcome
}

// receiving is a host as one tenant knows it, or as all do.
type receiving struct {
	tenant batch.TenantID
	shared bool
	host   string
}

// standing is how a host stands, and what is under way to it.
type standing struct {
	batch.Health
	sending int
}

func newMemory() *memory {
	return &memory{
		changed: make(chan struct{}, 1), messagesChanged: make(chan struct{}, 1), failed: make(chan struct{}),
		order: map[batch.TenantID][]batch.ID{}, batches: map[batch.ID]*kept{}, messages: map[batch.MessageID]*letter{},
		hosts: map[receiving]*standing{},
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
	k.Progress.Accept(s.Options, now)
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
		spec := k.Spec
		w := batch.Work{Lease: *b.lease, Spec: &spec, Round: k.Round, Expires: k.Expires, Failed: k.Failed()}
		for i, it := range b.Items {
			if st := b.state.Items[i]; !st.Status.Terminal() && !st.Due.After(now) {
				w.Items = append(w.Items, batch.WorkItem{Index: b.First + i, ID: it.ID, Raw: it.Raw, Attempts: st.Attempts, Deaths: st.Deaths})
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
		k.Strain(k.Spec)
		m.end(k, &offer, &out)
	}
	raise(m.changed)
	m.hint()
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
	if l := m.letter(k.Spec); m.may(l, offer, time.Now()) {
		out.Deliveries = append(out.Deliveries, m.begin(l))
	}
}

func (m *memory) letter(s batch.Spec) *letter {
	now := time.Now()
	l := &letter{url: s.Options.CallbackURL, headers: s.Options.CallbackHeaders, Message: batch.Message{
		ID: batch.NewMessageID(now), Tenant: s.Tenant, Batch: s.ID, Type: batch.TypeCompleted, Round: 1,
		Host: batch.CallbackHost(s.Options.CallbackURL), State: batch.MessageWaiting, Created: now, Due: now,
		Until: now.Add(m.terms.WithDefaults().Window),
	}}
	m.messages[l.ID] = l
	return l
}

// post makes n messages that are due now, as if a batch had ended.
func (m *memory) post(url string, n int, change ...func(*letter)) (ids []batch.MessageID) {
	m.mu.Lock()
	for range n {
		l := m.letter(batch.Spec{ID: batch.NewID(time.Now()), Options: batch.Options{CallbackURL: url}})
		for _, c := range change {
			c(l)
		}
		ids = append(ids, l.ID)
	}
	m.mu.Unlock()
	raise(m.messagesChanged)
	return ids
}

// retried makes a message one that was tried before.
func retried(l *letter) { l.Made = 1 }

func (m *memory) hint() {
	if !m.silent {
		raise(m.messagesChanged)
	}
}

// views returns how the host of a message stands, for its tenant and for all.
func (m *memory) views(l *letter) (own, all *standing) {
	at := func(r receiving) *standing {
		if m.hosts[r] == nil {
			m.hosts[r] = new(standing)
		}
		return m.hosts[r]
	}
	return at(receiving{tenant: l.Tenant, host: l.Host}), at(receiving{shared: true, host: l.Host})
}

// prove has a host known to answer.
func (m *memory) prove(url string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	own, _ := m.views(&letter{Message: batch.Message{Host: batch.CallbackHost(url)}})
	own.Room = 1000
}

// may reports whether a message may be sent, and takes it off what is asked.
func (m *memory) may(l *letter, c *batch.MessageClaim, now time.Time) bool {
	own, all := m.views(l)
	down := own.Allows(own.sending, now) == 0 || all.Recovering() && all.Allows(all.sending, now) == 0
	retry, trial := l.Made > 0, !own.Proven()
	if c.Max == 0 || own.sending >= max(1, c.PerHost) || !l.Manual && down || retry && c.Retries == 0 || trial && c.Trials == 0 {
		return false
	}
	c.Max--
	if retry {
		c.Retries--
	}
	if trial {
		c.Trials--
	}
	return true
}

func (m *memory) begin(l *letter) batch.Delivery {
	own, all := m.views(l)
	own.sending++
	all.sending++
	l.Begin(time.Now())
	m.token++
	l.token = m.token
	return batch.Delivery{Message: l.Message, URL: l.url, Headers: l.headers, Token: l.token, Trial: !own.Proven()}
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
		if spec := k.Spec; spec.Edition != h.Edition {
			r.Amended = append(r.Amended, batch.Amended{Spec: &spec, Expires: k.Expires})
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
	if m.onClaim != nil {
		m.onClaim(c)
	}
	now := time.Now()
	for _, l := range m.messages {
		switch {
		case l.State != batch.MessageWaiting:
		case l.Lapsed(now):
			l.End(batch.MessageExhausted, batch.ReasonWindow, now)
		case !l.Due.After(now) && m.may(l, &c, now):
			ds = append(ds, m.begin(l))
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
	now := time.Now()
	for _, o := range outcomes {
		l := m.messages[o.Delivery.ID]
		if l.State != batch.MessageSending || o.Delivery.Token != l.token {
			continue
		}
		own, all := m.views(l)
		own.sending--
		all.sending--
		if !o.Delivery.Manual {
			own.Health = own.After(o.Host, o.Delivery.Started, now)
			if o.Host != batch.HostDown {
				all.Health = all.After(o.Host, o.Delivery.Started, now)
			}
		}
		l.log = append(l.log, o)
		if !o.Refund {
			l.attempts = append(l.attempts, o.Attempt)
		}
		l.Close(o, now, m.terms)
	}
	m.hint()
	return m.err
}

// redeliver has its owner ask for a message once more.
func (m *memory) redeliver(id batch.MessageID) {
	m.mu.Lock()
	m.messages[id].Redeliver(time.Now(), m.terms, true)
	m.mu.Unlock()
	raise(m.messagesChanged)
}

func (m *memory) NextMessage(context.Context) (at time.Time, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.messages {
		if l.State != batch.MessageWaiting {
			continue
		}
		own, all := m.views(l)
		due := slices.MaxFunc([]time.Time{l.Due, own.Until, all.Until}, time.Time.Compare)
		if l.Manual {
			due = l.Due
		}
		if l.Until.Before(due) {
			due = l.Until
		}
		if !ok || due.Before(at) {
			at, ok = due, true
		}
	}
	return at, ok, m.err
}

func (m *memory) Body(_ context.Context, msg batch.Message) ([]byte, error) {
	if m.onBody != nil {
		return m.onBody(msg)
	}
	return []byte(`{}`), nil
}

func (m *memory) Secrets(_ context.Context, _ batch.TenantID, fresh batch.Secret) ([]batch.Secret, error) {
	m.mu.Lock()
	m.asked++
	if len(m.secrets) == 0 {
		m.secrets = []batch.Secret{fresh}
	}
	read := slices.Clone(m.secrets)
	m.mu.Unlock()
	if m.onSecrets != nil {
		m.onSecrets()
	}
	return read, nil
}

func (m *memory) Changed() <-chan struct{}         { return m.changed }
func (m *memory) MessagesChanged() <-chan struct{} { return m.messagesChanged }
func (m *memory) Crashed() bool                    { return m.crashed }

func (m *memory) Failed() <-chan struct{} { return m.failed }
func (m *memory) Err() error              { m.mu.Lock(); defer m.mu.Unlock(); return m.err }

// cancel begins the end of a batch.
func (m *memory) cancel(id batch.ID) {
	m.with(id, func(k *kept) {
		k.Cancel()
		m.end(k, &batch.MessageClaim{}, &batch.Recorded{})
	})
}

// amend changes a batch as its owner wants.
func (m *memory) amend(id batch.ID, a batch.Amendment) {
	m.with(id, func(k *kept) {
		k.Spec, _, _ = k.Progress.Amend(k.Spec, a, time.Now())
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
