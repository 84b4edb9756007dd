package intake_test

import (
	"context"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/intake"
)

// stalling is a body whose client holds still behind its head.
type stalling struct {
	head io.Reader
	tail io.Reader
	on   <-chan struct{} // closed when the client goes on
}

func (s *stalling) Read(p []byte) (int, error) {
	if n, err := s.head.Read(p); err == nil {
		return n, nil
	}
	<-s.on
	return s.tail.Read(p)
}

func TestWhatBodiesHoldTogether(t *testing.T) {
	const bodies = 32
	x := strings.Repeat("x", 600<<10)
	name := func(i int) string { return string([]byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'a' + byte(i/676)}) }
	var names strings.Builder
	for i := range 10_000 {
		names.WriteString(`"` + name(i) + `":0,`)
	}
	const (
		wide      = "\x28\xb5\x2f\xfd\x00\x48\xa0\x00\x001\n2\n3\n4\n5\n6\n7\n8\n9\n0\n" // a frame with a window of 512 KiB, and its first block
		lastBlock = "\x01\x00\x00"
	)
	for what, c := range map[string]struct {
		contentType, head, tail string
		coding                  string
		query                   url.Values
	}{
		"a long line":                  {contentType: asNDJSON, head: `"` + x, tail: `"`},
		"a JSON value":                 {contentType: asJSON, head: `{"items":["` + x, tail: `"]}`},
		"the names of an object":       {contentType: asJSON, head: `{"items":[{` + names.String(), tail: `"end":0}]}`},
		"options of JSON":              {contentType: asJSON, head: `{"items":[1],"metadata":{"a":"` + x[:100<<10] + `"},"id_field":"` + x[:100<<10] + `","callback_url":"` + x[:100<<10] + `","priority":"` + x[:100<<10], tail: `"}`},
		"a window of zstd":             {contentType: asNDJSON, coding: "zstd", head: wide, tail: lastBlock},
		"the window of a second frame": {contentType: asNDJSON, coding: "zstd", head: string(zst(t, strings.Repeat(lineItem(1), 400), zstd.WithWindowSize(64<<10))) + wide, tail: lastBlock},
		"a long line of CSV":           {contentType: asCSV, head: "a\n" + x, tail: "\n"},
		"a quoted field of many lines": {contentType: asCSV, head: "a\n\"" + strings.Repeat("x\n", 300<<10), tail: "\""},
		"a row of many fields":         {contentType: asCSV, head: columns(100) + "\n" + strings.Repeat("\"\n"+x[:6<<10]+"\",", 99), tail: "1\n"},
		"fields of a form":             {contentType: asForm, head: file("a.ndjson", "", "1") + field("metadata.a", x[:120<<10]) + field("id_field", x[:120<<10]) + strings.TrimSuffix(field("priority", "high"), "\r\n"), tail: "\r\n" + formOf()},
		"items that are not staged":    {contentType: asNDJSON, head: strings.Repeat(`"`+x[:997]+"\"\n", 600), tail: "1"},
		"items that wait":              {contentType: asJSON, head: `{"items":[` + strings.Repeat(`"`+x[:997]+`",`, 600), tail: `1]}`},
		"ids": {contentType: asNDJSON, head: `{"a":1}` + "\n" + func() string {
			var b strings.Builder
			for i := range 10_000 {
				b.WriteString(`{"a":"` + name(i) + `"}` + "\n")
			}
			return b.String()
		}(), tail: `{"a":0}`, query: url.Values{"id_field": {"/a"}}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := withProcessor
				o.Dir, o.Budget = t.TempDir(), intake.NewBudget(4<<20, 2*bodies)
				start := func(on <-chan struct{}) <-chan error {
					done := make(chan error, 1)
					r := intake.Request{ContentType: c.contentType, ContentEncoding: c.coding, Query: c.query, Body: &stalling{strings.NewReader(c.head), strings.NewReader(c.tail), on}, Length: -1}
					go func() {
						_, err := intake.Read(context.Background(), r, &sink{}, o)
						done <- err
					}()
					return done
				}
				on := make(chan struct{})
				var all []<-chan error
				for range bodies {
					all = append(all, start(on))
				}
				time.Sleep(time.Minute)
				var left []<-chan error
				for _, done := range all {
					select {
					case err := <-done:
						if e := refused(t, err); e.Code != batch.Unavailable || e.Reason != "overloaded" {
							t.Errorf("refused with %v", err)
						}
					default:
						left = append(left, done)
					}
				}
				if len(left) == 0 || len(left) > 24 {
					t.Errorf("%d of %d bodies are being received", len(left), bodies)
				}
				if _, _, err := read(t, request(asNDJSON, strings.Repeat("{}\n", 20_000)), o); err != nil {
					t.Errorf("a small body beside them: %v", err)
				}
				close(on)
				for _, done := range left {
					<-done
				}
				if err := <-start(on); batch.CodeOf(err) == batch.Unavailable {
					t.Errorf("one more when they are done: %v", err)
				}
			})
		})
	}
}

func columns(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(string([]byte{'a' + byte(i%26), 'a' + byte(i/26)}) + ",")
	}
	return strings.TrimSuffix(b.String(), ",")
}

func TestABodyWaitsForMemory(t *testing.T) {
	half := `"` + strings.Repeat("x", 900<<10)
	line := half + `"`
	hold := func(o intake.Options, on <-chan struct{}) {
		r := intake.Request{ContentType: asNDJSON, Body: &stalling{strings.NewReader(half), strings.NewReader(""), on}, Length: -1}
		go intake.Read(context.Background(), r, &sink{}, o)
		synctest.Wait()
	}
	t.Run("until another is done", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := withProcessor
			o.Budget = intake.NewBudget(3<<20, 2)
			on := make(chan struct{})
			hold(o, on)
			time.AfterFunc(time.Second, func() { close(on) })
			if _, _, err := read(t, request(asNDJSON, line), o); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("while somebody waits for the answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := withProcessor
			o.Budget = intake.NewBudget(3<<20, 2)
			on := make(chan struct{})
			hold(o, on)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := intake.Read(ctx, request(asNDJSON, line), &sink{}, o)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			close(on)
		})
	})
	t.Run("but not for a place", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			o := withProcessor
			o.Budget = intake.NewBudget(1<<20, 1)
			on := make(chan struct{})
			hold(o, on)
			started := time.Now()
			_, _, err := read(t, request(asNDJSON, "1"), o)
			if e := refused(t, err); e.Code != batch.Unavailable || e.Reason != "overloaded" || !time.Now().Equal(started) {
				t.Error(err)
			}
			close(on)
			synctest.Wait()
			if _, _, err := read(t, request(asNDJSON, "1"), o); err != nil {
				t.Error(err)
			}
		})
	})
}
