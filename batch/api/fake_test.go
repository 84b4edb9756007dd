package api

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// fakeStore keeps batches in memory. It decides nothing about them: tests
// put them into the state they need.
type fakeStore struct {
	mu       sync.Mutex
	batches  map[batch.ID]*fakeBatch
	messages map[batch.MessageID]fakeMessage
	feed     []batch.MessageID // in the order in which they were made
	posted   chan struct{}     // closed when the next one is
	watches  batch.Watches
	secrets  map[batch.TenantID][]batch.Secret
	hosts    map[batch.TenantID][]batch.Health
	orders   []batch.Redelivery
	retries  []batch.Retry
	keys     []batch.Key
	bindings map[string]batch.Binding
	reserved map[string]bool

	pageSize   int           // results in a page at most, messages looked at for one; 0: as asked
	looks      int           // calls of Messages and Feed
	reads      int           // calls of Batch
	deaf       bool          // Posted and Watch never hint
	refusal    error         // what Redeliver, RedeliverAll and Rotate return
	createErr  error         // what Create returns
	resultsErr error         // what Results returns from the second page on
	slowness   time.Duration // of Create and Messages
	discarded  int
	staged     int
}

type fakeBatch struct {
	batch.Batch
	items   []batch.Item
	results map[int]batch.Result
	parts   []fakePart // by number
	past    []batch.Round
	deleted bool
}

type fakePart struct {
	batch.Part
	items []batch.Item
}

type fakeMessage struct {
	batch.Message
	attempts []batch.Attempt
	body     []byte
}

func newFakeStore() *fakeStore {
	return &fakeStore{
		batches: map[batch.ID]*fakeBatch{}, messages: map[batch.MessageID]fakeMessage{},
		bindings: map[string]batch.Binding{}, reserved: map[string]bool{},
		secrets: map[batch.TenantID][]batch.Secret{}, hosts: map[batch.TenantID][]batch.Health{}, posted: make(chan struct{}),
	}
}

// put keeps a batch of n items of which the first done have succeeded.
func (f *fakeStore) put(tenant batch.TenantID, n, done int) batch.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	b := &fakeBatch{results: map[int]batch.Result{}}
	b.Spec = batch.Spec{
		ID: batch.NewID(now), Tenant: tenant, Items: n, Blocks: 1, Created: now,
		Options: batch.Options{Processor: "price"}.WithDefaults(),
	}
	b.Progress = batch.Progress{Status: batch.Running, Round: 1, Open: 1, Started: now}
	for i := range n {
		b.items = append(b.items, batch.Item{Raw: []byte(`{"qty": 2}`)})
		if i < done {
			b.finish(i, batch.ItemSucceeded, `{"total":6}`)
		}
	}
	f.batches[b.ID] = b
	return b.ID
}

func (b *fakeBatch) finish(i int, s batch.ItemStatus, payload string) {
	b.results[i] = batch.Result{
		Index: i, ID: b.items[i].ID, Round: 1, Status: s, Attempts: 1, Finished: time.Now(), Payload: []byte(payload),
	}
	b.Done.Add(s, 1)
	if b.Done.Sum() == b.Items {
		b.Progress.End(batch.Completed, b.Items, time.Now())
	}
}

// change gives a test the batch to change.
func (f *fakeStore) change(id batch.ID, how func(*fakeBatch)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.batches[id]
	was := b.Status.Terminal()
	how(b)
	switch is := b.Status.Terminal(); {
	case f.deaf:
	case !is:
		f.watches.Tell(b.Tenant, id, batch.Moved)
	case was:
		f.watches.Tell(b.Tenant, id, batch.Settled)
	default:
		f.watches.Tell(b.Tenant, id, batch.Ended)
	}
}

func (f *fakeStore) Watch(tenant batch.TenantID, id *batch.ID) *batch.Watch {
	return f.watches.Watch(tenant, id)
}

