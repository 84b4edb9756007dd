package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/net/http/httpguts"

	"github.com/callbatch/callbatch/batch"
)

// newTemplate returns what all requests have in common, and which of the
// headers the operator has set.
func newTemplate(o Options) (_ *http.Request, fixed http.Header, _ error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return nil, nil, errors.New("url: not an http or https URL with a host and without a fragment") // err would show it
	}
	method, err := parseMethod(o.Method)
	if err != nil {
		return nil, nil, err
	}
	header, err := parseHeaders(o.Headers)
	if err != nil {
		return nil, nil, err
	}
	r := &http.Request{Method: method, URL: u, Header: header}
	if u.User != nil {
		if header.Get("Authorization") != "" {
			return nil, nil, errors.New("headers: authorization is there twice, the url has user info")
		}
		password, _ := u.User.Password()
		r.SetBasicAuth(u.User.Username(), password)
		u.User = nil
	}
	fixed = header.Clone()
	header.Set("Accept-Encoding", "identity")
	setDefault(header, "Content-Type", "application/json")
	setDefault(header, "User-Agent", "Callbatch/"+o.Version)
	return r, fixed, nil
}

func setDefault(h http.Header, name, value string) {
	if h.Get(name) == "" {
		h.Set(name, value)
	}
}

func parseMethod(m string) (string, error) {
	switch m = strings.ToUpper(m); m {
	case "":
		return http.MethodPost, nil
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return m, nil
	default:
		return "", errors.New("method: the item is sent as a body, so it is POST, PUT or PATCH")
	}
}

// reserved are the headers that mean the connection, the body's form or the
// call, which are not the operator's to say.
var reserved = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Expect", "Host", "Idempotency-Key",
	"Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Idempotency-Key",
}

func isReserved(key string) bool {
	return slices.Contains(reserved, key) || strings.HasPrefix(key, "Callbatch-")
}

func parseHeaders(headers map[string]string) (http.Header, error) {
	h := make(http.Header, len(headers)+4)
	for name, value := range headers {
		key := http.CanonicalHeaderKey(name)
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return nil, fmt.Errorf("headers: %q is not a header name", name)
		case !httpguts.ValidHeaderFieldValue(value):
			return nil, fmt.Errorf("headers: the value of %s has characters a header cannot have", name)
		case isReserved(key):
			return nil, fmt.Errorf("headers: %s is set by the server itself", name)
		case h[key] != nil:
			return nil, fmt.Errorf("headers: %s is there twice", name)
		}
		h[key] = []string{value}
	}
	return h, nil
}

// request returns the one request of a call. Callbatch-Item is the item's
// index: unlike its id it is always fit for a header, and it is what the
// idempotency key says.
//
// net/http takes an Idempotency-Key for leave to send again by itself when a
// kept connection dies, but only if it can get the body anew. So there is no
// GetBody here, and always a body, however empty. It is a copy, since a
// transport may still read it after it handed over the answer, when the item is
// no longer ours; and it is a bytes.Reader, for which net/http sends header and
// body in one write.
func (p *Processor) request(ctx context.Context, c batch.Call) (*retryablehttp.Request, error) {
	r := p.template.WithContext(ctx)
	r.Header = make(http.Header, len(p.template.Header)+4)
	maps.Copy(r.Header, p.template.Header)
	body := c.Item
	if p.envelope {
		var err error
		if body, err = p.open(r, c.Item); err != nil {
			return nil, err
		}
	}
	values := []string{c.Key(), c.Batch.String(), strconv.Itoa(c.Index), strconv.Itoa(c.Attempt)}
	r.Header["Idempotency-Key"] = values[0:1:1]
	r.Header["Callbatch-Batch"] = values[1:2:2]
	r.Header["Callbatch-Item"] = values[2:3:3]
	r.Header["Callbatch-Attempt"] = values[3:4:4]
	r.Body = io.NopCloser(bytes.NewReader(bytes.Clone(body)))
	r.ContentLength = int64(len(body))
	return &retryablehttp.Request{Request: r}, nil
}
