package batch

import (
	"encoding/json"
	"net"
	"net/url"
	"strings"
	"time"
)

// A Range is a finished block with the results of the current round that it
// holds, by index.
type Range struct {
	Key     BlockKey
	Ordinal int // of the block in its batch, from 0
	Results []Result
}

// RangeMessages returns the messages that carry the results of a range: none
// if nothing in it ever ran, or the client wants no results or no callback.
func RangeMessages(s Spec, p Progress, r Range, t Terms, now time.Time) []Message {
	if len(r.Results) == 0 || !s.carriesResults() {
		return nil
	}
	of := section{rangeNo: r.Ordinal, ranges: s.Blocks, part: 999, parts: 999, first: s.Items, last: s.Items}
	pages := paginate(s, t.Links, r.Results, s.Options.CallbackPageBytes-resultsEnvelope(s, p, of, now).size())
	ms := make([]Message, len(pages))
	for i, pg := range pages {
		of.part, of.parts = i, len(pages)
		of.first, of.last = r.Results[pg.from].Index, r.Results[pg.to-1].Index
		ms[i] = newMessage(s, p, TypeResults, t, now)
		ms[i].fill(resultsEnvelope(s, p, of, now), p, r, pg)
	}
	return ms
}

// fill puts a page of results into the envelope: by reference, or as they
// are, if some of them are shortened.
func (m *Message) fill(e envelope, p Progress, r Range, pg page) {
	m.Head, m.Tail = e.split()
	if pg.short != nil {
		m.Head = append(m.Head, pg.short...)
		return
	}
	m.Carried = r.Results[pg.from:pg.to]
	m.Refs = []Ref{{
		Part: r.Key.Part, Number: r.Key.Number, Round: p.Round,
		From: r.Results[pg.from].Index, To: r.Results[pg.to-1].Index + 1,
	}}
}

// carriesResults reports whether results travel in messages.
func (s Spec) carriesResults() bool {
	return s.Options.Messages() && s.Options.CallbackMode != ModeSummary
}

// EndMessages returns the messages that go with the end of a batch, the
// terminal one last. only is the batch's range if it has just one: its
// results travel in the terminal message if they fit, else before it.
func EndMessages(s Spec, p Progress, only *Range, t Terms, now time.Time) []Message {
	if !s.Options.Messages() {
		return nil
	}
	var ms []Message
	end := newMessage(s, p, "batch."+p.Status.String(), t, now)
	link := t.Links.ResultsURL(s)
	if only != nil && s.carriesResults() && p.Messages.Round == 0 {
		whole := endEnvelope(s, p, link, true, now)
		pages := paginate(s, t.Links, only.Results, s.Options.CallbackPageBytes-whole.size())
		if len(pages) == 0 {
			end.Head, end.Tail = whole.split()
			return []Message{end}
		}
		if len(pages) > 1 || pages[0].short != nil { // those that are shortened may be whole in messages of their own
			ms = RangeMessages(s, p, *only, t, now)
		}
		if len(pages) == 1 && (ms == nil || len(ms) == 1 && ms[0].Refs == nil && whole.size()+len(pages[0].short) <= s.Options.CallbackPageBytes) {
			end.fill(whole, p, *only, pages[0])
			return []Message{end}
		}
	}
	for _, m := range ms {
		p.Post(m)
	}
	end.Head, _ = endEnvelope(s, p, link, false, now).split()
	if p.Messages.Owed > 0 && !end.State.Settled() {
		end.Due = end.Due.Add(t.WithDefaults().Hold)
		end.Until = end.Due.Add(t.WithDefaults().Window)
	}
	return append(ms, end)
}

// tellEvery is how far two messages about progress are apart at least.
const tellEvery = 10 * time.Second

// ProgressMessage returns word of the progress if the client asked for it and
// it is time: at each tenth of the items, never within 10 s of the last, and
// not once the batch is over.
func ProgressMessage(s Spec, p Progress, t Terms, now time.Time) (m Message, told Told, ok bool) {
	if p.Status.Terminal() || !s.Options.Wants(TypeProgress) || !s.Options.Messages() {
		return m, p.Told, false
	}
	tenth := 10 * p.Done.Sum() / max(1, s.Items)
	if tenth <= p.Told.Tenth || tenth > 9 || now.Before(p.Told.At.Add(tellEvery)) {
		return m, p.Told, false
	}
	m = newMessage(s, p, TypeProgress, t, now)
	m.Head, _ = progressEnvelope(s, p, 10*tenth, now).split()
	return m, Told{Message: p.Told.Message, Tenth: tenth, At: now.UTC()}, true
}

// newMessage returns a message without its id, which is the store's to give.
func newMessage(s Spec, p Progress, typ string, t Terms, now time.Time) Message {
	now = now.UTC()
	m := Message{
		Tenant: s.Tenant, Batch: s.ID, Type: typ, Round: p.Round,
		Host: CallbackHost(s.Options.CallbackURL), State: MessageWaiting, Created: now, Due: now,
		Until: now.Add(t.WithDefaults().Window),
	}
	if s.Options.CallbackMode == ModePull {
		m.State, m.Settled, m.Ended, m.Due, m.Until = MessagePulled, true, now, time.Time{}, time.Time{}
	}
	return m
}

// CallbackHost returns the lane of a callback URL: its host and port. It is
// empty if there is none.
func CallbackHost(raw string) string {
	if raw == "" {
		return ""
	}
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[strings.ToLower(u.Scheme)]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// page is a run of results that travel in one message.
type page struct {
	from, to int
	short    []byte // what is sent, if some of them are shortened
}

// paginate cuts results into pages of at most room bytes and as many results
// as the batch asks for. A result that alone is more than room is shortened.
func paginate(s Spec, l Links, results []Result, room int) []page {
	var pages []page
	var scratch []byte
	var shortened map[int]bool
	used := 0
	for i, r := range results {
		scratch = AppendResult(scratch[:0], r)
		if len(scratch) > room {
			if shortened == nil {
				shortened = map[int]bool{}
			}
			shortened[i] = true
			scratch = appendShort(scratch[:0], r, l.OutputURL(s, r.Index))
		}
		last := len(pages) - 1
		used += len(",") + len(scratch)
		if last < 0 || used > room || pages[last].to-pages[last].from >= s.Options.CallbackPageItems {
			pages = append(pages, page{from: i, to: i})
			last, used = last+1, len(scratch)
		}
		pages[last].to = i + 1
	}
	if len(shortened) > 0 {
		for i := range pages {
			pages[i].shorten(s, l, results, shortened)
		}
	}
	return pages
}

// shorten renders a page that has shortened results in it.
func (pg *page) shorten(s Spec, l Links, results []Result, which map[int]bool) {
	var b []byte
	some := false
	for i := pg.from; i < pg.to; i++ {
		if i > pg.from {
			b = append(b, ',')
		}
		if r := results[i]; which[i] {
			some = true
			b = appendShort(b, r, l.OutputURL(s, r.Index))
		} else {
			b = AppendResult(b, r)
		}
	}
	if some {
		pg.short = b
	}
}

// appendShort appends the result without what makes it too large for any
// message: its output, of which it says where it is, or most of its error,
// which then says that it is truncated.
func appendShort(dst []byte, r Result, url string) []byte {
	if r.Status != ItemSucceeded {
		r.Payload = shortError(r.Payload)
		return AppendResult(dst, r)
	}
	r.Payload = []byte("null")
	if url != "" {
		r.Payload = appendString(nil, url)
	}
	return appendResult(dst, r, "output_url")
}

// shortError returns the JSON of a failure without what the upstream said and
// with the beginning of its message.
func shortError(payload []byte) []byte {
	var f Failure
	if json.Unmarshal(payload, &f) != nil {
		return payload
	}
	f.Body, f.Message, f.Truncated = "", clip(f.Message), true
	return f.JSON()
}
