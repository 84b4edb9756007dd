package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// streams answers with a stream of events that says text and then stays open,
// unless it breaks.
func streams(text string, breaks bool) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		in, out := io.Pipe()
		go func() {
			io.WriteString(out, text)
			if !breaks {
				<-r.Context().Done()
			}
			out.CloseWithError(io.ErrUnexpectedEOF)
		}()
		return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: in}, nil
	}
}

// asked answers as then does to a request it has looked at.
func asked(t *testing.T, path, last string, then func(*http.Request) (*http.Response, error)) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if r.URL.RequestURI() != path || r.Header.Get("Last-Event-ID") != last {
			t.Errorf("it asked for %s from %q on, want %s from %q", r.URL.RequestURI(), r.Header.Get("Last-Event-ID"), path, last)
		}
		return then(r)
	}
}

func TestWatch(t *testing.T) {
	const running, completed = `{"id":"bat_1","status":"running"}`, `{"id":"bat_1","status":"completed"}`
	event := func(id, what, data string) string {
		return "id: " + id + "\nevent: " + what + "\ndata: " + data + "\n\n"
	}
	down := func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }
	type step = func(*http.Request) (*http.Response, error)

	for _, tt := range []struct {
		name  string
		id    string
		most  int // to be looked at
		steps func(*testing.T) []step
		want  []string
		err   string
	}{
		{"one batch, to its end", "bat_1", 9, func(t *testing.T) []step {
			return []step{asked(t, "/v1/batches/bat_1/events", "", streams(": hello\n\n"+event("1", "batch.progress", running)+event("2", "batch.completed", completed), false))}
		}, []string{"bat_1 running", "bat_1 completed"}, ""},
		{"a connection that breaks goes on where it was", "bat_1", 9, func(t *testing.T) []step {
			return []step{
				streams(event("a", "batch.progress", running), true), down, says(503, `{"code":"unavailable"}`, "Retry-After", "5"),
				asked(t, "/v1/batches/bat_1/events", "a", streams(event("b", "batch.completed", completed), true)),
			}
		}, []string{"bat_1 running", "bat_1 completed"}, ""},
		{"what is not an event is passed over", "bat_1", 9, func(t *testing.T) []step {
			return []step{streams("data: hello\n\ndata: {}\n\n"+event("2", "batch.completed", completed), false)}
		}, []string{"bat_1 completed"}, ""},
		{"a server without events is asked instead", "bat_1", 9, func(t *testing.T) []step {
			return []step{says(404, `{"code":"not_found"}`), asked(t, "/v1/batches/bat_1", "", says(200, running)), says(200, completed)}
		}, []string{"bat_1 running", "bat_1 completed"}, ""},
		{"so is one behind a proxy that gives something else", "bat_1", 9, func(t *testing.T) []step {
			return []step{says(200, "<html>", "Content-Type", "text/html"), asked(t, "/v1/batches/bat_1", "", says(200, completed))}
		}, []string{"bat_1 completed"}, ""},
		{"or that keeps all events", "bat_1", 9, func(t *testing.T) []step {
			return []step{streams("", false), asked(t, "/v1/batches/bat_1", "", says(200, completed))}
		}, []string{"bat_1 completed"}, ""},
		{"a batch that is not there", "bat_1", 9, func(t *testing.T) []step {
			return []step{says(404, `{"code":"not_found"}`), says(404, `{"code":"not_found","detail":"no such batch"}`)}
		}, nil, "no such batch"},
		{"a key that is none", "", 9, func(t *testing.T) []step {
			return []step{says(401, `{"code":"unauthorized","detail":"no key"}`)}
		}, nil, "no key"},
		{"all, to which no end is the last", "", 3, func(t *testing.T) []step {
			return []step{
				asked(t, "/v1/events", "", streams(event("4", "batch.progress", `{"id":"bat_3","status":"paused"}`)+event("5", "batch.progress", running), true)),
				asked(t, "/v1/events", "5", streams(event("6", "batch.completed", completed), false)),
			}
		}, []string{"bat_3 paused", "bat_1 running", "bat_1 completed"}, ""},
		{"all, of a server that is asked", "", 4, func(t *testing.T) []step {
			return []step{
				says(405, `{"code":"method_not_allowed"}`),
				says(200, `{"data":[{"id":"bat_2","status":"expired"},`+running+`]}`), down,
				says(200, `{"data":[{"id":"bat_2","status":"expired"},`+running+`]}`),
				says(200, `{"data":[{"id":"bat_4","status":"completed"},{"id":"bat_2","status":"running"},`+completed+`]}`),
			}
		}, []string{"bat_1 running", "bat_1 completed", "bat_2 running", "bat_4 completed"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scripted{steps: tt.steps(t)}
				c, err := New(Options{HTTP: &http.Client{Transport: s}})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				var failed error
				for b, err := range c.Watch(t.Context(), tt.id, WatchOptions{}) {
					if failed = err; err != nil {
						break
					}
					if got = append(got, b.ID+" "+b.Status); len(got) == tt.most {
						break
					}
				}
				if diff := cmp.Diff(tt.want, got); diff != "" || len(s.steps) > 0 {
					t.Errorf("%d steps are left; (-want +got):\n%s", len(s.steps), diff)
				}
				if tt.err == "" && failed != nil || tt.err != "" && (failed == nil || !strings.Contains(failed.Error(), tt.err)) {
					t.Errorf("it fails with %v", failed)
				}
			})
		})
	}

	t.Run("a stream that falls silent is begun anew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{steps: []step{
				streams(event("a", "batch.progress", running), false),
				asked(t, "/v1/batches/bat_1/events", "a", streams(event("b", "batch.completed", completed), false)),
			}}
			c, _ := New(Options{HTTP: &http.Client{Transport: s}})
			begun, lost := time.Now(), 0
			for _, err := range c.Watch(t.Context(), "bat_1", WatchOptions{Lost: func(error) { lost++ }}) {
				if err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(begun); took < silence || took > silence+time.Second || lost != 1 {
				t.Errorf("it took %s, and the connection was lost %d times", took, lost)
			}
		})
	})
	t.Run("its caller ends it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := New(Options{HTTP: &http.Client{Transport: &scripted{steps: []step{streams(event("a", "batch.progress", running), false)}}}})
			enough := errors.New("enough")
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, enough)
			defer cancel()
			var last error
			for _, err := range c.Watch(ctx, "bat_1", WatchOptions{}) {
				last = err
			}
			if !errors.Is(last, enough) {
				t.Errorf("%v", last)
			}
		})
	})
}
