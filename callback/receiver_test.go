package callback_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/callbatch/callbatch/callback"
	"github.com/callbatch/callbatch/callback/guard"
	"github.com/callbatch/callbatch/callback/signature"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a server that keeps what it was sent and counts connections.
type receiver struct {
	*httptest.Server
	mu          sync.Mutex
	requests    []*http.Request
	bodies      [][]byte
	connections int
}

// receive starts a receiver that answers with handle; nil answers 204.
func receive(t *testing.T, handle http.HandlerFunc) *receiver {
	t.Helper()
	r := prepare(handle)
	r.Start()
	t.Cleanup(r.Close)
	return r
}

// receiveTLS is receive over https.
func receiveTLS(t *testing.T, handle http.HandlerFunc) *receiver {
	t.Helper()
	r := prepare(handle)
	r.Config.ErrorLog = silent
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func prepare(handle http.HandlerFunc) *receiver {
	r := new(receiver)
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.requests, r.bodies = append(r.requests, req), append(r.bodies, body)
		r.mu.Unlock()
		if handle == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		handle(w, req)
	}))
	r.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.connections++
		}
	}
	return r
}

// counts returns how many requests and connections came.
func (r *receiver) counts() (requests, connections int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests), r.connections
}

// rawReceiver accepts connections and lets talk answer each in raw bytes, once
// the request's first bytes have come. It returns its URL.
func rawReceiver(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				conn.Read(make([]byte, 64<<10))
				talk(conn)
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return "http://" + l.Addr().String()
}

// drip writes first at once and then again every second, the last text over
// and over, until the other side is gone.
func drip(texts ...string) func(net.Conn) {
	return func(conn net.Conn) {
		for i := 0; ; i++ {
			if _, err := io.WriteString(conn, texts[min(i, len(texts)-1)]); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
}

// flood writes text again and again until the other side is gone.
func flood(text string) func(net.Conn) {
	return func(conn net.Conn) {
		for {
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	}
}

// untilClosed returns once the other side is gone.
func untilClosed(conn net.Conn) { io.Copy(io.Discard, conn) }

// local permits this machine's receivers on any port.
func local() *guard.Policy {
	return &guard.Policy{AllowHTTP: true, AnyPort: true, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
}

// sender returns one that may send to this machine, if o says nothing else.
func sender(t testing.TB, o callback.Options) *callback.Sender {
	t.Helper()
	if o.Policy == nil {
		o.Policy = local()
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute // the machine may be slow; no test waits for it
	}
	s := callback.NewSender(o)
	t.Cleanup(s.Close)
	return s
}

func message(url string) callback.Message {
	return callback.Message{
		ID: "msg_01jdv7p3k5m2n4q6r8s0t2v4w6", Attempt: 1, URL: url,
		Body:    []byte(`{"type":"batch.completed","timestamp":"2026-11-23T12:00:00Z","data":{"batch_id":"bat_1"}}`),
		Secrets: []signature.Secret{signature.NewSecret()},
	}
}

// pipeTo returns a dial that reaches talk over a pipe.
func pipeTo(talk func(net.Conn)) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			theirs.Read(make([]byte, 64<<10))
			talk(theirs)
		}()
		return ours, nil
	}
}

// pipes is a network in memory: what its dial connects, its listener accepts.
// Inside a synctest bubble time passes over it.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	dialed []string
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial(ctx context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	p.dialed = append(p.dialed, address)
	p.mu.Unlock()
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }
