// Package upstream works on items by sending each to an HTTP service.
//
// A call is one request and never more: what may be tried again, and when, is
// for the engine to say. Whatever the service answers, or does not, ends as
// an output or as a [batch.Failure] of the closed list.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/callbatch/callbatch/batch"
)

// Defaults of [Options].
const (
	DefaultMaxOutput   = 1 << 20
	DefaultConcurrency = 64
)

// Times and sizes of the transport that nobody needs to set: the time of a
// whole attempt is the context's.
const (
	connectTime   = 10 * time.Second
	handshakeTime = 10 * time.Second
	idleTime      = 30 * time.Second // below what servers commonly keep a connection
	headerBytes   = 64 << 10         // most of an answer's header
)

// Options say where items go. Only URL is required.
type Options struct {
	URL     string            // http or https; user info becomes basic authorization
	Method  string            // POST, PUT or PATCH, since the item is the body; default POST
	Headers map[string]string // sent with every request; taken for secrets and shown nowhere

	// Envelope says that an item is {"method","path","headers","body"}, each of
	// which may be left out: what is sent, where below URL, and what besides
	// Headers, which win. The body is sent as the JSON it is, but a string as
	// its text where the item's content-type says that it is not JSON.
	Envelope bool

	MaxOutput   int            // bytes of one answer, and of the output made of it; default 1 MiB
	Concurrency int            // idle connections kept, best as many as calls at once; default 64
	RootCAs     *x509.CertPool // who may sign the service's certificate; default: the system's
	Version     string         // shown in user-agent; default "dev"
}

// A Processor sends items to one service, over connections of its own.
type Processor struct {
	template  *http.Request
	fixed     http.Header // what an envelope does not change
	envelope  bool
	mask      masker
	client    *retryablehttp.Client
	transport *http.Transport
	max       int
}

var _ batch.Processor = (*Processor)(nil)

// New returns a processor for the service, without connecting. Its errors
// name the option, and never show a URL or the value of a header.
func New(o Options) (*Processor, error) {
	if o.MaxOutput <= 0 {
		o.MaxOutput = DefaultMaxOutput
	}
	if o.Concurrency <= 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	template, fixed, err := newTemplate(o)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	tr := newTransport(o)
	return &Processor{
		template:  template,
		fixed:     fixed,
		envelope:  o.Envelope,
		mask:      newMasker(template),
		client:    newClient(tr),
		transport: tr,
		max:       o.MaxOutput,
	}, nil
}

// Close drops the connections nobody uses, and those in use once they are
// not. Calls may go on.
func (p *Processor) Close() { p.transport.CloseIdleConnections() }

func newTransport(o Options) *http.Transport {
	// HTTP/1.1 only: over HTTP/2 the transport repeats refused streams by
	// itself, and one lost connection would fail every call in flight.
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Transport{
		Protocols:              &http1,
		DialContext:            (&net.Dialer{Timeout: connectTime}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    handshakeTime,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    o.Concurrency,
		IdleConnTimeout:        idleTime,
		MaxResponseHeaderBytes: headerBytes,
	}
}

// newClient returns a client that makes one attempt and hands back what came
// of it.
func newClient(tr *http.Transport) *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient:   &http.Client{Transport: plain{tr}},
		CheckRetry:   func(context.Context, *http.Response, error) (bool, error) { return false, nil },
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
}

// plain keeps two things of a transport from the clients above it:
// CloseIdleConnections, which go-retryablehttp calls after every fault,
// dropping connections that are fine; and the Location of an answer, without
// which http.Client neither follows a redirect nor trips over a broken one.
type plain struct{ to http.RoundTripper }

func (p plain) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := p.to.RoundTrip(r)
	if err == nil {
		resp.Header.Del("Location")
	}
	return resp, err
}

// Process sends the item once. A fault of the network, 408, 425, 429 and 5xx
// are worth another attempt; everything else is final.
func (p *Processor) Process(ctx context.Context, c batch.Call) ([]byte, error) {
	r, err := p.request(ctx, c)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(r)
	if err != nil {
		return nil, fault(ctx, err, false)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, p.refusal(resp)
	}
	return p.output(ctx, resp)
}