// page returns how many entries a page has.
func (f *fakeStore) page(limit int) int {
	if f.pageSize > 0 {
		return min(limit, f.pageSize)
	}
	return limit
}

func (f *fakeStore) Active(_ context.Context, tenant batch.TenantID, after batch.ID, limit int) (list []batch.Batch, next *batch.ID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, b := range f.batches {
		if b.Tenant == tenant && !b.Status.Terminal() && bytes.Compare(id[:], after[:]) > 0 {
			list = append(list, b.Batch)
		}
	}
	slices.SortFunc(list, func(a, b batch.Batch) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	if limit = f.page(limit); len(list) > limit {
		list, next = list[:limit], &list[limit-1].ID
	}
	return list, next, nil
}

func (f *fakeStore) Ended(_ context.Context, tenant batch.TenantID, after batch.EndedAt, limit int) (list []batch.Batch, next *batch.EndedAt, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	order := func(at time.Time, a batch.ID, bt time.Time, b batch.ID) int {
		return cmp.Or(cmp.Compare(at.UnixMilli(), bt.UnixMilli()), bytes.Compare(a[:], b[:]))
	}
	for id, b := range f.batches {
		if b.Tenant == tenant && b.Status.Terminal() && order(b.Finished, id, after.Time, after.ID) > 0 {
			list = append(list, b.Batch)
		}
	}
	slices.SortFunc(list, func(a, b batch.Batch) int { return order(a.Finished, a.ID, b.Finished, b.ID) })
	if limit = f.page(limit); len(list) > limit {
		list = list[:limit]
		next = &batch.EndedAt{Time: list[limit-1].Finished, ID: list[limit-1].ID}
	}
	return list, next, nil
}

func (f *fakeStore) putMessage(tenant batch.TenantID, of batch.ID) batch.MessageID {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	var last batch.MessageID
	if len(f.feed) > 0 {
		last = f.feed[len(f.feed)-1]
	}
	m := fakeMessage{Message: batch.Message{
		ID: batch.NextMessageID(last, now), Tenant: tenant, Batch: of, Type: batch.TypeCompleted, Round: 1,
		Host: "shop.example:443", State: batch.MessageWaiting, Created: now, Due: now.Add(time.Minute), Made: 1,
	}}
	m.attempts = []batch.Attempt{{
		Number: 1, Started: now.In(time.FixedZone("", 3600)), Took: batch.Took{DNS: 1, Total: 9}, RemoteAddr: "203.0.113.9:443",
		RequestHeaders: map[string]string{"Webhook-Signature": "v1,***"},
		Response:       &batch.Response{Status: 503, Headers: map[string]string{}, Body: "busy"},
		Error:          &batch.AttemptError{Category: "status", Detail: "503"},
	}}
	m.body = []byte(`{"type":"batch.completed", "data":{"results":[{"output":"<\u00e9>"}]}}`)
	f.messages[m.ID] = m
	f.feed = append(f.feed, m.ID)
	if !f.deaf {
		close(f.posted)
		f.posted = make(chan struct{})
	}
	return m.ID
}

// changeMessage gives a test the message to change.
func (f *fakeStore) changeMessage(id batch.MessageID, how func(*fakeMessage)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.messages[id]
	how(&m)
	f.messages[id] = m
}

func noSuch() error { return batch.Errorf(batch.NotFound, "there is no such thing") }

// of returns a batch of the tenant. The caller holds the lock.
func (f *fakeStore) of(tenant batch.TenantID, id batch.ID) (*fakeBatch, error) {
	b, ok := f.batches[id]
	if !ok || b.Tenant != tenant {
		return nil, noSuch()
	}
	if b.deleted {
		return nil, batch.Errorf(batch.Gone, "it was deleted")
	}
	return b, nil
}

type fakeStage struct {
	store  *fakeStore
	tenant batch.TenantID
	id     batch.ID
	items  []batch.Item
	over   bool
}

func (f *fakeStore) Stage(_ context.Context, tenant batch.TenantID, id batch.ID) batch.Stage {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.staged++
	return &fakeStage{store: f, tenant: tenant, id: id}
}

func (s *fakeStage) Append(_ context.Context, b batch.Block) error {
	s.items = append(s.items, b.Items...)
	return nil
}

func (s *fakeStage) Index(context.Context, []batch.IndexEntry) error { return nil }

func (s *fakeStage) Create(ctx context.Context, spec batch.Spec, once batch.Once) (batch.Batch, error) {
	select {
	case <-time.After(s.store.slowness):
	case <-ctx.Done():
		return batch.Batch{}, ctx.Err()
	}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if s.store.createErr != nil {
		return batch.Batch{}, s.store.createErr
	}
	s.store.bind(s.tenant, once, s.id, 0)
	s.over = true
	spec.ID, spec.Tenant, spec.Items, spec.Blocks = s.id, s.tenant, len(s.items), 1
	b := &fakeBatch{items: s.items, results: map[int]batch.Result{}}
	b.Spec, b.Progress = spec, batch.Progress{Status: batch.Queued, Round: 1, Open: 1}
	s.store.batches[s.id] = b
	return b.Batch, nil
}

func (s *fakeStage) Discard() {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if !s.over {
		s.over = true
		s.store.discarded++
	}
}

// bind keeps what came of a request with a key. The caller holds the lock.
func (f *fakeStore) bind(tenant batch.TenantID, once batch.Once, id batch.ID, count int) {
	if once.Key != "" {
		f.bindings[tenant.String()+once.Key] = batch.Binding{Content: once.Content, Batch: id, Count: count, Made: time.Now()}
	}
}

func (f *fakeStore) Reserve(_ context.Context, tenant batch.TenantID, key string) (*batch.Binding, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key = tenant.String() + key
	if f.reserved[key] {
		return nil, nil, batch.InProgress()
	}
	if b, bound := f.bindings[key]; bound {
		return &b, func() {}, nil
	}
	f.reserved[key] = true
	return nil, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.reserved, key)
	}, nil
}

