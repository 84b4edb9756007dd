package batch

import (
	"bytes"
	"encoding/json"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// marshal is encoding/json without its escaping of <, > and &.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}

// AppendResult appends the result as one JSON object, without a newline.
// The client's bytes are copied, never parsed.
func AppendResult(dst []byte, r Result) []byte { return appendResult(dst, r, false) }

// appendResult leaves the output out if bare is set and says so.
func appendResult(dst []byte, r Result, bare bool) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(r.Index), 10)
	dst = append(dst, `,"id":`...)
	dst = appendID(dst, r.ID, r.Index)
	dst = append(dst, `,"status":"`...)
	dst = append(dst, r.Status.String()...)
	dst = append(dst, '"')
	switch {
	case bare && r.Status == ItemSucceeded:
		dst = append(dst, `,"output_url":null`...)
	case r.Status == ItemSucceeded:
		dst = append(append(dst, `,"output":`...), r.Payload...)
	default:
		dst = append(append(dst, `,"error":`...), r.Payload...)
	}
	dst = append(dst, `,"attempts":`...)
	dst = strconv.AppendInt(dst, int64(r.Attempts), 10)
	if r.Round > 1 {
		dst = append(dst, `,"round":`...)
		dst = strconv.AppendInt(dst, int64(r.Round), 10)
	}
	dst = append(dst, `,"finished_at":"`...)
	dst = r.Finished.UTC().AppendFormat(dst, timeLayout)
	return append(dst, `"}`...)
}

func appendID(dst []byte, id string, index int) []byte {
	if id == "" {
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, int64(index), 10)
		return append(dst, '"')
	}
	return appendString(dst, id)
}

