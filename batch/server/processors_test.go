package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/process/command"
	"github.com/callbatch/callbatch/batch/server"
)

// shell is a program that a shell reads, as a processor.
func shell(t *testing.T, program string) server.Processor {
	t.Helper()
	p, err := command.New(command.Options{Command: []string{"/bin/sh", "-c", program}, Env: []string{"PATH=/usr/bin:/bin"}})
	if err != nil {
		t.Fatal(err)
	}
	return server.Processor{Do: p, Kind: "exec", Trusted: true, Outside: true, Concurrency: 2}
}

func echo() server.Processor {
	return server.Processor{Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) { return c.Item, nil })}
}

func TestProcessorsAreShown(t *testing.T) {
	fits := echo()
	fits.Schema = []byte("{\n  \"maximum\": 1.50}")
	s := newSite(t, server.Options{Processors: map[string]server.Processor{
		"fits": fits, "echo": echo(), "gone": shell(t, "exit 1"),
	}})
	id := submit(t, http.DefaultClient, s.base, "processor=gone", numbers(1))
	s.until(id, "waiting for its workers", func(seen) bool {
		var b struct {
			WaitingOn string `json:"waiting_on"`
		}
		s.get("/v1/batches/"+id, &b)
		return b.WaitingOn == "upstream_unavailable"
	})
	var got struct{ Data []json.RawMessage }
	s.get("/v1/processors", &got)
	var lines []string
	for _, d := range got.Data {
		lines = append(lines, string(d))
	}
	want := []string{
		`{"name":"echo","kind":"func","health":"ok","schema":null}`,
		`{"name":"fits","kind":"func","health":"ok","schema":{"maximum":1.50}}`,
		`{"name":"gone","kind":"exec","health":"open","schema":null}`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
}

func TestItemsAreHeldAgainstASchema(t *testing.T) {
	fits := echo()
	fits.Schema = []byte(`{"type":"object","required":["qty"],"properties":{"qty":{"type":"number","maximum":2}}}`)
	s := newSite(t, server.Options{Processors: map[string]server.Processor{"fits": fits, "echo": echo()}})
	post := func(contentType, query, body string) (int, string) {
		resp, err := http.Post(s.base+"/v1/batches?"+query, contentType, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	for _, tt := range []struct{ name, contentType, query, body, want string }{
		{"a line", "application/x-ndjson", "processor=fits", "{\"qty\":1}\n\n{\"qty\":3}\n", `"errors":[{"index":1,"line":3,"pointer":"/qty","code":"schema_mismatch","detail":"must be at most 2"}]`},
		{"an item", "application/json", "", `{"items":[{"qty":1},{}],"processor":"fits"}`, `"errors":[{"index":1,"pointer":"/qty","code":"schema_mismatch","detail":"is required"}]`},
	} {
		t.Run(tt.name+" is refused with its place", func(t *testing.T) {
			status, text := post(tt.contentType, tt.query, tt.body)
			if status != http.StatusUnprocessableEntity || !strings.Contains(text, `"code":"schema_mismatch"`) || !strings.Contains(text, tt.want) {
				t.Errorf("got %d %s\nwant %s", status, text, tt.want)
			}
		})
	}
	t.Run("a line of a part is refused with its place", func(t *testing.T) {
		_, text := post("", "open=true&processor=fits", "")
		var b seen
		if err := json.Unmarshal([]byte(text), &b); err != nil {
			t.Fatalf("got %s", text)
		}
		r, err := http.NewRequestWithContext(t.Context(), "PUT", s.base+"/v1/batches/"+b.ID+"/parts/1", strings.NewReader("sku,qty\nA,1\n"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/csv")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		want := `"errors":[{"part":1,"index":0,"line":2,"pointer":"/qty","code":"schema_mismatch","detail":"must be number, not string"}]`
		if resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(string(answer), want) {
			t.Errorf("got %d %s\nwant %s", resp.StatusCode, answer, want)
		}
	})
	if status, text := post("application/x-ndjson", "processor=echo", "{}\n"); status != http.StatusAccepted {
		t.Errorf("another processor minds: %d %s", status, text)
	}
	if status, text := post("application/x-ndjson", "processor=fits", "{\"qty\":2}\n"); status != http.StatusAccepted {
		t.Errorf("what fits is refused: %d %s", status, text)
	}
	err := server.Run(t.Context(), server.Options{
		Listen: "127.0.0.1:0", Dev: true, Store: filepath.Join(t.TempDir(), "callbatch.db"),
		Processors: map[string]server.Processor{"bad": {Do: fits.Do, Schema: []byte(`{"type":"int"}`)}},
	})
	if err == nil || !strings.Contains(err.Error(), `processors.bad.schema: the schema is not one: at "/type"`) {
		t.Errorf("a schema that is none: %v", err)
	}
}

// A stop that cuts workers short costs no attempt, and ends them.
func TestStopAndStartWithWorkers(t *testing.T) {
	dir := t.TempDir()
	s := newSite(t, server.Options{Drain: 50 * time.Millisecond, Processors: map[string]server.Processor{"p": shell(t, fmt.Sprintf(
		`while read -r line; do [ -e %s/go ] || touch %[1]s/at && while [ ! -e %[1]s/go ]; do sleep 0.02; done; echo '{"output":1}'; done`, dir))}})
	id := submit(t, http.DefaultClient, s.base, "processor=p", numbers(20))
	s.until(id, "running", func(b seen) bool { return b.Counts.Running == 2 && exists(dir+"/at") })
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s.check()
	s.o.Processors["p"] = shell(t, `while read -r line; do echo '{"output":2}'; done`)
	s.start()
	if b := s.ended(id); b.Counts.Succeeded != 20 {
		t.Errorf("counts %+v", b.Counts)
	}
	for _, l := range s.results(id, "") {
		if !strings.Contains(l, `"output":2,"attempts":1,`) {
			t.Fatalf("an attempt was counted that our stop cut short: %s", l)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
