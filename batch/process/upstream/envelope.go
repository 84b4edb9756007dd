package upstream

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/net/http/httpguts"

	"github.com/callbatch/callbatch/batch"
)

// What an envelope may hold at most.
const (
	maxPath        = 4 << 10 // bytes
	maxHeaders     = 64
	maxHeaderBytes = 16 << 10 // of all names and values
)

// An envelope is an item that says itself how it is sent.
type envelope struct {
	Method  *string           `json:"method"`
	Path    *string           `json:"path"`
	Headers map[string]string `json:"headers"`
	Body    jsontext.Value    `json:"body"`
}

var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// noEnvelope is how an item fails that cannot be sent as it asks for.
func noEnvelope(format string, args ...any) error {
	return &batch.Failure{Code: batch.CodeProcessorError, Message: "the item is not sent: " + fmt.Sprintf(format, args...)}
}

// open makes r the request that an item asks for and returns its body.
func (p *Processor) open(r *http.Request, item []byte) ([]byte, error) {
	var e envelope
	if err := json.Unmarshal(item, &e, json.RejectUnknownMembers(true)); err != nil || jsontext.Value(item).Kind() != '{' {
		return nil, noEnvelope("it is an object of method, path, headers (names and texts) and body, and nothing else")
	}
	if e.Method != nil {
		r.Method = *e.Method
		if !slices.Contains(methods, r.Method) {
			return nil, noEnvelope("its method is not one of %s", strings.Join(methods, ", "))
		}
	}
	if e.Path != nil {
		u, why := below(r.URL, *e.Path)
		if why != "" {
			return nil, noEnvelope("its path %s", why)
		}
		r.URL = u
	}
	if why := p.address(r.Header, e.Headers); why != "" {
		return nil, noEnvelope("%s", why)
	}
	switch {
	case e.Body == nil:
		if p.fixed.Get("Content-Type") == "" {
			r.Header.Del("Content-Type") // of nothing
		}
		return nil, nil
	case r.Method == http.MethodGet:
		return nil, noEnvelope("a GET has no body")
	case e.Body.Kind() == '"' && !isJSON(r.Header.Get("Content-Type")):
		return jsontext.AppendUnquote(nil, e.Body)
	}
	return e.Body, nil
}

// isJSON reports whether a content type is one of JSON.
func isJSON(contentType string) bool {
	typ, _ := mediaType(contentType)
	return typ == "application/json" || typ == "text/json" || strings.HasSuffix(typ, "+json")
}

// address adds an item's headers. Those that the operator has set stay as they
// are. why says what is wrong, and shows no value.
func (p *Processor) address(h http.Header, headers map[string]string) (why string) {
	size, seen := 0, map[string]bool{}
	for name, value := range headers {
		key := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")) // which many servers take for the same
		size += len(name) + len(value)
		switch {
		case len(headers) > maxHeaders || size > maxHeaderBytes:
			return fmt.Sprintf("it has more than %d headers or %d bytes of them", maxHeaders, maxHeaderBytes)
		case !httpguts.ValidHeaderFieldName(name):
			return fmt.Sprintf("%.64q is not the name of a header", name)
		case !httpguts.ValidHeaderFieldValue(value):
			return fmt.Sprintf("its header %.64s has characters that a header cannot have", name)
		case isReserved(key) || strings.HasPrefix(key, "Proxy-"):
			return fmt.Sprintf("the header %.64s is not an item's to set", name)
		case seen[key]:
			return fmt.Sprintf("its header %.64s is there twice", name)
		case p.fixed[key] == nil:
			h.Set(name, value)
		}
		seen[key] = true
	}
	return ""
}

// below returns base with path joined below its own. why says what is wrong
// with the path: it stays below base however a server reads it, also one that
// decodes it twice, takes a backslash for a slash, or cuts what follows a
// semicolon.
func below(base *url.URL, path string) (_ *url.URL, why string) {
	if path == "" {
		return base, ""
	}
	if why := unfit(path); why != "" {
		return nil, why
	}
	relative := strings.TrimPrefix(path, "/")
	if strings.HasPrefix(relative, "/") || strings.Contains(relative, "//") {
		return nil, "has an empty segment"
	}
	plain, err := url.PathUnescape(relative)
	switch {
	case err != nil:
		return nil, "has a percent sign that begins no encoding"
	case strings.ContainsFunc(plain, unicode.IsControl):
		return nil, "has a control character"
	}
	for read, more := relative, true; more; {
		if climbs(read) {
			return nil, "has a segment . or .., plain or encoded"
		}
		deeper, err := url.PathUnescape(read)
		more = err == nil && deeper != read
		read = deeper
	}
	u := *base
	u.RawPath = strings.TrimSuffix(base.EscapedPath(), "/") + "/" + relative
	u.Path = strings.TrimSuffix(base.Path, "/") + "/" + plain
	return &u, ""
}

// unfit says why a path cannot be that of a URL as it stands.
func unfit(path string) string {
	if len(path) > maxPath {
		return fmt.Sprintf("is longer than %d bytes", maxPath)
	}
	for _, c := range []byte(path) {
		switch {
		case c == '?' || c == '#':
			return "has a query or a fragment: where they are part of it, ? is %3F and # is %23"
		case c == '\\':
			return "has a backslash"
		case c <= ' ' || c >= 0x7f || strings.IndexByte("\"<>^`{|}", c) >= 0:
			return "has characters that have to be percent-encoded"
		}
	}
	return ""
}

// climbs reports whether a path has a segment that leads up or nowhere.
func climbs(path string) bool {
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}
