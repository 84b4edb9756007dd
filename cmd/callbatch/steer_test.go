package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// invoke runs the program and returns what it wrote and its exit code.
func invoke(t *testing.T, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, log bytes.Buffer
	code = run(t.Context(), args, env, strings.NewReader(""), &out, &log)
	return out.String(), log.String(), code
}

// answering is the environment for a server that answers as h does.
func answering(t *testing.T, h http.HandlerFunc) (env []string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return []string{"CALLBATCH_URL=" + s.URL}
}

const someBatch = "bat_00000000000000000000000000"

// aBatch is a batch as a server shows it.
func aBatch(status string, round, succeeded, failed int) string {
	return fmt.Sprintf(`{"id":%q,"status":%q,"round":%d,"processor":"price","counts":{"total":%d,"succeeded":%d,"failed":%d},"created_at":"2026-01-31T12:00:00Z"}`,
		someBatch, status, round, succeeded+failed, succeeded, failed)
}

func problem(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"status":%d,"code":%q,"detail":"no: %s"}`, status, code, code)
}

func TestSteer(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string // the request
		code string // what the server refuses it with; empty: it does not
		exit int
	}{
		{"pause", []string{"pause", someBatch}, "POST /v1/batches/" + someBatch + "/pause ", "", 0},
		{"pause what has ended", []string{"pause", someBatch}, "POST /v1/batches/" + someBatch + "/pause ", "wrong_state", exitConflict},
		{"resume", []string{"resume", someBatch}, "POST /v1/batches/" + someBatch + "/resume ", "", 0},
		{"cancel", []string{"cancel", someBatch}, "POST /v1/batches/" + someBatch + "/cancel ", "", 0},
		{"delete", []string{"delete", someBatch}, "DELETE /v1/batches/" + someBatch + " ", "", 0},
		{"delete by force", []string{"delete", someBatch, "--force"}, "DELETE /v1/batches/" + someBatch + "?force=true ", "", 0},
		{"delete what is owed", []string{"delete", someBatch}, "DELETE /v1/batches/" + someBatch + " ", "messages_pending", exitConflict},
		{"delete what is gone", []string{"delete", someBatch}, "DELETE /v1/batches/" + someBatch + " ", "gone", exitNotFound},
		{"retry a round", []string{"retry", someBatch, "--from-round", "2"}, "POST /v1/batches/" + someBatch + `/retry {"from_round":2}`, "", 0},
		{"retry the last round", []string{"retry", someBatch}, "POST /v1/batches/" + someBatch + `/retry {"from_round":3}`, "", 0},
		{
			"retry some items",
			[]string{"retry", someBatch, "--ids", "A,B", "--ids", "C", "--expires-in", "90m"},
			"POST /v1/batches/" + someBatch + `/retry {"from_round":3,"ids":["A","B","C"],"expires_in":"1h30m0s"}`, "", 0,
		},
		{"retry items by place", []string{"retry", someBatch, "--indexes", "0,7"}, "POST /v1/batches/" + someBatch + `/retry {"from_round":3,"indexes":[0,7]}`, "", 0},
		{"retry after somebody else", []string{"retry", someBatch}, "POST /v1/batches/" + someBatch + `/retry {"from_round":3}`, "wrong_round", exitConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			env := answering(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				switch {
				case r.Method == http.MethodGet: // to learn the round
					io.WriteString(w, aBatch("completed", 3, 1, 1))
					return
				case tt.code == "gone":
					problem(w, http.StatusGone, tt.code)
				case tt.code != "":
					problem(w, http.StatusConflict, tt.code)
				case r.Method == http.MethodDelete:
					w.WriteHeader(http.StatusNoContent)
				default:
					w.WriteHeader(http.StatusAccepted)
					io.WriteString(w, aBatch("running", 3, 1, 1))
				}
				got = r.Method + " " + r.URL.RequestURI() + " " + string(body)
			})
			stdout, stderr, code := invoke(t, env, tt.args...)
			if got != tt.want || code != tt.exit {
				t.Errorf("it sent %q and exits with %d, want %q and %d\n%s", got, code, tt.want, tt.exit, stderr)
			}
			if ok := strings.Contains(stdout, someBatch); ok != (tt.exit == 0) || tt.code != "" && !strings.Contains(stderr, tt.code) {
				t.Errorf("it says %q and %q", stdout, stderr)
			}
		})
	}

	t.Run("a retry whose connection breaks is made again under the same key", func(t *testing.T) {
		var calls atomic.Int32
		var keys [2]string
		env := answering(t, func(w http.ResponseWriter, r *http.Request) {
			n := calls.Add(1)
			if n > 2 {
				io.WriteString(w, aBatch("completed", 2, 2, 0))
				return
			}
			keys[n-1] = r.Header.Get("Idempotency-Key")
			if n == 1 {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusAccepted)
			io.WriteString(w, aBatch("running", 2, 1, 1))
		})
		stdout, stderr, code := invoke(t, env, "retry", someBatch, "--from-round", "1", "--wait")
		if code != 0 || keys[0] == "" || keys[0] != keys[1] {
			t.Errorf("exit %d, keys %q: %s", code, keys, stderr)
		}
		if !strings.Contains(stdout, "completed (round 2)") || !strings.Contains(stderr, "trying again") {
			t.Errorf("it says %q and %q", stdout, stderr)
		}
	})

	t.Run("a retry that is waited for fails if items do", func(t *testing.T) {
		env := answering(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, aBatch("completed", 2, 1, 1)) })
		if _, stderr, code := invoke(t, env, "retry", someBatch, "--wait"); code != exitFailedItems || !strings.Contains(stderr, "1 failed") {
			t.Errorf("exit %d: %s", code, stderr)
		}
	})
}

func TestList(t *testing.T) {
	var asked []string
	env := answering(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RawQuery)
		if r.URL.Query().Get("cursor") == "" {
			fmt.Fprintf(w, `{"data":[%s,%s],"next":"c"}`, aBatch("running", 1, 3, 4), aBatch("completed", 1, 5, 0))
			return
		}
		fmt.Fprintf(w, `{"data":[%s],"next":null}`, aBatch("canceled", 1, 0, 1))
	})
	for _, tt := range []struct {
		args  []string
		query string // first asked for
		lines int
		note  string
	}{
		{nil, "limit=51", 4, ""},
		{[]string{"--limit", "2"}, "limit=3", 3, "there are more"},
		{[]string{"--all", "--output", "json"}, "limit=200", 3, ""},
		{
			[]string{"--status", "running", "--processor", "p", "--metadata", "run=a=b", "--metadata", "x=1", "--created-after", "2026-01-31T12:00:00Z", "--created-before", "2026-02-01T01:00:00+01:00"},
			"created_after=2026-01-31T12%3A00%3A00Z&created_before=2026-02-01T00%3A00%3A00Z&limit=51&metadata.run=a%3Db&metadata.x=1&processor=p&status=running", 4, "",
		},
	} {
		asked = nil
		stdout, stderr, code := invoke(t, env, append([]string{"list"}, tt.args...)...)
		if code != 0 || asked[0] != tt.query || strings.Count(stdout, "\n") != tt.lines || !strings.Contains(stderr, tt.note) || tt.note == "" && stderr != "" {
			t.Errorf("list %q asked for %q, exit %d:\n%s%s", tt.args, asked, code, stdout, stderr)
		}
	}
	for _, args := range [][]string{
		{"--status", "lost"},
		{"--metadata", "x"},
		{"--created-after", "soon"},
		{"--limit", "0"},
		{"--all", "--limit", "3"},
		{"--created-after", "24h", "--created-before", "48h"},
	} {
		if _, stderr, code := invoke(t, env, append([]string{"list"}, args...)...); code != exitUsage {
			t.Errorf("list %q: exit %d: %s", args, code, stderr)
		}
	}
}
