package callback

import (
	"context"
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"
)

// stage is how far an attempt got.
type stage uint8

const (
	unsent     stage = iota // no connection yet
	resolving               // under way, or where it failed
	connecting              // the same
	handshake               // the same
	connected               // the request may have been sent
	overflowed              // more came than response headers may take
)

// tracker follows one attempt through the hooks of net/http. A dial may
// outlive the attempt it was begun for, so hooks come at any time.
type tracker struct {
	started time.Time

	mu     sync.Mutex
	at     stage
	since  time.Time // when the step under way began
	took   Took
	remote net.Addr
	conn   *meteredConn
	before int64 // bytes conn had read when the attempt got it
}

func (t *tracker) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart:             func(httptrace.DNSStartInfo) { t.begin(resolving) },
		DNSDone:              func(i httptrace.DNSDoneInfo) { t.end(&t.took.DNS, i.Err) },
		ConnectStart:         t.connectStart,
		ConnectDone:          func(_, _ string, err error) { t.end(&t.took.Connect, err) },
		TLSHandshakeStart:    func() { t.begin(handshake) },
		TLSHandshakeDone:     func(_ tls.ConnectionState, err error) { t.end(&t.took.TLS, err) },
		GotConn:              t.gotConn,
		GotFirstResponseByte: t.firstByte,
	}
}

func (t *tracker) begin(s stage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at < connected {
		t.at, t.since = s, time.Now()
	}
}

// end adds to a step's time. A step that failed stays the stage.
func (t *tracker) end(step *time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at >= connected {
		return
	}
	*step += time.Since(t.since)
	if err == nil {
		t.at = unsent
	}
}

func (t *tracker) connectStart(network, address string) {
	t.begin(connecting)
	remote, err := net.ResolveTCPAddr(network, address) // an ip:port: nothing is looked up
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && t.at < connected {
		t.remote = remote
	}
}

func (t *tracker) gotConn(info httptrace.GotConnInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at, t.remote = connected, info.Conn.RemoteAddr()
	if info.Reused {
		t.took = Took{} // of a dial begun meanwhile
	}
	raw := info.Conn
	if secured, ok := raw.(*tls.Conn); ok {
		raw = secured.NetConn()
	}
	if t.conn, _ = raw.(*meteredConn); t.conn != nil {
		t.before = t.conn.read.Load()
	}
}

func (t *tracker) firstByte() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took.FirstByte = time.Since(t.started)
}

// summary returns the times, but the total, and the remote address.
func (t *tracker) summary() (took Took, remote string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.remote != nil {
		remote = t.remote.String()
	}
	return t.took, remote
}

// stage returns how far an attempt got that has failed.
func (t *tracker) stage() stage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil && t.conn.read.Load()-t.before >= maxResponseHeader {
		return overflowed
	}
	return t.at
}

// meteredConn counts what is read, for net/http's error about too many header
// bytes is known by its text only.
type meteredConn struct {
	net.Conn
	read atomic.Int64
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

func metered(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &meteredConn{Conn: conn}, nil
	}
}
