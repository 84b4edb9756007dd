package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

// TestWhatStrangersSentDoesNothingToATerminal has a server pass on everything
// as it came.
func TestWhatStrangersSentDoesNothingToATerminal(t *testing.T) {
	const (
		id      = "msg_00000000000000000000000000"
		refused = "msg_00000000000000000000000001"
		batchID = "bat_00000000000000000000000000"
	)
	evil := strings.NewReplacer("EVIL", `\u001b]0;x\u0007\u0085\u009b31m\u202e\r\n`, "RAW", "\u007f\u009b31m\u202e").Replace
	raw := evil(`{"type":"RAW"}`)
	message := evil(`{"id":"` + id + `","batch_id":"EVIL","type":"EVIL","status":"EVIL","reason":"EVIL","host":"EVIL","attempts_made":1,
		"attempts":[{"number":1,"remote_addr":"EVIL","request_headers":{"EVIL":"EVIL"},
			"response":{"status":200,"headers":{"a":"EVIL"},"body":"one\ntwo\tEVIL","truncated":true},"error":{"category":"EVIL","detail":"EVIL"}}],
		"body":{"type":"RAW"}}`)
	batch := evil(`{"id":"` + batchID + `EVIL","status":"completed","reason":"EVIL","waiting_on":"EVIL","processor":"EVIL",
		"callback":{"url":"EVIL","status":"EVIL"},"metadata":{"EVIL":"EVIL\t"}}`)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/messages":
			io.WriteString(w, `{"data":[`+message+`]}`)
		case "/v1/messages/feed":
			data := `{"id":"EVIL","type":"EVIL","body":{"type":"RAW"}}`
			if r.URL.Query().Has("after") {
				data = ""
			}
			io.WriteString(w, evil(`{"data":[`+data+`],"next":"EVIL"}`))
		case "/v1/callbacks/secret":
			io.WriteString(w, evil(`{"secret":"EVIL"}`))
		case "/v1/messages/" + refused:
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, evil(`{"code":"internal","detail":"EVIL","request_id":"EVIL","errors":[{"pointer":"EVIL","detail":"EVIL!"},{"detail":"EVIL?"}]}`))
		default:
			if strings.HasPrefix(r.URL.Path, "/v1/batches") {
				io.WriteString(w, batch)
				return
			}
			io.WriteString(w, message)
		}
	}))
	defer s.Close()
	for _, line := range []string{
		"messages", "messages --output json", "messages " + id + " --verbose", "messages " + id + " --output json", "messages --feed",
		"redeliver " + id, "redeliver --output json " + id,
		"status " + batchID, "submit - --type ndjson --wait", "secret show", "messages " + refused,
	} {
		var stdout, stderr bytes.Buffer
		want := 0
		if strings.HasSuffix(line, refused) {
			want = 1
		}
		if code := run(t.Context(), strings.Fields(line), []string{"CALLBATCH_URL=" + s.URL}, strings.NewReader("1\n"), &stdout, &stderr); code != want {
			t.Fatalf("%s: exit code %d: %s", line, code, &stderr)
		}
		shown := stdout.String() + stderr.String()
		if strings.Contains(line, "feed") || strings.Contains(line, id+" --output") { // the body is as it was sent; a terminal has its own test
			if shown = strings.Replace(shown, `"body":`+raw, "", 1); strings.Contains(shown, `"body":{`) {
				t.Errorf("%s: the body is not %q in %q", line, raw, shown)
			}
		}
		if i := strings.IndexFunc(strings.ReplaceAll(shown, "\n", ""), unprintable); i >= 0 {
			t.Errorf("%s: %q", line, shown)
		}
		if strings.Contains(line, "--verbose") && !strings.Contains(shown, "body      one\n            two    ") {
			t.Errorf("the answer's lines are not shown as lines:\n%s", shown)
		}
	}

	var stdout bytes.Buffer
	run(t.Context(), []string{"messages", id, "--body"}, []string{"CALLBATCH_URL=" + s.URL}, nil, &stdout, io.Discard)
	if stdout.String() != raw {
		t.Errorf("the body is %q, not the bytes %q", &stdout, raw)
	}
}

func TestErrorsKeepTheirLinesAndNothingElse(t *testing.T) {
	var stderr bytes.Buffer
	explain(&world{stderr: &stderr}, errors.New("a.yaml:1: \x1b]0;x\a\r\na.yaml:2:\tno"))
	if want := "callbatch: a.yaml:1: \ufffd]0;x\ufffd\ufffd\na.yaml:2:    no\n"; stderr.String() != want {
		t.Errorf("%q, want %q", &stderr, want)
	}
}

func TestFollowingTheFeed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	url := startServer(t)
	submit := func() string {
		var id, stderr bytes.Buffer
		args := []string{"submit", "-", "--type", "ndjson", "--callback-mode", "pull"}
		if code := run(ctx, args, []string{"CALLBATCH_URL=" + url}, strings.NewReader("1\n"), &id, &stderr); code != 0 {
			t.Fatalf("submit: exit code %d: %s", code, &stderr)
		}
		return strings.TrimSpace(id.String())
	}
	out, stdout := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		defer stdout.Close()
		ended <- run(ctx, []string{"messages", "--feed", "--follow"}, []string{"CALLBATCH_URL=" + url}, nil, stdout, io.Discard)
	}()
	lines := bufio.NewScanner(out)
	for range 3 { // the second and the third come while somebody waits
		id := submit()
		if !lines.Scan() {
			t.Fatalf("the feed ended: exit code %d", <-ended)
		}
		var line struct {
			Body struct {
				Data struct {
					Batch string `json:"batch_id"`
				}
			}
			Next string
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Body.Data.Batch != id || line.Next == "" {
			t.Errorf("%s, %v, want the message of %s and where to go on", lines.Text(), err, id)
		}
	}
	cancel()
	for lines.Scan() {
		t.Errorf("one more: %s", lines.Text())
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// startServer starts a server that gives every item back, and returns its
// URL.
func startServer(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	store, ready, ended := filepath.Join(t.TempDir(), "a.db"), make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		ended <- server.Run(ctx, server.Options{
			Listen: "127.0.0.1:0", Store: store, Dev: true,
			Processors: map[string]server.Processor{
				"echo": {Do: batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) { return c.Item, nil })},
			},
			DefaultProcessor: "echo",
			Limits:           server.Limits{MinFree: 1, MinWork: 1},
			Ready:            func(a net.Addr) { ready <- a },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	select {
	case a := <-ready:
		return "http://" + a.String()
	case err := <-ended:
		ended <- err
		t.Fatal("the server does not start")
		return ""
	}
}
