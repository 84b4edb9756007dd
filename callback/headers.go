package callback

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/callbatch/callbatch/callback/signature"
)

const (
	maxExtraHeaders = 16
	maxExtraName    = 128  // bytes
	maxExtraValue   = 4096 // bytes

	mask = "***"
)

// CheckHeaders holds extra headers for a receiver to what may be sent: at most
// 16, names of at most 128 bytes and values of at most 4096, nothing that
// speaks for the connection, the body, the message or us. A _ in a name is
// judged as a -, because to receivers behind CGI or WSGI both are one name.
// The error names the header and repeats no value.
func CheckHeaders(extra map[string]string) error {
	if len(extra) > maxExtraHeaders {
		return fmt.Errorf("%d headers; at most %d are allowed", len(extra), maxExtraHeaders)
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if err := checkHeader(name, extra[name]); err != nil {
			return err
		}
		key := folded(name)
		if seen[key] {
			return fmt.Errorf("header %s appears twice", key)
		}
		seen[key] = true
	}
	return nil
}

// folded returns the one spelling of a name that receivers may take it for.
func folded(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

func checkHeader(name, value string) error {
	switch {
	case len(name) > maxExtraName:
		return fmt.Errorf("a header name is longer than %d bytes", maxExtraName)
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%q is not a header name", name)
	case reserved(folded(name)):
		return fmt.Errorf("header %s may not be set", strings.ToLower(name))
	case len(value) > maxExtraValue:
		return fmt.Errorf("header %s: the value is longer than %d bytes", name, maxExtraValue)
	case !httpguts.ValidHeaderFieldValue(value) || strings.Contains(value, "\t"):
		return fmt.Errorf("header %s: the value contains a control character", name)
	}
	return nil
}

// reserved reports whether a header, its name folded, is ours or the
// connection's to set. A header that ends in idempotency-key would make Go's
// transport send a POST again by itself.
func reserved(name string) bool {
	for _, prefix := range []string{"content-", "webhook-", "callbatch-", "proxy-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{
		"host", "connection", "transfer-encoding", "idempotency-key", "x-idempotency-key",
		"user-agent", "keep-alive", "te", "trailer", "upgrade", "expect", "http2-settings",
	}, name)
}

// headers returns those of one attempt: the receiver's extra ones, then ours.
func (s *Sender) headers(m Message, at time.Time) http.Header {
	h := make(http.Header, 7+len(m.Headers))
	h["User-Agent"] = []string{s.agent}
	for name, value := range m.Headers {
		if checkHeader(name, value) == nil {
			h.Set(name, value)
		}
	}
	h["Content-Type"] = []string{"application/json"}
	h["Content-Digest"] = []string{signature.ContentDigest(m.Body)}
	h["Webhook-Id"] = []string{m.ID}
	h["Webhook-Timestamp"] = []string{strconv.FormatInt(at.Unix(), 10)}
	h["Webhook-Signature"] = []string{signature.Sign(m.ID, at, m.Body, m.Secrets...)}
	h["Callbatch-Attempt"] = []string{strconv.Itoa(m.Attempt)}
	return h
}

// masked returns a copy of h fit to be shown.
func masked(h http.Header, extra map[string]string) http.Header {
	shown := make(http.Header, len(h))
	for name, values := range h {
		shown[name] = values // never written to, so it can be shared
	}
	hidden := []string{mask}
	for name := range extra {
		if key := http.CanonicalHeaderKey(name); shown[key] != nil {
			shown[key] = hidden
		}
	}
	shown["Webhook-Signature"] = hidden
	return shown
}
