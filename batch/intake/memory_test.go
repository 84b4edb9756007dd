package intake_test

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// sink drops blocks and counts what passes.
type sink struct {
	items, blocks int
	indexed       int // entries of the index
	peak          uint64 // most heap in use that was seen
}

func (s *sink) Append(_ context.Context, b batch.Block) error {
	s.items += len(b.Items)
	if s.blocks++; s.blocks%100 == 0 {
		s.measure()
	}
	return nil
}

func (s *sink) measure() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s.peak = max(s.peak, m.HeapInuse)
}

func (s *sink) Index(_ context.Context, entries []batch.IndexEntry) error {
	s.indexed += len(entries)
	return nil
}

// generated is a body of n items that is made while it is read.
type generated struct {
	head, between, tail string
	n, next             int
	rest                []byte
	done                bool
}

func (g *generated) Read(p []byte) (int, error) {
	for len(g.rest) == 0 {
		switch {
		case g.done:
			return 0, io.EOF
		case g.next == g.n:
			g.rest, g.done = append(g.rest, g.tail...), true
		default:
			if g.next == 0 {
				g.rest = append(g.rest, g.head...)
			} else {
				g.rest = append(g.rest, g.between...)
			}
			g.rest = append(strconv.AppendInt(append(g.rest, `{"id":`...), int64(g.next), 10), '}')
			g.next++
		}
	}
	n := copy(p, g.rest)
	g.rest = g.rest[:copy(g.rest, g.rest[n:])]
	return n, nil
}

func TestMemoryStaysFlat(t *testing.T) {
	const most = 40 << 20
	ids := url.Values{"id_field": {"/id"}}
	for name, c := range map[string]struct {
		contentType string
		query       url.Values
		body        generated
	}{
		"a million lines with ids":                  {asNDJSON, ids, generated{between: "\n", n: 1_000_000}},
		"a document that names id_field at its end": {asJSON, nil, generated{head: `{"items":[`, between: ",", tail: `],"id_field":"/id"}`, n: 250_000}},
	} {
		t.Run(name, func(t *testing.T) {
			r := intake.Request{ContentType: c.contentType, Query: c.query, Body: &c.body, Length: -1}
			o := withProcessor
			o.Dir = t.TempDir()
			var s sink
			runtime.GC()
			s.measure()
			before := s.peak
			if _, err := intake.Read(t.Context(), r, &s, o); err != nil {
				t.Fatal(err)
			}
			if s.items != c.body.n || s.indexed != c.body.n {
				t.Errorf("%d items arrived and %d entries of their index", s.items, s.indexed)
			}
			if s.peak > before+most {
				t.Errorf("%d MiB of heap in use, %d before", s.peak>>20, before>>20)
			}
		})
	}
}

// lineItem is an item of 200 bytes with a line feed.
func lineItem(i int) string {
	s := fmt.Sprintf(`{"order_id":"A-%09d","sku":"4711-%d","qty":%d,"price":%d.95,"tags":["new","eu"],"address":{"city":"Köln","zip":"50667"},"note":"`, i, i%977, i%12, i%499)
	return s + strings.Repeat("x", 197-len(s)) + "\"}\n"
}

func bench(b *testing.B, contentType, body string, query url.Values) {
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	o := withProcessor
	o.Dir = b.TempDir()
	for b.Loop() {
		r := intake.Request{ContentType: contentType, Query: query, Body: strings.NewReader(body), Length: int64(len(body))}
		if _, err := intake.Read(b.Context(), r, &sink{}, o); err != nil {
			b.Fatal(err)
		}
	}
}

func benchLines(n int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString(lineItem(i))
	}
	return s.String()
}

func BenchmarkNDJSON(b *testing.B) { bench(b, asNDJSON, benchLines(100_000), nil) }

func BenchmarkNDJSONWithIDs(b *testing.B) {
	bench(b, asNDJSON, benchLines(200_000), url.Values{"id_field": {"/order_id"}})
}

func benchArray(n int) string {
	return "[" + strings.ReplaceAll(strings.TrimSuffix(benchLines(n), "\n"), "\n", ",") + "]"
}

func BenchmarkJSON(b *testing.B) {
	bench(b, asJSON, `{"id_field":"","items":`+benchArray(100_000)+`}`, nil)
}

func BenchmarkJSONSpooled(b *testing.B) {
	bench(b, asJSON, `{"items":`+benchArray(100_000)+`,"id_field":"/order_id"}`, nil)
}