// putOpen keeps a batch that is open, with some parts of one item.
func (f *fakeStore) putOpen(tenant batch.TenantID, parts int) batch.ID {
	now := time.Now()
	b, _ := f.OpenBatch(context.Background(), batch.Spec{
		ID: batch.NewID(now), Tenant: tenant, Created: now, Options: batch.Options{Processor: "price"}.WithDefaults(),
	}, batch.Once{})
	for n := range parts {
		st := f.StagePart(context.Background(), tenant, b.ID, n)
		_ = st.Append(context.Background(), batch.Block{Items: []batch.Item{{Raw: []byte("1")}}})
		_, _ = st.Keep(context.Background(), batch.Part{Bytes: 1}, batch.Room{Items: 1 << 20, Bytes: 1 << 20})
	}
	return b.ID
}

func (f *fakeStore) OpenBatch(_ context.Context, spec batch.Spec, once batch.Once) (batch.Batch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bind(spec.Tenant, once, spec.ID, 0)
	b := &fakeBatch{results: map[int]batch.Result{}}
	b.Spec, b.Progress = spec, batch.Progress{Status: batch.Open, Round: 1}
	f.batches[spec.ID] = b
	return b.Batch, nil
}

type fakePartStage struct {
	fakeStage
	number int
}

func (f *fakeStore) StagePart(_ context.Context, tenant batch.TenantID, id batch.ID, number int) batch.PartStage {
	return &fakePartStage{fakeStage{store: f, tenant: tenant, id: id}, number}
}

func (s *fakePartStage) There() *batch.Part {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if b, err := s.store.of(s.tenant, s.id); err == nil {
		for _, there := range b.parts {
			if there.Number == s.number {
				return &there.Part
			}
		}
	}
	return nil
}

