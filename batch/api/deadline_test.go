package api

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// pipes is a listener whose connections are in memory, so that minutes pass
// in no time. They hold nothing: who writes waits for who reads.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// inMemory runs a test against a server whose clock it can wait for.
func inMemory(t *testing.T, name string, test func(t *testing.T, w *world, dial func() net.Conn), with ...func(*Options)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, o := newOptions(t, with)
			l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
			w.handler = New(o)
			server := HTTPServer(w.handler)
			served := make(chan error)
			go func() { served <- server.Serve(l) }()
			test(t, w, func() net.Conn {
				near, far := net.Pipe()
				l.conns <- far
				t.Cleanup(func() { near.Close() })
				return near
			})
			server.Close()
			if err := <-served; err != http.ErrServerClosed {
				t.Error(err)
			}
		})
	})
}

// answered reads one answer and returns its status.
func answered(t *testing.T, in *bufio.Reader) int {
	t.Helper()
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Error(err)
	}
	return res.StatusCode
}

// posting is the header of a submission of so many bytes.
func posting(w *world, size int) string {
	return fmt.Sprintf("POST /v1/batches?processor=price HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"+
		"Content-Length: %d\r\nAuthorization: Bearer %s\r\n\r\n", size, w.admin())
}

// kept fails the test unless so many batches were made and every other
// submission was dropped.
func (w *world) kept(batches int) {
	w.t.Helper()
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if len(w.store.batches) != batches || w.store.discarded+batches != w.store.staged {
		w.t.Errorf("%d batches, want %d; %d of %d stages discarded", len(w.store.batches), batches, w.store.discarded, w.store.staged)
	}
}

