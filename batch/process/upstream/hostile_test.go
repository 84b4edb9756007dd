package upstream_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/process/upstream"
)

// A wire is a connection as a service sees it that speaks HTTP by hand.
type wire struct {
	*net.TCPConn
	in *bufio.Reader
	n  int // which connection this is, from 1
}

// request reads one request whole, and returns its idempotency key.
func (w *wire) request() (key string, err error) {
	r, err := http.ReadRequest(w.in)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return r.Header.Get("Idempotency-Key"), err
}

// reset ends the connection with RST instead of FIN.
func (w *wire) reset() {
	w.SetLinger(0)
	w.Close()
}

// speak returns the URL of a service that does with each connection what h
// says, and closes it. The test does not end before every h has.
func speak(t *testing.T, h func(w *wire)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w := &wire{c.(*net.TCPConn), bufio.NewReader(c), n}
			conns.Go(func() {
				defer w.Close()
				h(w)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return "http://" + l.Addr().String()
}

// untilGone waits for the other side to hang up.
func (w *wire) untilGone() { io.Copy(io.Discard, w.in) }

func TestACallIsOneRequest(t *testing.T) {
	t.Run("of an item", func(t *testing.T) { oneRequest(t, upstream.Options{}, `1`) })
	t.Run("of an envelope", func(t *testing.T) { oneRequest(t, upstream.Options{Envelope: true}, `{"method":"PUT","body":1}`) })
	t.Run("that net/http would repeat by itself", func(t *testing.T) { oneRequest(t, upstream.Options{Envelope: true}, `{"method":"GET"}`) })
	t.Run("without a body", func(t *testing.T) { oneRequest(t, upstream.Options{Envelope: true}, `{}`) })
}

func oneRequest(t *testing.T, o upstream.Options, item string) {
	for name, end := range map[string]func(*wire){
		"closed": func(w *wire) { w.Close() },
		"reset":  (*wire).reset,
	} {
		t.Run("on a kept connection that is "+name+" under it", func(t *testing.T) {
			var mu sync.Mutex
			seen := map[string]int{}
			url := speak(t, func(w *wire) {
				for n := 1; ; n++ {
					key, err := w.request()
					if err != nil {
						return
					}
					mu.Lock()
					seen[key]++
					mu.Unlock()
					if w.n == 1 && n == 2 {
						end(w)
						return
					}
					io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			o.URL = url
			p := open(t, o)
			first, second, third := call(item), call(item), call(item)
			first.Index, second.Index, third.Index = 1, 2, 3
			if _, err := p.Process(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			_, err := p.Process(t.Context(), second)
			if f := failureOf(t, err); f.Code != batch.CodeUpstreamUnreachable || !f.Retry || !f.Down {
				t.Errorf("got %+v", f)
			}
			if _, err := p.Process(t.Context(), third); err != nil {
				t.Errorf("the next call does not take a new connection: %v", err)
			}
			p.Close()
			mu.Lock()
			defer mu.Unlock()
			for _, c := range []batch.Call{first, second, third} {
				if seen[c.Key()] != 1 {
					t.Errorf("item %d was sent %d times, want once: %v", c.Index, seen[c.Key()], seen)
				}
			}
		})
	}
}

func TestAnAnswerThatDoesNotCome(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, c := range []struct {
		name, code string
		down       bool
		h          func(w *wire)
	}{
		{"hangs before its header", batch.CodeTimeout, true, func(w *wire) {}},
		{"hangs inside its header", batch.CodeTimeout, true, func(w *wire) { io.WriteString(w, head) }},
		{"hangs inside its body", batch.CodeTimeout, false, func(w *wire) { io.WriteString(w, head+"Content-Length: 9\r\n\r\n[1,") }},
		{"drips", batch.CodeTimeout, false, func(w *wire) {
			io.WriteString(w, head+"\r\n[")
			for {
				if _, err := io.WriteString(w, " "); err != nil {
					return
				}
				time.Sleep(time.Millisecond) // the pace of the drip, not a wait
			}
		}},
		{"is reset before its header", batch.CodeUpstreamUnreachable, true, (*wire).reset},
		{"is closed before its header", batch.CodeUpstreamUnreachable, true, func(w *wire) { w.Close() }},
		{"is shorter than it said", batch.CodeUpstreamUnreachable, false, func(w *wire) {
			io.WriteString(w, head+"Content-Length: 9\r\n\r\n[1]")
			w.Close()
		}},
		{"lacks its last chunk", batch.CodeUpstreamUnreachable, false, func(w *wire) {
			io.WriteString(w, head+"Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n")
			w.Close()
		}},
		{"has broken chunks", batch.CodeUpstreamUnreachable, false, func(w *wire) {
			io.WriteString(w, head+"Transfer-Encoding: chunked\r\n\r\nzz\r\n[1]\r\n")
		}},
		{"says two lengths", batch.CodeUpstreamUnreachable, true, func(w *wire) {
			io.WriteString(w, head+"Content-Length: 3\r\nContent-Length: 4\r\n\r\n[1]")
		}},
		{"is not HTTP", batch.CodeUpstreamUnreachable, true, func(w *wire) { io.WriteString(w, "SSH-2.0-OpenSSH_9.6\r\n") }},
		{"has 10,000 headers", batch.CodeUpstreamUnreachable, true, func(w *wire) {
			io.WriteString(w, head)
			for i := range 10_000 {
				fmt.Fprintf(w, "X-%d: %d\r\n", i, i)
			}
			io.WriteString(w, "Content-Length: 2\r\n\r\n{}")
		}},
		{"is a flood of 1xx", batch.CodeUpstreamUnreachable, true, func(w *wire) {
			for {
				if _, err := io.WriteString(w, "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"); err != nil {
					return
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := speak(t, func(w *wire) {
				if _, err := w.request(); err == nil {
					c.h(w)
					w.untilGone()
				}
			})
			limit := patience
			if c.code == batch.CodeTimeout {
				limit = 200 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			out, err := open(t, upstream.Options{URL: url}).Process(ctx, call(`{}`))
			f := failureOf(t, err)
			if f.Code != c.code || f.Down != c.down || !f.Retry || out != nil {
				t.Errorf("got %s, %+v, want %s, down %v", out, f, c.code, c.down)
			}
		})
	}
}

func TestAnAnswerThatIsResetInsideItsBody(t *testing.T) {
	arrived := make(chan struct{})
	url := speak(t, func(w *wire) {
		w.request()
		io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1,")
		<-arrived
		w.reset()
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { close(arrived) }})
	_, err := open(t, upstream.Options{URL: url}).Process(ctx, call(`{}`))
	if f := failureOf(t, err); f.Code != batch.CodeUpstreamUnreachable || !f.Retry || f.Down {
		t.Errorf("got %+v", f)
	}
}

func TestAServiceThatIsNotThere(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	_, err := open(t, upstream.Options{URL: s.URL}).Process(t.Context(), call(`{}`))
	f := failureOf(t, err)
	if f.Code != batch.CodeUpstreamUnreachable || !f.Retry || !f.Down || !strings.HasSuffix(f.Message, "it refuses connections") {
		t.Errorf("got %+v", f)
	}
	if strings.Contains(f.Message, s.Listener.Addr().String()) {
		t.Errorf("the message shows where the service is: %s", f.Message)
	}
}

func TestAStopFromOutsideIsNoFailure(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	url := speak(t, func(w *wire) {
		w.request()
		stop()
		w.untilGone()
	})
	if _, err := open(t, upstream.Options{URL: url}).Process(ctx, call(`{}`)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestAHugeAnswerIsNotRead(t *testing.T) {
	for name, head := range map[string]string{
		"that says so":    "Content-Length: 1073741824\r\n\r\n",
		"without saying":  "\r\n",
		"that is refused": "refused",
	} {
		t.Run(name, func(t *testing.T) {
			written := make(chan int, 1)
			url := speak(t, func(w *wire) {
				w.request()
				status := "200 OK\r\n"
				if head == "refused" {
					status, head = "422 No\r\n", "\r\n"
				}
				io.WriteString(w, "HTTP/1.1 "+status+"Content-Type: application/json\r\n"+head)
				n := 0
				for block := bytes.Repeat([]byte("1"), 64<<10); n < 1<<30; {
					k, err := w.Write(block)
					if n += k; err != nil {
						break
					}
				}
				written <- n
			})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := open(t, upstream.Options{URL: url, MaxOutput: 1 << 10}).Process(ctx, call(`{}`))
			f := failureOf(t, err)
			if f.Code != batch.CodeOutputTooLarge && f.UpstreamStatus != 422 || f.Retry || len(f.Body) > 4096 {
				t.Errorf("got %s", f)
			}
			if n := <-written; n > 64<<20 { // what sockets hold is the system's; the rest must never leave
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

func TestACodingThatWasNotAskedForIsNotUndone(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(make([]byte, 10<<20))
	z.Close()
	for _, coding := range []string{"gzip", "br", "gzip, gzip"} {
		header := http.Header{"Content-Type": {"image/png"}, "Content-Encoding": {coding}}
		_, err := open(t, upstream.Options{URL: answer(t, 200, header, bomb.String())}).Process(t.Context(), call(`{}`))
		if f := failureOf(t, err); f.Code != batch.CodeBadOutput || f.Retry {
			t.Errorf("%s: got %s", coding, f)
		}
		_, err = open(t, upstream.Options{URL: answer(t, 500, header, bomb.String())}).Process(t.Context(), call(`{}`))
		if f := failureOf(t, err); f.UpstreamStatus != 500 || f.Body != "" {
			t.Errorf("%s: got %+v", coding, f)
		}
	}
	header := http.Header{"Content-Type": {"application/json"}, "Content-Encoding": {"identity"}}
	if out, err := open(t, upstream.Options{URL: answer(t, 200, header, "{}")}).Process(t.Context(), call(`{}`)); string(out) != "{}" {
		t.Errorf("identity is no coding: got %s, %v", out, err)
	}
}

func TestARefusalStandsThoughItsBodyDoesNotEnd(t *testing.T) {
	for _, status := range []string{"101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade", "422 No"} {
		url := speak(t, func(w *wire) {
			w.request()
			io.WriteString(w, "HTTP/1.1 "+status+"\r\n\r\nbecause")
			w.untilGone()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := open(t, upstream.Options{URL: url}).Process(ctx, call(`{}`))
		cancel()
		if f := failureOf(t, err); !strings.HasPrefix(status, fmt.Sprint(f.UpstreamStatus)) || f.Retry {
			t.Errorf("%s: got %+v", status, f)
		}
	}
}

func TestAnAnswerCountsThoughTheItemIsNotAllSent(t *testing.T) {
	item := []byte(`"` + strings.Repeat("x", 32<<20) + `"`) // more than sockets hold
	url := speak(t, func(w *wire) {
		if _, err := http.ReadRequest(w.in); err == nil {
			io.WriteString(w, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
			w.CloseWrite()
			w.untilGone()
		}
	})
	_, err := open(t, upstream.Options{URL: url}).Process(t.Context(), batch.Call{Item: item, Attempt: 1})
	if f := failureOf(t, err); f.UpstreamStatus != 413 || f.Body != "no" || f.Retry {
		t.Errorf("got %+v", f)
	}
}
