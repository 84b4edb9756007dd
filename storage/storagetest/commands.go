package storagetest

import (
	"bytes"
	"slices"
	"strconv"
	"time"

	"pgregory.net/rapid"

	"github.com/callbatch/callbatch/batch"
)

// The commands of the model: each draws what to ask, asks the store, and
// moves the model as the seam says.

func (m *model) create(rt *rapid.T) {
	b := &modelBatch{given: m.sample(rt).given(), status: batch.Queued, messages: map[batch.MessageID]*modelMessage{}}
	b.items = make([]modelItem, b.Items)
	m.ok(m.submit(b.given))
	m.batches = append(m.batches, b)
}

func (m *model) openOne(rt *rapid.T) {
	if len(m.open) == 3 {
		rt.Skip("enough are open")
	}
	g := m.sample(rt)
	g.PerPart = rapid.IntRange(1, 4).Draw(rt, "per part")
	o := &modelOpen{given: g.given(), there: map[int]bool{}}
	_, err := m.openBatch(o.given)
	m.ok(err)
	m.open = append(m.open, o)
}

// pickPart draws a part of an open batch, whether it is there or not.
func (m *model) pickPart(rt *rapid.T) (o *modelOpen, part int) {
	if len(m.open) == 0 {
		rt.Skip("none is open")
	}
	o = m.open[rapid.IntRange(0, len(m.open)-1).Draw(rt, "open batch")]
	return o, rapid.IntRange(0, len(o.parts)-1).Draw(rt, "part")
}

func (m *model) putOne(rt *rapid.T) {
	o, n := m.pickPart(rt)
	st, p, err := m.stagePart(o.given, n)
	m.ok(err)
	defer st.Discard()
	other := rapid.IntRange(0, 3).Draw(rt, "other content") == 0
	if other {
		p.Content[7]++
	}
	switch _, err = st.Keep(m.ctx, p, plenty); {
	case other && o.there[n]:
		m.refused(err, batch.Conflict)
	case other: // then it is taken out again
		m.ok(err)
		m.ok(m.DropPart(m.ctx, o.Tenant, o.ID, n))
	default:
		m.ok(err)
		o.there[n] = true
	}
}

// halfPart begins an upload that is never kept, and perhaps never discarded.
func (m *model) halfPart(rt *rapid.T) {
	o, n := m.pickPart(rt)
	st, _, err := m.stagePart(o.given, n)
	m.ok(err)
	if rapid.Bool().Draw(rt, "discard") {
		st.Discard()
	}
}

func (m *model) dropOne(rt *rapid.T) {
	o, n := m.pickPart(rt)
	m.ok(m.DropPart(m.ctx, o.Tenant, o.ID, n))
	delete(o.there, n)
}

func (m *model) sealOne(rt *rapid.T) {
	o, _ := m.pickPart(rt)
	b, err := m.seal(o.given)
	if len(o.there) < len(o.parts) {
		m.refused(err, batch.Conflict)
		return
	}
	m.ok(err)
	m.same("spec", b.Spec, o.Spec)
	m.made.add(o.given)
	m.open = slices.DeleteFunc(m.open, func(other *modelOpen) bool { return other == o })
	m.batches = append(m.batches, &modelBatch{
		given: o.given, status: batch.Queued, items: make([]modelItem, o.Items), messages: map[batch.MessageID]*modelMessage{},
	})
}