func appendString(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			b, err := marshal(s)
			if err != nil {
				panic("batch: a string is plain data: " + err.Error())
			}
			return append(dst, b...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// AppendBody appends the body of m; results are those its refs name, in the
// order of the refs and of their index.
func AppendBody(dst []byte, m Message, results []Result) []byte {
	dst = append(dst, m.Head...)
	bare := len(m.Refs) == 1 && m.Refs[0].Bare
	for i, r := range results {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendResult(dst, r, bare)
	}
	return append(dst, m.Tail...)
}

// A Range is a finished block with the results of the current round that it
// holds, by index.
type Range struct {
	Key     BlockKey
	Ordinal int // of the block in its batch, from 0
	Results []Result
}

// RangeMessages returns the messages that carry the results of a range: none
// if nothing in it ever ran, or the client wants no results or no callback.
func RangeMessages(s Spec, p Progress, r Range, now time.Time) []Message {
	if len(r.Results) == 0 || s.Options.CallbackURL == "" || s.Options.CallbackMode != ModeResults {
		return nil
	}
	data := resultsData{
		eventData: newEventData(s, p), Range: r.Ordinal, Ranges: s.Blocks, Part: 999, Parts: 999,
		FirstIndex: s.Items, LastIndex: s.Items,
	}
	room := s.Options.CallbackPageBytes - len(envelope(TypeResults, now, data)) - 2
	pages := paginate(r.Results, room, s.Options.CallbackPageItems)
	ms := make([]Message, len(pages))
	for i, pg := range pages {
		data.Part, data.Parts = i, len(pages)
		data.FirstIndex, data.LastIndex = r.Results[pg.from].Index, r.Results[pg.to-1].Index
		ms[i] = newMessage(s, p, TypeResults, now)
		ms[i].Head, ms[i].Tail = splitResults(envelope(TypeResults, now, data))
		ms[i].Refs = []Ref{r.ref(p, pg)}
	}
	return ms
}

func (r Range) ref(p Progress, pg page) Ref {
	return Ref{
		Part: r.Key.Part, Number: r.Key.Number, Round: p.Round,
		From: r.Results[pg.from].Index, To: r.Results[pg.to-1].Index + 1, Bare: pg.bare,
	}
}

// EndMessages returns the messages that go with the end of a batch, the
// terminal one last. only is the batch's range if it has just one: its
// results travel in the terminal message if they fit, else before it. hold
// is the longest the terminal message waits for others to be settled.
func EndMessages(s Spec, p Progress, only *Range, hold time.Duration, now time.Time) []Message {
	if s.Options.CallbackURL == "" {
		return nil
	}
	var ms []Message
	end := newMessage(s, p, "batch."+p.Status.String(), now)
	if only != nil && s.Options.CallbackMode == ModeResults && p.Messages.Round == 0 {
		body := envelope(end.Type, now, newEndData(s, p, true))
		pages := paginate(only.Results, s.Options.CallbackPageBytes-len(body), s.Options.CallbackPageItems)
		if len(pages) == 0 || len(pages) == 1 && !pages[0].bare {
			end.Head, end.Tail = splitResults(body)
			for _, pg := range pages {
				end.Refs = append(end.Refs, only.ref(p, pg))
			}
			return []Message{end}
		}
		ms = RangeMessages(s, p, *only, now)
	}
	p.Messages.Round += len(ms)
	p.Messages.Owed += len(ms)
	end.Head = envelope(end.Type, now, newEndData(s, p, false))
	if p.Messages.Owed > 0 {
		end.Due = now.Add(hold)
	}
	return append(ms, end)
}

func newMessage(s Spec, p Progress, typ string, now time.Time) Message {
	return Message{
		ID: NewMessageID(now), Tenant: s.Tenant, Batch: s.ID, Type: typ, Round: p.Round,
		Host: CallbackHost(s.Options.CallbackURL), State: MessageWaiting, Created: now, Due: now,
	}
}

// CallbackHost returns the lane of a callback URL: its host and port.
func CallbackHost(raw string) string {
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
	bare     bool
}

// paginate cuts results into pages of at most room bytes and most results.
// A result that does not fit any page has one of its own, without its output.
func paginate(results []Result, room, most int) []page {
	var pages []page
	var scratch []byte
	used := 0
	for i, r := range results {
		scratch = AppendResult(scratch[:0], r)
		size := len(scratch) + 1
		if size > room {
			pages = append(pages, page{from: i, to: i + 1, bare: true})
			used = room
			continue
		}
		last := len(pages) - 1
		if last < 0 || used+size > room || pages[last].to-pages[last].from >= most {
			pages = append(pages, page{from: i, to: i})
			last, used = last+1, 0
		}
		pages[last].to = i + 1
		used += size
	}
	return pages
}

type eventData struct {
	BatchID  ID                `json:"batch_id"`
	Round    int               `json:"round"`
	Metadata map[string]string `json:"metadata"`
}

func newEventData(s Spec, p Progress) eventData {
	md := s.Options.Metadata
	if md == nil {
		md = map[string]string{}
	}
	return eventData{BatchID: s.ID, Round: p.Round, Metadata: md}
}

type resultsData struct {
	eventData
	Range      int `json:"range"`
	Ranges     int `json:"ranges"`
	Part       int `json:"part"`
	Parts      int `json:"parts"`
	FirstIndex int `json:"first_index"`
	LastIndex  int `json:"last_index"`
	Results    raw `json:"results"`
}

type endData struct {
	eventData
	Status     Status  `json:"status"`
	Reason     *string `json:"reason"`
	Counts     Counts  `json:"counts"`
	Created    string  `json:"created_at"`
	Started    *string `json:"started_at"`
	Finished   string  `json:"finished_at"`
	Messages   int     `json:"messages"`
	Results    raw     `json:"results,omitempty"`
	ResultsURL *string `json:"results_url"`
}

// hole is where the results go in an envelope: it cannot stand anywhere else
// in it, because inside a string its quotes would be escaped.
const hole = `["\u0000"]`

func newEndData(s Spec, p Progress, inline bool) endData {
	d := endData{
		eventData: newEventData(s, p), Status: p.Status, Counts: Batch{Spec: s, Progress: p}.Counts(),
		Created: FormatTime(s.Created), Finished: FormatTime(p.Finished), Messages: p.Messages.Round,
	}
	if p.Reason != "" {
		d.Reason = &p.Reason
	}
	if !p.Started.IsZero() {
		at := FormatTime(p.Started)
		d.Started = &at
	}
	if inline {
		d.Results = raw(hole)
	}
	return d
}

func envelope(typ string, now time.Time, data any) []byte {
	if d, ok := data.(resultsData); ok {
		d.Results = raw(hole)
		data = d
	}
	b, err := marshal(struct {
		Type      string `json:"type"`
		Timestamp string `json:"timestamp"`
		Data      any    `json:"data"`
	}{typ, FormatTime(now), data})
	if err != nil {
		panic("batch: an envelope is plain data: " + err.Error())
	}
	return b
}

// splitResults cuts an envelope at its hole, keeping the brackets.
func splitResults(b []byte) (head, tail []byte) {
	i := bytes.Index(b, []byte(hole))
	return b[:i+1], b[i+len(hole)-1:]
}

// FormatTime returns t as the API and the messages show times: RFC 3339, UTC,
// with milliseconds.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }
