package batch

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// An envelope is the body of a message without the results that it carries.
type envelope struct {
	b    []byte
	hole int // where the results go, between the brackets; 0: it carries none
}

// newEnvelope begins the body of a message with what all types have in
// common.
func newEnvelope(typ string, s Spec, p Progress, now time.Time) envelope {
	e := envelope{b: make([]byte, 0, 640)}
	e.b = append(e.b, `{"type":`...)
	e.b = appendString(e.b, typ)
	e.time("timestamp", now)
	e.b = append(e.b, `,"data":{"batch_id":"`...)
	e.b = append(append(e.b, s.ID.String()...), '"')
	e.number("round", p.Round)
	e.name("metadata")
	e.b = appendPairs(e.b, s.Options.Metadata)
	return e
}

// appendPairs appends pairs of strings as an object, by key.
func appendPairs(dst []byte, pairs map[string]string) []byte {
	dst = append(dst, '{')
	for i, k := range slices.Sorted(maps.Keys(pairs)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, k), ':')
		dst = appendString(dst, pairs[k])
	}
	return append(dst, '}')
}

func (e *envelope) name(name string) {
	e.b = append(e.b, ',', '"')
	e.b = append(e.b, name...)
	e.b = append(e.b, '"', ':')
}

func (e *envelope) number(name string, n int) {
	e.name(name)
	e.b = strconv.AppendInt(e.b, int64(n), 10)
}

// text adds a string; an empty one is null.
func (e *envelope) text(name, s string) {
	e.name(name)
	if s == "" {
		e.b = append(e.b, "null"...)
		return
	}
	e.b = appendString(e.b, s)
}

// time adds a time; the zero time is null.
func (e *envelope) time(name string, t time.Time) {
	e.name(name)
	if t.IsZero() {
		e.b = append(e.b, "null"...)
		return
	}
	e.b = append(e.b, '"')
	e.b = append(t.UTC().AppendFormat(e.b, timeLayout), '"')
}

func (e *envelope) counts(c Counts) {
	e.b = append(e.b, `,"counts":{"total":`...)
	e.b = strconv.AppendInt(e.b, int64(c.Total), 10)
	e.number("pending", c.Pending)
	e.number("running", c.Running)
	e.number("succeeded", c.Succeeded)
	e.number("failed", c.Failed)
	e.number("canceled", c.Canceled)
	e.number("expired", c.Expired)
	e.b = append(e.b, '}')
}

// results leaves room for the results.
func (e *envelope) results() {
	e.name("results")
	e.b = append(e.b, '[', ']')
	e.hole = len(e.b) - 1
}

// split ends the envelope and returns what stands before the results and what
// behind them. What is appended to the head does not touch the tail.
func (e envelope) split() (head, tail []byte) {
	b := append(e.b, "}}"...)
	if e.hole == 0 {
		return b, nil
	}
	return slices.Clip(b[:e.hole]), b[e.hole:]
}

// size returns how many bytes the body has without results.
func (e envelope) size() int { return len(e.b) + len("}}") }

// A section says which results of a range a message carries.
type section struct{ rangeNo, ranges, part, parts, first, last int }

// resultsEnvelope is that of a message with results of a range.
func resultsEnvelope(s Spec, p Progress, of section, now time.Time) envelope {
	e := newEnvelope(TypeResults, s, p, now)
	e.number("range", of.rangeNo)
	e.number("ranges", of.ranges)
	e.number("part", of.part)
	e.number("parts", of.parts)
	e.number("first_index", of.first)
	e.number("last_index", of.last)
	e.results()
	return e
}

// endEnvelope is that of the message about the end of a batch; inline says
// that it carries the results.
func endEnvelope(s Spec, p Progress, link string, inline bool, now time.Time) envelope {
	e := newEnvelope("batch."+p.Status.String(), s, p, now)
	e.text("status", p.Status.String())
	e.text("reason", p.Reason)
	e.counts(Batch{Spec: s, Progress: p}.Counts())
	e.time("created_at", s.Created)
	e.time("started_at", p.Started)
	e.time("finished_at", p.Finished)
	e.number("messages", p.Messages.Round)
	if inline {
		e.results()
	}
	e.text("results_url", link)
	return e
}

// progressEnvelope is that of word of the progress.
func progressEnvelope(s Spec, p Progress, percent int, now time.Time) envelope {
	e := newEnvelope(TypeProgress, s, p, now)
	e.text("status", p.Status.String())
	e.counts(Batch{Spec: s, Progress: p}.Counts())
	e.number("percent", percent)
	return e
}