func (m *model) sample(rt *rapid.T) sample {
	g := sample{
		Tenant:   tenant(byte(rapid.IntRange(0, 1).Draw(rt, "tenant"))),
		Items:    rapid.IntRange(1, 9).Draw(rt, "items"),
		PerBlock: rapid.IntRange(1, 4).Draw(rt, "per block"),
		PerPart:  rapid.SampledFrom([]int{0, 0, 1, 2, 5}).Draw(rt, "per part"),
		Item:     strange,
		Options: batch.Options{
			Processor:         rapid.SampledFrom([]string{work, "play"}).Draw(rt, "processor"),
			CallbackURL:       rapid.SampledFrom([]string{hook, hook, "http://b.example/", ""}).Draw(rt, "callback"),
			CallbackMode:      rapid.SampledFrom([]batch.Mode{batch.ModeResults, batch.ModeResults, batch.ModeSummary, batch.ModePull}).Draw(rt, "mode"),
			CallbackEvents:    rapid.SampledFrom([][]string{nil, {batch.TypeProgress}}).Draw(rt, "events"),
			IDField:           rapid.SampledFrom([]string{"", "/id"}).Draw(rt, "id field"),
			CallbackPageItems: rapid.IntRange(1, 4).Draw(rt, "page"),
			MaxFailures:       rapid.SampledFrom([]batch.Tolerance{"", "", "0", "1", "30%"}).Draw(rt, "max failures"),
		},
	}
	if g.Options.IDField != "" {
		g.Item = nil // each has an id
	}
	return g
}

func (m *model) discard(rt *rapid.T) {
	g := m.sample(rt).given()
	g.parts = nil
	st, err := m.stage(g)
	m.ok(err)
	st.Discard()
	_, err = m.Batch(m.ctx, g.Tenant, g.ID)
	m.refused(err, batch.NotFound)
}

func (m *model) claim(rt *rapid.T) {
	c := batch.Claim{
		Owner:      node,
		Processors: rapid.SampledFrom([][]string{{work}, {"play", work}, {"play"}}).Draw(rt, "processors"),
		Blocks:     rapid.IntRange(1, 5).Draw(rt, "blocks"),
		PerBatch:   rapid.IntRange(1, 3).Draw(rt, "per batch"),
	}
	due := false
	for _, b := range m.batches {
		for n := range b.first {
			due = due || m.claimable(c, b, n) == ""
		}
	}
	var ws []batch.Work
	m.eventually("a block that is due is claimed", func() bool { // of a later round it is laid out little by little
		ws = m.claimAs(c)
		return len(ws) > 0 || !due
	})
	for _, w := range ws {
		b := m.find(w.Lease.Block.Batch)
		n := b.Ordinal(w.Lease.Block)
		if why := m.claimable(c, b, n); why != "" {
			m.t.Fatalf("block %d was claimed although %s", n, why)
		}
		m.same("claimed items", indexes(w), b.due(n))
		for _, it := range w.Items {
			m.same("attempts and deaths", []int{it.Attempts, it.Deaths}, []int{b.items[it.Index].attempts, b.items[it.Index].deaths})
		}
		m.same("failed by then", w.Failed, b.done().Failed-b.kept)
		m.held = append(m.held, w)
		b.claimed = true
	}
}

func (m *model) record(rt *rapid.T) {
	var reports []batch.Report
	var lost []int
	var over []batch.ID
	for n := range rapid.IntRange(1, 4).Draw(rt, "reports") {
		w, held := pick(rt, m.held, m.dropped)
		r, sound := m.report(rt, w)
		reports = append(reports, r)
		if !held || !sound {
			lost = append(lost, n)
			continue
		}
		b := m.find(w.Lease.Block.Batch)
		if m.apply(b, w, r); b.status == batch.Completed {
			over = append(over, b.ID)
		}
	}
	c := ask(rapid.IntRange(0, 3).Draw(rt, "offer"), rapid.IntRange(1, 2).Draw(rt, "per host"))
	c.Trials = rapid.IntRange(0, 3).Draw(rt, "trials")
	rec, err := m.Record(m.ctx, reports, c)
	m.ok(err)
	slices.Sort(rec.Lost)
	m.same("lost reports", rec.Lost, lost)
	var ended []batch.ID
	for _, b := range rec.Ended {
		if b.Status == batch.Completed { // a canceled batch may end a step later
			ended = append(ended, b.ID)
		}
	}
	m.same("ended", inOrder(ended), inOrder(over))
	m.learn()
	m.begin(c, rec.Deliveries)
}