func (s *fakePartStage) Keep(_ context.Context, p batch.Part, room batch.Room) (batch.Part, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	b, err := s.store.of(s.tenant, s.id)
	if err != nil {
		return p, err
	}
	p.Number, p.Items, p.Blocks = s.number, len(s.items), 1
	for _, there := range b.parts {
		if there.Number == p.Number {
			return there.Part, there.Again(p.Content)
		}
	}
	if err := b.Add(p, room); err != nil {
		return p, err
	}
	b.parts = append(b.parts, fakePart{p, s.items})
	slices.SortFunc(b.parts, func(p, q fakePart) int { return p.Number - q.Number })
	return p, nil
}

func (f *fakeStore) DropPart(_ context.Context, tenant batch.TenantID, id batch.ID, number int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.of(tenant, id)
	if err != nil {
		return err
	}
	for i, p := range b.parts {
		if p.Number == number {
			b.parts = slices.Delete(b.parts, i, i+1)
			return b.Remove(p.Part, time.Now())
		}
	}
	return b.Accepts()
}

func (f *fakeStore) Parts(_ context.Context, tenant batch.TenantID, id batch.ID) ([]batch.Part, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.of(tenant, id)
	if err != nil {
		return nil, err
	}
	return b.list(), nil
}

func (b *fakeBatch) list() (parts []batch.Part) {
	for _, p := range b.parts {
		parts = append(parts, p.Part)
	}
	return parts
}

func (f *fakeStore) Seal(_ context.Context, q batch.Sealing, once batch.Once) (batch.Batch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.of(q.Tenant, q.Batch)
	if err == nil {
		err = b.Accepts()
	}
	if err == nil {
		err = batch.CheckParts(b.list(), q.Parts)
	}
	if err != nil {
		return batch.Batch{}, err
	}
	f.bind(q.Tenant, once, q.Batch, 0)
	for _, p := range b.parts {
		b.items = append(b.items, p.items...)
	}
	return b.Batch, b.Seal(batch.NewLayout(b.list()), time.Now())
}

// steer changes a batch as the domain says.
func (f *fakeStore) steer(tenant batch.TenantID, id batch.ID, change func(*fakeBatch) error) (batch.Batch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.of(tenant, id)
	if err != nil {
		return batch.Batch{}, err
	}
	err = change(b)
	return b.Batch, err
}

func (f *fakeStore) Cancel(_ context.Context, tenant batch.TenantID, id batch.ID) (batch.Batch, error) {
	return f.progress(tenant, id, (*batch.Progress).Cancel)
}

func (f *fakeStore) Pause(_ context.Context, tenant batch.TenantID, id batch.ID) (batch.Batch, error) {
	return f.progress(tenant, id, (*batch.Progress).Pause)
}

func (f *fakeStore) Resume(_ context.Context, tenant batch.TenantID, id batch.ID) (batch.Batch, error) {
	return f.progress(tenant, id, (*batch.Progress).Resume)
}

func (f *fakeStore) progress(tenant batch.TenantID, id batch.ID, step func(*batch.Progress) (bool, error)) (batch.Batch, error) {
	return f.steer(tenant, id, func(b *fakeBatch) error {
		_, err := step(&b.Progress)
		return err
	})
}

func (f *fakeStore) Amend(_ context.Context, tenant batch.TenantID, id batch.ID, a batch.Amendment) (batch.Batch, error) {
	return f.steer(tenant, id, func(b *fakeBatch) (err error) {
		b.Spec, _, err = b.Progress.Amend(b.Spec, a, time.Now())
		return err
	})
}

