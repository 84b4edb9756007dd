package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A forwarder passes webhooks on to the receiver that somebody is writing.
type forwarder struct {
	target *url.URL
	client *http.Client
}

// A reply is what the target answered.
type reply struct {
	status int
	header http.Header
	body   []byte
}

const (
	forwardPatience = 15 * time.Second // Callbatch waits no longer either
	mostReply       = 64 << 10         // bytes of a body: Callbatch reads fewer
)

func newForwarder(raw string) (*forwarder, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf(`--forward-to must look like "http://127.0.0.1:3000/hooks"`)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.DisableCompression = true
	transport.MaxResponseHeaderBytes = 32 << 10
	return &forwarder{target: u, client: &http.Client{
		Transport:     transport,
		Timeout:       forwardPatience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// close lets go of idle connections.
func (f *forwarder) close() { f.client.CloseIdleConnections() }

// pass sends on what came with req, unchanged, and returns what the target
// answered. Of a long body it returns the beginning.
func (f *forwarder) pass(req *http.Request, body []byte) (reply, error) {
	out, err := http.NewRequestWithContext(req.Context(), http.MethodPost, f.target.String(), bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	out.Header = endToEnd(req.Header)
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "") // none, rather than Go's
	}
	res, err := f.client.Do(out)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the URL
		}
		return reply{}, err
	}
	defer res.Body.Close()
	if res.StatusCode < 200 { // its body is the connection itself
		return reply{}, fmt.Errorf("the answer is %d", res.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, mostReply))
	return reply{res.StatusCode, endToEnd(res.Header), text}, err
}

// write answers as the target did.
func (r reply) write(w http.ResponseWriter) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body) // whoever does not take it has gone
}

// endToEnd returns the headers that are not for one connection only.
func endToEnd(h http.Header) http.Header {
	out := h.Clone()
	for _, list := range h.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			out.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range []string{
		"Connection", "Content-Length", "Expect", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	} {
		out.Del(name)
	}
	return out
}