func TestSlowBodies(t *testing.T) {
	inMemory(t, "one that stalls is 408", func(t *testing.T, w *world, dial func() net.Conn) {
		c, start := dial(), time.Now()
		io.WriteString(c, posting(w, 1000)+"1\n")
		if got := answered(t, bufio.NewReader(c)); got != 408 || time.Since(start) > time.Minute {
			t.Errorf("answered %d after %s", got, time.Since(start))
		}
		synctest.Wait()
		w.kept(0)
	})
	inMemory(t, "one that drips is 408", func(t *testing.T, w *world, dial func() net.Conn) {
		c, start := dial(), time.Now()
		io.WriteString(c, posting(w, 1000))
		var drip sync.WaitGroup
		drip.Go(func() {
			for err := error(nil); err == nil; time.Sleep(time.Second) {
				_, err = io.WriteString(c, " ")
			}
		})
		if got := answered(t, bufio.NewReader(c)); got != 408 || time.Since(start) > time.Minute {
			t.Errorf("answered %d after %s", got, time.Since(start))
		}
		c.Close()
		drip.Wait()
		w.kept(0)
	})
	inMemory(t, "one that pauses and keeps up is accepted", func(t *testing.T, w *world, dial func() net.Conn) {
		const chunks = 50
		chunk := strings.Repeat("1\n", 4<<10)
		c := dial()
		io.WriteString(c, posting(w, chunks*len(chunk)))
		go func() {
			for range chunks {
				time.Sleep(25 * time.Second)
				io.WriteString(c, chunk)
			}
		}()
		if got := answered(t, bufio.NewReader(c)); got != 202 {
			t.Errorf("answered %d", got)
		}
		w.kept(1)
	})
	inMemory(t, "is not what it is called when the store takes its time", func(t *testing.T, w *world, dial func() net.Conn) {
		w.store.slowness = 5 * time.Minute
		c := dial()
		io.WriteString(c, posting(w, 2)+"1\n")
		if got := answered(t, bufio.NewReader(c)); got != 202 {
			t.Errorf("answered %d", got)
		}
		w.kept(1)
	})
	inMemory(t, "one that ends early is refused", func(t *testing.T, w *world, dial func() net.Conn) {
		c := dial()
		io.WriteString(c, posting(w, 1000)+"1\n")
		c.Close()
		synctest.Wait()
		w.kept(0)
		if log := w.log.String(); log != "" {
			t.Errorf("the log says %q", log)
		}
	})
	inMemory(t, "one that nobody reads holds up nothing", func(t *testing.T, w *world, dial func() net.Conn) {
		for path, want := range map[string]int{"/livez": 408, "/v1/batches": 401, "/none": 404} {
			c, start := dial(), time.Now()
			io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
			in := bufio.NewReader(c)
			if got := answered(t, in); got != want {
				t.Errorf("%s: answered %d, want %d", path, got, want)
			}
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 || time.Since(start) > time.Minute {
				t.Errorf("%s: %q, %v after %s", path, rest, err, time.Since(start))
			}
		}
	})
	inMemory(t, "that are headers are cut off", func(t *testing.T, w *world, dial func() net.Conn) {
		c, start := dial(), time.Now()
		var drip sync.WaitGroup
		drip.Go(func() {
			io.WriteString(c, "GET /livez HTTP/1.1\r\n")
			for err := error(nil); err == nil; time.Sleep(time.Second) {
				_, err = io.WriteString(c, "X: y\r\n")
			}
		})
		if b, err := io.ReadAll(c); err != nil || time.Since(start) > 10*time.Second {
			t.Errorf("%q, %v after %s", b, err, time.Since(start))
		}
		drip.Wait()
	})
	inMemory(t, "do not spoil the next request on their connection", func(t *testing.T, w *world, dial func() net.Conn) {
		c := dial()
		in := bufio.NewReader(c)
		for range 3 {
			io.WriteString(c, strings.Replace(posting(w, 2), "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1))
			if got := answered(t, in); got != 100 {
				t.Fatalf("answered %d", got)
			}
			time.Sleep(25 * time.Second)
			io.WriteString(c, "1\n")
			if got := answered(t, in); got != 202 {
				t.Fatalf("answered %d", got)
			}
			time.Sleep(50 * time.Second) // less than a connection may idle
		}
		w.kept(3)
	})
}

func TestRefusalsDoNotWaitForTheBody(t *testing.T) {
	for name, c := range map[string]struct {
		line, key, kind string
		want            int
	}{
		"without a key":     {"POST /v1/batches", "none", "application/x-ndjson", 401},
		"an unknown option": {"POST /v1/batches?colour=red", "", "application/x-ndjson", 422},
		"an unknown type":   {"POST /v1/batches", "", "text/plain", 415},
		"a wrong method":    {"DELETE /v1/batches", "", "application/x-ndjson", 405},
		"no such path":      {"POST /none", "", "application/x-ndjson", 404},
	} {
		for _, length := range []string{"Content-Length: 2000000", "Content-Length: 2", "Transfer-Encoding: chunked"} {
			for _, expect := range []string{"", "Expect: 100-continue\r\n"} {
				inMemory(t, name+", "+length+" "+expect, func(t *testing.T, w *world, dial func() net.Conn) {
					conn, start := dial(), time.Now()
					io.WriteString(conn, c.line+" HTTP/1.1\r\nHost: x\r\nContent-Type: "+c.kind+"\r\n"+length+"\r\n"+expect+
						"Authorization: Bearer "+cmp.Or(c.key, w.admin())+"\r\n\r\n")
					in := bufio.NewReader(conn)
					if got := answered(t, in); got != c.want || time.Since(start) > time.Second {
						t.Errorf("answered %d after %s, want %d", got, time.Since(start), c.want)
					}
					if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 || time.Since(start) > 2*lingerTime {
						t.Errorf("then %q, %v after %s", rest, err, time.Since(start))
					}
				})
			}
		}
	}
	inMemory(t, "nor for the rest of one that is broken", func(t *testing.T, w *world, dial func() net.Conn) {
		c, start := dial(), time.Now()
		io.WriteString(c, strings.Replace(posting(w, 2_000_000), "application/x-ndjson", "application/json", 1)+"[")
		if got := answered(t, bufio.NewReader(c)); got != 422 || time.Since(start) > time.Second {
			t.Errorf("answered %d after %s", got, time.Since(start))
		}
	})
	t.Run("and reach who sends it all first", func(t *testing.T) {
		w := newWorld(t)
		c := w.dial()
		body := strings.Repeat(" ", lingerBytes-1)
		_, err := fmt.Fprintf(c, "POST /v1/batches HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if err != nil {
			t.Fatal(err)
		}
		if got := answered(t, bufio.NewReader(c)); got != 401 {
			t.Errorf("answered %d", got)
		}
	})
}

func TestSlowReaders(t *testing.T) {
	// large keeps a batch whose results are some 50 MB.
	large := func(w *world) batch.ID {
		w.store.pageSize = 16
		id := w.store.put(w.tenants[0], 800, 0)
		output := `"` + strings.Repeat("x", 64<<10) + `"`
		w.store.change(id, func(b *fakeBatch) {
			for i := range b.items {
				b.finish(i, batch.ItemSucceeded, output)
			}
		})
		return id
	}
	ask := func(w *world, c net.Conn, id batch.ID) {
		io.WriteString(c, "GET /v1/batches/"+id.String()+"/results HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+w.admin()+"\r\n\r\n")
	}
	var seen observed
	inMemory(t, "that do not read are given up", func(t *testing.T, w *world, dial func() net.Conn) {
		ask(w, dial(), large(w))
		time.Sleep(time.Minute)
		synctest.Wait()
		if !seen.has("GET /v1/batches/{id}/results 499") {
			t.Errorf("after a minute: %q", seen.all)
		}
		if log := w.log.String(); log != "" {
			t.Errorf("the log says %q", log)
		}
	}, func(o *Options) { o.Observe = seen.add })
	inMemory(t, "that do not even read an answer without a body are given up", func(t *testing.T, w *world, dial func() net.Conn) {
		c := dial()
		fmt.Fprintf(c, "GET /v1/batches/%s HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\nAuthorization: Bearer %s\r\n\r\n",
			w.store.put(w.tenants[0], 1, 0), w.admin())
		time.Sleep(time.Minute)
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("after a minute: %q, %v", b, err)
		}
	})
	inMemory(t, "that go on reading get everything", func(t *testing.T, w *world, dial func() net.Conn) {
		c := dial()
		ask(w, c, large(w))
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		lines, part := 0, make([]byte, 32<<10)
		for {
			time.Sleep(5 * time.Second)
			n, err := io.ReadFull(res.Body, part)
			lines += bytes.Count(part[:n], []byte("\n"))
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if lines != 800 {
			t.Errorf("%d lines", lines)
		}
	})
}

// TestAClientThatLeavesBeforeTheAnswer may leave a batch, but only a whole
// one.
func TestAClientThatLeavesBeforeTheAnswer(t *testing.T) {
	w := newWorld(t)
	for range 20 {
		c := w.dial()
		io.WriteString(c, posting(w, 4)+"1\n2\n")
		c.Close()
	}
	w.server.Close()
	for id, b := range w.store.batches {
		if b.Items != 2 {
			t.Errorf("%s has %d items", id, b.Items)
		}
	}
	w.kept(len(w.store.batches))
}
