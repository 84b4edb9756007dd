package callback

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/callbatch/callbatch/callback/guard"
)

// Bounds of a [Sender] that is told nothing else, and of what it reads.
const (
	DefaultTimeout        = 15 * time.Second // of a whole attempt
	defaultMaxIdlePerHost = 64
	maxIdle               = 1024             // connections kept open in all; a file descriptor each
	idleTimeout           = 30 * time.Second // shorter than what common receivers grant, so that we close first
	maxResponseHeader     = 32 << 10
)

// Options of a Sender. The zero value works.
type Options struct {
	// Policy says where a callback may point; nil means the strictest.
	Policy *guard.Policy

	// Timeout of a whole attempt, from the name's lookup to the last byte read;
	// 0 means 15 s. A receiver that hangs holds a delivery slot that long.
	Timeout time.Duration

	// Version is shown to receivers in the user-agent header; "" means "dev".
	Version string

	// RootCAs to trust; nil means the system's.
	RootCAs *x509.CertPool

	// MaxIdlePerHost is how many connections to one host stay open between
	// attempts, a file descriptor each; 0 means 64.
	MaxIdlePerHost int

	// DialContext replaces the guarded dial, and with it the judgement of
	// addresses: for tests that reach their receiver over a pipe. URLs are
	// still held to Policy.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Sender makes attempts. It is safe for concurrent use. A Sender keeps
// connections open that its policy permitted, so a changed policy needs a new
// one.
type Sender struct {
	client  *retryablehttp.Client
	trip    oneTrip
	policy  *guard.Policy
	timeout time.Duration
	agent   string
}

// NewSender returns a Sender, to be closed when no longer needed.
func NewSender(o Options) *Sender {
	if o.Policy == nil {
		o.Policy = new(guard.Policy)
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	trip := oneTrip{newTransport(o)}
	return &Sender{client: newClient(trip), trip: trip, policy: o.Policy, timeout: o.Timeout, agent: "Callbatch/" + o.Version}
}

// Close closes the connections that are idle, and gives up dials nobody waits
// for. Attempts under way are not disturbed; the caller has ended them before.
func (s *Sender) Close() { s.trip.transport.CloseIdleConnections() }

// newTransport speaks HTTP/1.1 only: an attempt then has its connection to
// itself, and nothing (HTTP/2 re-sends refused streams) tries again unasked.
func newTransport(o Options) *http.Transport {
	dial := o.DialContext
	if dial == nil {
		dial = (&guard.Dialer{Policy: o.Policy, Timeout: o.Timeout}).DialContext
	}
	if o.MaxIdlePerHost <= 0 {
		o.MaxIdlePerHost = defaultMaxIdlePerHost
	}
	return &http.Transport{
		Proxy:                  nil, // one from the environment would dial on our behalf, unguarded
		DialContext:            metered(dial),
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    o.Timeout,
		DisableCompression:     true, // so that 16 KiB read are 16 KiB kept
		MaxResponseHeaderBytes: maxResponseHeader,
		MaxIdleConns:           max(maxIdle, o.MaxIdlePerHost),
		MaxIdleConnsPerHost:    o.MaxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
	}
}

// newClient makes go-retryablehttp do one attempt and nothing else: no second
// try, no sleep, no log, no error text of its own.
func newClient(trip oneTrip) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: &http.Client{
			Transport:     trip,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Logger:       nil, // it would log URLs with their query
		RetryMax:     0,
		CheckRetry:   func(context.Context, *http.Response, error) (bool, error) { return false, nil },
		Backoff:      func(time.Duration, time.Duration, int, *http.Response) time.Duration { return 0 },
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
}

// oneTrip hides two things from the clients above it: CloseIdleConnections,
// which go-retryablehttp calls on any failure, to the loss of every other
// host's connections; and the target of a redirect, over which http.Client
// fails if it does not parse. The latter is kept under its lower-case name.
// And it refuses what net/http reads as a status though it is none, as 000.
type oneTrip struct{ transport *http.Transport }

func (t oneTrip) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 100 {
		res.Body.Close()
		return nil, errNoStatus
	}
	if location, ok := res.Header["Location"]; ok {
		delete(res.Header, "Location")
		res.Header[hiddenLocation] = location
	}
	return res, nil
}

const hiddenLocation = "location"

var errNoStatus = errors.New("the status is not of three digits")

// Send makes one attempt. It returns when the answer is read, the timeout is
// over or ctx is done, whichever comes first. An attempt that ctx ends before
// an answer came is Interrupted: it does not count, though the receiver may
// have seen it.
func (s *Sender) Send(ctx context.Context, m Message) (r Result) {
	r.Started = time.Now()
	defer func() { r.Took.Total = time.Since(r.Started) }()
	if _, err := s.policy.CheckURL(m.URL); err != nil {
		r.fail(describe(err, unsent))
		return r
	}

	t := &tracker{started: r.Started}
	attempt, cancel := context.WithTimeout(httptrace.WithClientTrace(ctx, t.hooks()), s.timeout)
	defer cancel()
	req, err := retryablehttp.NewRequestWithContext(attempt, http.MethodPost, m.URL, m.Body)
	if err != nil {
		r.fail(describe(err, unsent))
		return r
	}
	headers := s.headers(m, r.Started)
	req.Header, r.RequestHeaders = headers, masked(headers, m.Headers)

	res, err := s.client.Do(req)
	r.Took, r.RemoteAddr, r.Connected = t.summary()
	switch {
	case err == nil && t.tooEarly():
		res.Body.Close()
		r.fail(CategoryConnect, "an answer came before the request")
	case err == nil:
		defer res.Body.Close()
		r.answered(res, echoes(headers, req.URL.RawQuery, m.Headers))
	case ctx.Err() != nil:
		r.interrupted()
	default:
		r.fail(describe(err, t.stage()))
		r.SpokeTLS = spokeTLS(err)
	}
	return r
}

// answered takes over what the receiver said.
func (r *Result) answered(res *http.Response, credentials []string) {
	r.Status = res.StatusCode
	r.Verdict, r.Category, r.Detail = judge(res)
	if r.Verdict == Retry {
		r.RetryAfter = retryAfter(res, time.Now())
	}
	r.ResponseHeaders = excerptHeaders(res.Header, credentials)
	r.ResponseBody, r.Truncated = excerptBody(res, credentials)
}

func (r *Result) interrupted() {
	r.Verdict, r.Category, r.Detail = Interrupted, CategoryInterrupted, "cut short by this server; not counted"
}

// fail records why no answer came.
func (r *Result) fail(category, detail string) {
	r.Verdict, r.Category, r.Detail = Retry, category, detail
	if category == CategoryBlocked {
		r.Verdict = Refused
	}
}