// report draws what became of w. It is not sound if it is about an item that
// has its result.
func (m *model) report(rt *rapid.T, w batch.Work) (r batch.Report, sound bool) {
	b := m.find(w.Lease.Block.Batch)
	r = batch.Report{Lease: w.Lease, Started: now(), Release: rapid.Bool().Draw(rt, "release")}
	for _, it := range w.Items {
		if b.items[it.Index].result != nil {
			continue
		}
		made := b.items[it.Index].attempts + 1
		switch rapid.SampledFrom([]string{"result", "result", "result", "again", "later", "death", ""}).Draw(rt, "outcome") {
		case "result":
			res := outcome(it.Index, it.ID)
			res.Attempts = made
			r.Results = append(r.Results, res)
		case "again":
			r.Again = append(r.Again, batch.Again{Index: it.Index, Attempts: made, Deaths: b.items[it.Index].deaths, Due: now()})
		case "later":
			r.Again = append(r.Again, batch.Again{Index: it.Index, Attempts: made, Due: now().Add(time.Hour)})
		case "death":
			r.Again = append(r.Again, batch.Again{Index: it.Index, Attempts: made, Deaths: min(b.items[it.Index].deaths+1, 15), Due: now()})
		}
	}
	number := b.Ordinal(w.Lease.Block)
	items, recorded := b.span(number)
	if recorded+len(r.Results) == len(items) {
		r.Release = true
	}
	if rapid.IntRange(0, 7).Draw(rt, "unsound") > 0 {
		return r, true
	}
	for i, it := range items {
		if it.result != nil {
			r.Results = append(r.Results, outcome(b.first[number]+i, "twice"))
			return r, false
		}
	}
	return r, true
}

// apply moves the model by a report.
func (m *model) apply(b *modelBatch, w batch.Work, r batch.Report) {
	if b.begun = true; b.status == batch.Queued {
		b.status = batch.Running
	}
	for _, res := range r.Results {
		res.Round = b.round()
		b.items[res.Index] = modelItem{result: &res, attempts: res.Attempts}
	}
	for _, a := range r.Again {
		b.items[a.Index] = modelItem{attempts: a.Attempts, deaths: a.Deaths, later: a.Due.After(time.Now())}
	}
	b.strain()
	if r.Release {
		m.held = slices.DeleteFunc(m.held, func(o batch.Work) bool { return o.Lease == w.Lease })
		m.dropped = append(m.dropped, w)
	}
	m.settle(b)
}

// strain stops a batch of which more items have failed than may.
func (b *modelBatch) strain() {
	if !b.status.Terminal() && !b.ending() && b.done().Failed-b.kept > b.Options.MaxFailures.Allows(b.Items) {
		b.status, b.reason = batch.Canceling, batch.CodeTooManyFailures
	}
}

// any draws a batch.
func (m *model) any(rt *rapid.T) *modelBatch {
	if len(m.batches) == 0 {
		rt.Skip("no batch")
	}
	return m.batches[rapid.IntRange(0, len(m.batches)-1).Draw(rt, "batch")]
}

func (m *model) cancel(rt *rapid.T) {
	b := m.any(rt)
	got, err := m.Cancel(m.ctx, b.Tenant, b.ID)
	if b.lapsed || b.status == batch.Completed {
		m.refused(err, batch.Conflict)
		return
	}
	m.ok(err)
	if b.status != batch.Canceled {
		b.status = batch.Canceling
		m.settle(b)
	}
	if got.Status != batch.Canceling && got.Status != b.status {
		m.t.Fatalf("the batch is %v, want %v", got.Status, b.status)
	}
}

func (m *model) pause(rt *rapid.T) {
	b := m.any(rt)
	got, err := m.Pause(m.ctx, b.Tenant, b.ID)
	if b.ending() || b.status.Terminal() {
		m.refused(err, batch.Conflict)
		return
	}
	m.ok(err)
	b.status = batch.Paused
	m.same("status", got.Status, batch.Paused)
}

func (m *model) resume(rt *rapid.T) {
	b := m.any(rt)
	_, err := m.Resume(m.ctx, b.Tenant, b.ID)
	if b.ending() || b.status.Terminal() {
		m.refused(err, batch.Conflict)
		return
	}
	m.ok(err)
	if b.status == batch.Paused {
		b.status = batch.Queued
		if b.begun {
			b.status = batch.Running
		}
	}
}