func (f *fakeStore) Retry(_ context.Context, tenant batch.TenantID, id batch.ID, r batch.Retry, once batch.Once) (batch.Batch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.of(tenant, id)
	if err != nil {
		return batch.Batch{}, err
	}
	var c batch.Choice
	if r.Named() {
		c.Items = r.Indexes
		for _, i := range r.Indexes {
			c.Were.Add(b.results[i].Status, 1)
		}
	}
	f.retries = append(f.retries, r)
	spec, was, err := b.Progress.Retry(b.Spec, r, c, time.Now())
	if err != nil {
		return batch.Batch{}, err
	}
	f.bind(tenant, once, id, 0)
	b.Spec, b.past = spec, append(b.past, was)
	return b.Batch, nil
}

func (f *fakeStore) Delete(_ context.Context, tenant batch.TenantID, id batch.ID, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.of(tenant, id)
	if err == nil {
		err = b.Progress.Delete(force)
	}
	if err == nil {
		b.deleted = true
	}
	return err
}

func (f *fakeStore) Batch(_ context.Context, tenant batch.TenantID, id batch.ID) (batch.Batch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	b, err := f.of(tenant, id)
	if err != nil {
		return batch.Batch{}, err
	}
	return b.Batch, nil
}

func (f *fakeStore) Batches(_ context.Context, q batch.BatchQuery) (list []batch.Batch, next *batch.ID, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, b := range f.batches {
		if b.Tenant == q.Tenant && q.Wants(b.Batch) && (q.Before == nil || id.String() < q.Before.String()) && id.String() >= q.Since.String() {
			list = append(list, b.Batch)
		}
	}
	slices.SortFunc(list, func(a, b batch.Batch) int { return slices.Compare(b.ID[:], a.ID[:]) })
	if len(list) > q.Limit {
		list = list[:q.Limit]
		next = &list[q.Limit-1].ID
	}
	return list, next, nil
}

func (f *fakeStore) Results(_ context.Context, tenant batch.TenantID, id batch.ID, q batch.ResultQuery) (batch.ResultPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.of(tenant, id)
	if err != nil {
		return batch.ResultPage{}, err
	}
	if q.From > 0 && f.resultsErr != nil {
		return batch.ResultPage{}, f.resultsErr
	}
	limit := f.page(q.Limit)
	if _, err := (batch.Rounds{Past: b.past, Now: b.Progress}).At(cmp.Or(q.Round, b.Round)); err != nil {
		return batch.ResultPage{}, err
	}
	p := batch.ResultPage{Batch: b.Batch, Next: q.From}
	for ; p.Next < b.Items && len(p.Results) < limit; p.Next++ {
		r, ok := b.results[p.Next]
		if !ok && q.Prefix {
			p.Last = true
			return p, nil
		}
		if ok && (q.Status == 0 || r.Status == q.Status) {
			p.Results = append(p.Results, r)
		}
	}
	p.Last = p.Next >= b.Items
	return p, nil
}

func (f *fakeStore) Item(_ context.Context, tenant batch.TenantID, id batch.ID, index int) (batch.ItemView, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.of(tenant, id)
	if err != nil {
		return batch.ItemView{}, err
	}
	if index >= b.Items {
		return batch.ItemView{}, noSuch()
	}
	v := batch.ItemView{Index: index, ID: b.items[index].ID, Input: b.items[index].Raw}
	if r, ok := b.results[index]; ok {
		v.Status, v.Attempts, v.Result = r.Status, r.Attempts, &r
	}
	return v, nil
}

func (f *fakeStore) FindItem(ctx context.Context, tenant batch.TenantID, id batch.ID, item string) (batch.ItemView, error) {
	f.mu.Lock()
	b, err := f.of(tenant, id)
	index := -1
	if err == nil {
		for i, it := range b.items {
			if batch.ItemText(it.ID, i) == item {
				index = i
			}
		}
	}
	f.mu.Unlock()
	switch {
	case err != nil:
		return batch.ItemView{}, err
	case index < 0:
		return batch.ItemView{}, noSuch()
	}
	return f.Item(ctx, tenant, id, index)
}

