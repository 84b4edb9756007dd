package intake_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// sink drops blocks and counts what passes.
type sink struct {
	items, blocks int
	indexed       int    // entries of the index
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
	escape              bool // the quotes of an item, as CSV wants it
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
			id := `{"id":`
			if g.escape {
				id = `{""id"":`
			}
			g.rest = append(strconv.AppendInt(append(g.rest, id...), int64(g.next), 10), '}')
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
		"a form that names id_field at its end": {asForm, nil, generated{
			head: strings.TrimSuffix(file("a.ndjson", "", ""), "\r\n"), between: "\n", tail: "\r\n" + formOf(field("id_field", "/id")), n: 250_000,
		}},
		"a table": {asCSV, nil, generated{head: "a\n\"", between: "\"\n\"", tail: "\"", n: 500_000, escape: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := intake.Request{ContentType: c.contentType, Query: c.query, Body: &c.body, Length: -1}
			o := withProcessor
			o.Dir = t.TempDir()
			var s sink
			runtime.GC()
			s.measure()
			before := s.peak
			content, err := intake.Read(t.Context(), r, &s, o)
			if err != nil {
				t.Fatal(err)
			}
			indexed := 0
			if content.Options.IDField != "" {
				indexed = c.body.n
			}
			if s.items != c.body.n || s.indexed != indexed {
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

func TestMemoryStaysFlatBehindZstd(t *testing.T) {
	const most = 64 << 20 // a window of 8 MiB, some blocks, and what the collector leaves
	text := &generated{between: "\n", n: 2_000_000}
	in, out := io.Pipe()
	go func() {
		z, err := zstd.NewWriter(out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20), zstd.WithLowerEncoderMem(true))
		if err == nil {
			_, err = io.Copy(z, text)
		}
		if err == nil {
			err = z.Close()
		}
		out.CloseWithError(err)
	}()
	defer in.Close()
	var s sink
	runtime.GC()
	s.measure()
	before := s.peak
	o := withProcessor
	o.Ratio = 1000
	if _, err := intake.Read(t.Context(), intake.Request{ContentType: asNDJSON, ContentEncoding: "zstd", Body: in, Length: -1}, &s, o); err != nil {
		t.Fatal(err)
	}
	if s.items != text.n || s.peak > before+most {
		t.Errorf("%d items, %d MiB of heap in use, %d before", s.items, s.peak>>20, before>>20)
	}
}

func BenchmarkNDJSON(b *testing.B) { bench(b, asNDJSON, benchLines(100_000), nil) }

func BenchmarkNDJSONWithIDs(b *testing.B) {
	bench(b, asNDJSON, benchLines(200_000), url.Values{"id_field": {"/order_id"}})
}

func BenchmarkNDJSONDigest(b *testing.B) {
	body := benchLines(100_000)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r := request(asNDJSON, body)
		r.Digest = true
		if _, err := intake.Read(b.Context(), r, &sink{}, withProcessor); err != nil {
			b.Fatal(err)
		}
	}
}

func benchRows(n int) string {
	var s strings.Builder
	s.WriteString("order_id,sku,qty,price,city,zip,note\n")
	for i := range n {
		row := fmt.Sprintf("A-%09d,4711-%d,%d,%d.95,Köln,50667,", i, i%977, i%12, i%499)
		s.WriteString(row + strings.Repeat("x", 120-len(row)) + "\n")
	}
	return s.String()
}

func BenchmarkCSV(b *testing.B) { bench(b, asCSV, benchRows(100_000), nil) }

func BenchmarkCSVQuoted(b *testing.B) {
	rows := strings.TrimSuffix(benchRows(100_000), "\n")
	bench(b, asCSV, `"`+strings.NewReplacer(",", `","`, "\n", "\"\n\"").Replace(rows)+`"`, nil)
}

func BenchmarkCSVWithIDs(b *testing.B) {
	bench(b, asCSV, benchRows(200_000), url.Values{"id_field": {"/order_id"}})
}

// The cost of one small batch, which most are.
func BenchmarkOneLine(b *testing.B) { bench(b, asNDJSON, benchLines(1), nil) }
func BenchmarkOneItem(b *testing.B) { bench(b, asJSON, `{"items":`+benchArray(1)+`}`, nil) }

func benchArray(n int) string {
	return "[" + strings.ReplaceAll(strings.TrimSuffix(benchLines(n), "\n"), "\n", ",") + "]"
}

func BenchmarkJSON(b *testing.B) {
	bench(b, asJSON, `{"id_field":"","items":`+benchArray(100_000)+`}`, nil)
}

func BenchmarkJSONSpooled(b *testing.B) {
	bench(b, asJSON, `{"items":`+benchArray(100_000)+`,"id_field":"/order_id"}`, nil)
}

func BenchmarkOneLineZstd(b *testing.B) { benchCoded(b, "zstd", zst(b, benchLines(1))) }
func BenchmarkNDJSONZstd(b *testing.B)  { benchCoded(b, "zstd", zst(b, benchLines(100_000))) }
func BenchmarkOneLineGzip(b *testing.B) { benchCoded(b, "gzip", zip(b, benchLines(1))) }
func BenchmarkNDJSONGzip(b *testing.B)  { benchCoded(b, "gzip", zip(b, benchLines(100_000))) }

func benchCoded(b *testing.B, coding string, body []byte) {
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		r := intake.Request{ContentType: asNDJSON, ContentEncoding: coding, Body: bytes.NewReader(body), Length: int64(len(body))}
		if _, err := intake.Read(b.Context(), r, &sink{}, withProcessor); err != nil {
			b.Fatal(err)
		}
	}
}