// amend changes where the messages go and how much may fail.
func (m *model) amend(rt *rapid.T) {
	b := m.any(rt)
	var a batch.Amendment
	if rapid.Bool().Draw(rt, "url") {
		url := rapid.SampledFrom([]string{hook, "http://b.example/"}).Draw(rt, "callback")
		a.CallbackURL = &url
	}
	if rapid.Bool().Draw(rt, "failures") {
		may := rapid.SampledFrom([]batch.Tolerance{"", "0", "1"}).Draw(rt, "max failures")
		a.MaxFailures = &may
	}
	late := a.MaxFailures != nil && (b.ending() || b.status.Terminal())
	untold := b.done().Sum() > 0 || len(b.past) > 0 || b.status.Terminal() // without a callback
	if late || a.CallbackURL != nil && !b.Options.Messages() && untold {
		_, err := m.Amend(m.ctx, b.Tenant, b.ID, a)
		m.refused(err, batch.Conflict)
		return
	}
	m.fixture.amend(b.given, a)
	b.strain()
	m.settle(b)
	m.learn()
	b.move(m)
}

// move waits until what waits does so for the host it goes to.
func (b *modelBatch) move(m *model) {
	if b.Options.CallbackURL == "" {
		return
	}
	host := batch.CallbackHost(b.Options.CallbackURL)
	m.eventually("messages move", func() bool {
		return !slices.ContainsFunc(m.messagesOf(b.given), func(msg batch.Message) bool {
			return (msg.State == batch.MessageWaiting || msg.State == batch.MessageParked) && msg.Host != host
		})
	})
	for _, msg := range b.messages {
		if msg.state == batch.MessageWaiting {
			msg.host = host
		}
	}
}

// expire has the deadline of a batch pass.
func (m *model) expire(rt *rapid.T) {
	b := m.any(rt)
	if b.ending() || b.status.Terminal() {
		_, err := m.Amend(m.ctx, b.Tenant, b.ID, deadline(time.Millisecond))
		m.refused(err, batch.Conflict)
		return
	}
	m.fixture.expire(b.given)
	b.lapsed = true
	m.settle(b)
}

func (m *model) retry(rt *rapid.T) {
	b := m.any(rt)
	r := batch.Retry{From: b.round() - rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(rt, "rounds ago")}
	m.learn()
	wrong := r.From != b.round() || !b.status.Terminal() || b.done().Succeeded == b.Items
	named := map[int]bool{}
	for range rapid.SampledFrom([]int{0, 0, 1, 2, 3}).Draw(rt, "named") {
		i := rapid.IntRange(0, b.Items-1).Draw(rt, "item")
		switch named[i] = true; {
		case !rapid.Bool().Draw(rt, "by id"):
			r.Indexes = append(r.Indexes, i)
		case b.Options.IDField == "":
			r.IDs = append(r.IDs, strconv.Itoa(i))
		default:
			r.IDs = append(r.IDs, b.given.items[i].ID)
		}
	}
	succeeded := false
	for i := range named {
		succeeded = succeeded || b.items[i].result != nil && b.items[i].result.Status == batch.ItemSucceeded
	}
	never := time.Duration(0)
	r.ExpiresIn = &never // the deadline it had may have been a millisecond
	got, err := m.Retry(m.ctx, b.Tenant, b.ID, r, batch.Once{})
	switch {
	case wrong:
		m.refused(err, batch.Conflict)
		return
	case succeeded:
		m.refused(err, batch.Invalid)
		return
	}
	m.ok(err)
	b.past = append(b.past, m.results(b.given, batch.ResultQuery{Round: b.round()}))
	for i, was := range b.past[len(b.past)-1] {
		if b.items[i] = (modelItem{result: &was, attempts: was.Attempts}); was.Status != batch.ItemSucceeded && (len(named) == 0 || named[i]) {
			b.items[i] = modelItem{}
		}
	}
	b.Spec = got.Spec
	b.again++
	b.status, b.claimed, b.begun, b.lapsed, b.reason = batch.Queued, false, false, false, ""
	b.kept = b.done().Failed
}