func (f *fakeStore) Messages(_ context.Context, q batch.MessageQuery) (list []batch.Message, next *batch.MessageID, err error) {
	time.Sleep(f.slowness)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	var all []batch.Message
	for id, m := range f.messages {
		if m.Tenant == q.Tenant && (q.Batch == nil || m.Batch == *q.Batch) && (q.Before == nil || id.String() < q.Before.String()) {
			all = append(all, m.Message)
		}
	}
	slices.SortFunc(all, func(a, b batch.Message) int { return slices.Compare(b.ID[:], a.ID[:]) })
	for i, m := range all {
		if (q.State == 0 || m.State == q.State) && (q.Host == "" || m.Host == q.Host) {
			list = append(list, m)
		}
		if i < len(all)-1 && (len(list) == q.Limit || i+1 == f.pageSize) {
			return list, &m.ID, nil
		}
	}
	return list, nil, nil
}

func (f *fakeStore) Feed(_ context.Context, q batch.FeedQuery) (batch.FeedPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	p := batch.FeedPage{Next: q.After}
	for _, id := range f.feed {
		if m := f.messages[id]; bytes.Compare(id[:], q.After[:]) > 0 && m.Tenant == q.Tenant && len(p.Entries) < q.Limit {
			p.Entries = append(p.Entries, batch.FeedEntry{Message: m.Message, Body: m.body})
			p.Next = id
		}
	}
	return p, nil
}

func (f *fakeStore) Posted() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.posted
}

func (f *fakeStore) Hosts(_ context.Context, tenant batch.TenantID) ([]batch.Health, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hosts[tenant], nil
}

func (f *fakeStore) Redeliver(_ context.Context, tenant batch.TenantID, id batch.MessageID, once batch.Once) (batch.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.messages[id]
	if !ok || m.Tenant != tenant {
		return batch.Message{}, noSuch()
	}
	if f.refusal != nil {
		return batch.Message{}, f.refusal
	}
	m.Redeliver(time.Now(), batch.Terms{}, true)
	f.bind(tenant, once, m.Batch, 0)
	f.messages[id] = m
	return m.Message, nil
}

func (f *fakeStore) RedeliverAll(_ context.Context, r batch.Redelivery, once batch.Once) (wanted int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusal != nil {
		return 0, f.refusal
	}
	f.orders = append(f.orders, r)
	for _, m := range f.messages {
		if m.Tenant == r.Tenant && r.Wants(m.Message) {
			wanted++
		}
	}
	f.bind(r.Tenant, once, batch.ID{}, wanted)
	return wanted, nil
}

func (f *fakeStore) Message(_ context.Context, tenant batch.TenantID, id batch.MessageID) (batch.Message, []batch.Attempt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, ok := f.messages[id]
	if !ok || m.Tenant != tenant {
		return batch.Message{}, nil, noSuch()
	}
	return m.Message, m.attempts, nil
}

func (f *fakeStore) Body(_ context.Context, m batch.Message) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.messages[m.ID].body, nil
}

func (f *fakeStore) Secrets(_ context.Context, tenant batch.TenantID, fresh batch.Secret) ([]batch.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.secrets[tenant]) == 0 {
		f.secrets[tenant] = []batch.Secret{fresh}
	}
	return f.secrets[tenant], nil
}

func (f *fakeStore) Rotate(_ context.Context, tenant batch.TenantID, fresh batch.Secret, keep time.Duration) ([]batch.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusal != nil {
		return nil, f.refusal
	}
	now := time.Now()
	live := []batch.Secret{fresh}
	for i, s := range f.secrets[tenant] {
		if i == 0 {
			s.Until = now.Add(keep)
		}
		if s.Until.After(now) {
			live = append(live, s)
		}
	}
	f.secrets[tenant] = live
	return live, nil
}

func (f *fakeStore) Keys(context.Context) ([]batch.Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.keys), nil
}

func (f *fakeStore) AddKey(_ context.Context, k batch.Key, _ bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys = append(f.keys, k)
	return nil
}
