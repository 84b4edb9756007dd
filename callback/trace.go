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
	talk   *talk // nil without a connection
	early  bool  // whether an answer was there before the request
}

func (t *tracker) hooks() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn:              func(string) { t.restart() },
		DNSStart:             func(httptrace.DNSStartInfo) { t.begin(resolving) },
		DNSDone:              func(i httptrace.DNSDoneInfo) { t.end(resolving, &t.took.DNS, i.Err) },
		ConnectStart:         t.connectStart,
		ConnectDone:          func(_, _ string, err error) { t.end(connecting, &t.took.Connect, err) },
		TLSHandshakeStart:    func() { t.begin(handshake) },
		TLSHandshakeDone:     func(_ tls.ConnectionState, err error) { t.end(handshake, &t.took.TLS, err) },
		GotConn:              t.gotConn,
		GotFirstResponseByte: t.firstByte,
	}
}

// restart forgets a connection that was dead before a byte had left: net/http
// then takes another.
func (t *tracker) restart() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at, t.took, t.remote, t.talk = unsent, Took{}, nil, nil
}

func (t *tracker) begin(s stage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at < connected {
		t.at, t.since = s, time.Now()
	}
}

// end adds to a step's time. A step that failed stays the stage.
func (t *tracker) end(s stage, step *time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at != s {
		return
	}
	*step += time.Since(t.since)
	if err == nil {
		t.at = unsent
	}
}

// connectStart is called for connections to a name server, too. They belong to
// the step they serve, and where it is is nobody's business.
func (t *tracker) connectStart(network, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == resolving || t.at >= connected {
		return
	}
	t.at, t.since = connecting, time.Now()
	if remote, err := net.ResolveTCPAddr(network, address); err == nil { // an ip:port: nothing is looked up
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
	if conn, ok := raw.(*meteredConn); ok {
		t.talk = new(talk)
		conn.talk.Store(t.talk)
	}
}

func (t *tracker) firstByte() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took.FirstByte = time.Since(t.started)
	t.early = t.talk != nil && !t.talk.heard.Load()
}

// tooEarly reports whether the answer cannot be one to this request: it came
// before that, after the answer to another.
func (t *tracker) tooEarly() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.early
}

// summary returns the times, but the total, the remote address, and whether the
// connection to it was made.
func (t *tracker) summary() (took Took, remote string, made bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.remote != nil {
		remote = t.remote.String()
	}
	return t.took, remote, t.at == connected
}

// stage returns how far an attempt got that has failed.
func (t *tracker) stage() stage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.talk != nil && t.talk.read.Load() >= maxResponseHeader {
		return overflowed
	}
	return t.at
}

// talk is what one attempt said and heard over its connection.
type talk struct {
	read  atomic.Int64 // bytes
	asked atomic.Bool  // whether the request has begun to leave
	left  atomic.Bool  // whether a byte of it has
	heard atomic.Bool  // whether anything was read since asked
}

// meteredConn knows what net/http does not tell: that more came than headers
// may take (the error has no type), or an answer before its request. And it
// lets the answer decide.
type meteredConn struct {
	net.Conn
	talk atomic.Pointer[talk] // of the attempt that has it, or had it last; nil before
}

func (c *meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if talk := c.talk.Load(); talk != nil && n > 0 {
		talk.read.Add(int64(n))
		talk.heard.Store(talk.asked.Load())
	}
	return n, err
}

// Write hides an error in the middle of a request. A receiver may well answer
// before it has read a large body, and hang up; net/http would then report that
// it could not write, and lose the answer. What is read next tells what is true.
// Before the request's first byte there is no answer to lose, and net/http
// takes another connection.
func (c *meteredConn) Write(p []byte) (int, error) {
	talk := c.talk.Load()
	if talk == nil {
		return c.Conn.Write(p) // of a TLS handshake
	}
	talk.asked.Store(true)
	n, err := c.Conn.Write(p)
	if n > 0 {
		talk.left.Store(true)
	}
	if talk.left.Load() {
		return len(p), nil
	}
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