func (m *model) remove(rt *rapid.T) {
	b := m.any(rt)
	force := rapid.Bool().Draw(rt, "force")
	m.learn()
	owed := false
	for _, msg := range b.messages {
		owed = owed || !msg.state.Settled() && !msg.progress()
	}
	err := m.Delete(m.ctx, b.Tenant, b.ID, force)
	if !b.status.Terminal() || owed && !force {
		m.refused(err, batch.Conflict)
		return
	}
	m.ok(err)
	b.gone = true
	m.batches = slices.DeleteFunc(m.batches, func(o *modelBatch) bool { return o == b })
	m.removed = append(m.removed, b)
	_, err = m.Batch(m.ctx, b.Tenant, b.ID)
	m.refused(err, batch.Gone)
}

func (m *model) take(rt *rapid.T) {
	c := ask(rapid.IntRange(0, 4).Draw(rt, "max"), rapid.IntRange(1, 3).Draw(rt, "per host"))
	c.Retries, c.Trials = rapid.IntRange(0, 4).Draw(rt, "retries"), rapid.IntRange(0, 4).Draw(rt, "trials")
	var ds []batch.Delivery
	due := c.Max > 0 && m.anySendable(c)
	m.eventually("a message that is due is claimed", func() bool {
		ds = m.fixture.take(c)
		return len(ds) > 0 || !due
	})
	m.begin(c, ds)
}

func (m *model) anySendable(c batch.MessageClaim) bool {
	for _, b := range m.batches {
		for id := range b.messages {
			if m.sendable(c, b, id, time.Now()) == "" {
				return true
			}
		}
	}
	return false
}

func (m *model) attempted(rt *rapid.T) {
	var os []batch.AttemptOutcome
	for range rapid.IntRange(1, 3).Draw(rt, "outcomes") {
		d, flying := pick(rt, m.flying, m.landed)
		var o batch.AttemptOutcome
		switch rapid.IntRange(0, 6).Draw(rt, "outcome") {
		case 0:
			o = again(d, now())
		case 1:
			o = again(d, now().Add(time.Hour))
		case 2:
			o = again(d, now())
			o.Refund = true
		case 3:
			o = ended(d, batch.MessageExhausted)
		case 4:
			o = ended(d, batch.MessageBlocked)
		default:
			o = ended(d, batch.MessageDelivered)
		}
		if o.State != batch.MessageDelivered {
			o.Host = rapid.SampledFrom([]batch.HostState{batch.HostUnknown, batch.HostDown, batch.HostUnreachable, batch.HostUnreachable}).Draw(rt, "host")
		}
		os = append(os, o)
		if flying {
			m.land(o)
		}
	}
	m.fixture.attempted(os...)
}

// land moves the model by the end of an attempt in flight.
func (m *model) land(o batch.AttemptOutcome) {
	d := o.Delivery
	m.flying = slices.DeleteFunc(m.flying, func(f batch.Delivery) bool { return f.ID == d.ID })
	m.landed = append(m.landed, d)
	b := m.find(d.Batch)
	m.heal(b, o)
	if b.gone {
		return
	}
	msg := b.messages[d.ID]
	if o.Refund {
		msg.made--
	} else {
		msg.attempts++
		msg.manual = false
	}
	msg.state, msg.later = o.State, o.Due.After(time.Now())
	msg.host = batch.CallbackHost(b.Options.CallbackURL)
	if msg.state.Settled() && !msg.again {
		msg.host = d.Host
	}
	switch {
	case msg.again:
		*msg = modelMessage{typ: msg.typ, round: msg.round, host: msg.host, state: batch.MessageWaiting, made: msg.made, attempts: msg.attempts, settled: msg.settled, manual: true}
	case msg.progress() && o.State == batch.MessageWaiting && !o.Refund:
		msg.state, msg.later = batch.MessageExhausted, false
	}
	if !msg.state.Settled() {
		return
	}
	msg.manual = false
	if first := !msg.settled && !msg.progress(); first {
		if msg.settled = true; msg.round == b.round() {
			b.release()
		}
	}
}

// release lets the terminal message go if all others were settled once.
func (b *modelBatch) release() {
	for _, msg := range b.messages {
		if msg.result() && !msg.settled && msg.round == b.round() {
			return
		}
	}
	for _, msg := range b.messages {
		if !msg.result() && !msg.progress() && msg.made == 0 && msg.round == b.round() {
			msg.later = false
		}
	}
}

func (m *model) redeliver(rt *rapid.T) {
	var all []batch.Message
	for _, b := range m.batches {
		if b.Options.CallbackURL != "" {
			all = append(all, m.messagesOf(b.given)...)
		}
	}
	if len(all) == 0 {
		rt.Skip("no message")
	}
	id := all[rapid.IntRange(0, len(all)-1).Draw(rt, "message")]
	m.find(id.Batch).sendAgain(m.find(id.Batch).messages[id.ID], true)
	_, err := m.Redeliver(m.ctx, id.Tenant, id.ID, batch.Once{})
	m.ok(err)
}

// sendAgain moves a message that is asked for.
func (b *modelBatch) sendAgain(msg *modelMessage, manual bool) {
	if msg.state == batch.MessageSending {
		msg.again = true
		return
	}
	msg.state, msg.later, msg.manual = batch.MessageWaiting, false, manual
	msg.host = batch.CallbackHost(b.Options.CallbackURL)
}

func (m *model) redeliverAll(rt *rapid.T) {
	r := batch.Redelivery{
		Tenant: tenant(byte(rapid.IntRange(0, 1).Draw(rt, "tenant"))),
		State:  rapid.SampledFrom([]batch.MessageState{batch.MessageDelivered, batch.MessageExhausted, batch.MessageCanceled}).Draw(rt, "state"),
		Host:   rapid.SampledFrom([]string{"", "shop.example:443", "b.example:80"}).Draw(rt, "host"),
	}
	m.learn()
	wanted := map[*modelMessage]*modelBatch{}
	for _, b := range m.batches {
		for _, msg := range b.messages {
			if b.Tenant == r.Tenant && msg.state == r.State && !msg.progress() && (r.Host == "" || r.Host == msg.host) {
				wanted[msg] = b
			}
		}
	}
	m.order(r, len(wanted))
	for msg, b := range wanted {
		b.sendAgain(msg, false)
	}
}

func (m *model) restart(rt *rapid.T) {
	m.down = closed
	if m.place.Kill != nil && rapid.Bool().Draw(rt, "kill") {
		m.down = killed
	}
	m.fixture.restart()
	m.dropped, m.held = append(m.dropped, m.held...), nil
	for _, d := range slices.Clone(m.flying) {
		o := again(d, time.Time{})
		o.Host = batch.HostUnknown
		m.land(o)
	}
	for h, known := range m.health {
		if !known.Notable() && (h.all || !known.Proven()) { // that it answered once is found out again
			delete(m.health, h)
		}
	}
	for _, b := range m.batches {
		m.settle(b)
	}
	m.ok(m.Check(m.ctx))
	m.learn()
	m.inspect()
}

func inOrder(is []batch.ID) []batch.ID {
	return slices.SortedFunc(slices.Values(is), func(a, b batch.ID) int { return bytes.Compare(a[:], b[:]) })
}

// pick draws what is current, or now and then what was.
func pick[T any](rt *rapid.T, current, past []T) (v T, is bool) {
	if len(current)+len(past) == 0 {
		rt.Skip("nothing to pick from")
	}
	if len(past) == 0 || len(current) > 0 && rapid.IntRange(0, 4).Draw(rt, "past") > 0 {
		return current[rapid.IntRange(0, len(current)-1).Draw(rt, "current")], true
	}
	return past[rapid.IntRange(0, len(past)-1).Draw(rt, "past one")], false
}
