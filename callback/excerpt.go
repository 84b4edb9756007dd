package callback

import (
	"bytes"
	"encoding/base64"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxShownHeaders = 8 << 10  // bytes of names and values
	maxShownBody    = 16 << 10 // bytes

	minCredential = 8 // bytes; shorter ones would be found everywhere
	minPassword   = 6 // the same, of one that is known to be a password
)

// echoes returns what of our request must not be kept even if the receiver
// repeats it: the signatures, the values of the URL's query, and those of the
// extra headers, whole, word by word and as what Basic credentials stand for.
// All in lower case.
func echoes(sent http.Header, query string, extra map[string]string) []string {
	out := strings.Fields(sent["Webhook-Signature"][0])
	for i, s := range out {
		out[i] = strings.TrimPrefix(s, "v1,")
	}
	out = append(out, queryValues(query)...)
	for _, value := range extra {
		out = append(out, value)
		out = append(out, strings.Fields(value)...)
	}
	out = slices.DeleteFunc(out, func(s string) bool { return len(s) < minCredential })
	for _, value := range extra {
		out = append(out, basic(value)...)
	}
	for i, s := range out {
		out[i] = string(lower([]byte(s)))
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) }) // the whole before its parts
	return out
}

// queryValues returns the values of a query, as they are written and as what
// they stand for; of what has no name the whole.
func queryValues(query string) (values []string) {
	for part := range strings.SplitSeq(query, "&") {
		_, value, named := strings.Cut(part, "=")
		if !named {
			value = part
		}
		values = append(values, value)
		if plain, err := url.QueryUnescape(value); err == nil && plain != value {
			values = append(values, plain)
		}
	}
	return values
}

// basic returns the user:password of a value as RFC 7617 writes it, and the
// password alone; nothing of another value, or too short to be looked for.
func basic(value string) []string {
	scheme, encoded, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return nil
	}
	pair, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(encoded), "="))
	if err != nil {
		return nil
	}
	_, password, _ := strings.Cut(string(pair), ":")
	return slices.DeleteFunc([]string{string(pair), password}, func(s string) bool { return len(s) < minPassword })
}

// excerptHeaders keeps headers in the order of their names until they are 8 KiB.
func excerptHeaders(h http.Header, credentials []string) http.Header {
	out, room := make(http.Header, len(h)), maxShownHeaders
	for _, name := range slices.Sorted(maps.Keys(h)) {
		shown := printable([]byte(http.CanonicalHeaderKey(name)))
		for _, value := range h[name] {
			if shown == "Set-Cookie" || shown == "Set-Cookie2" {
				value = mask
			}
			kept := printable(redact([]byte(value), credentials))
			if room -= len(shown) + len(kept); room < 0 {
				return out
			}
			out[shown] = append(out[shown], kept)
		}
	}
	return out
}

// excerptBody reads at most 16 KiB, and to the end if that is sooner, so that
// the connection can be used again. Truncated says that there is, or may be,
// more.
func excerptBody(res *http.Response, credentials []string) (body []byte, truncated bool) {
	// A 101 has a length of 0, too. Its body is the connection itself, endless
	// and deaf to the deadline, and must not be read.
	if res.ContentLength == 0 {
		return nil, false
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxShownBody+1))
	if truncated = err != nil || len(body) > maxShownBody; truncated {
		body = cutCredential(body[:min(len(body), maxShownBody)], credentials)
	}
	text := printable(redact(body, credentials))
	if len(text) > maxShownBody {
		text, truncated = text[:maxShownBody], true
		for !utf8.ValidString(text) {
			text = text[:len(text)-1]
		}
	}
	return []byte(text), truncated
}

// redact returns b with the credentials masked, in whichever case they are.
func redact(b []byte, credentials []string) []byte {
	for _, c := range credentials {
		var out []byte
		low := lower(b)
		for at := bytes.Index(low, []byte(c)); at >= 0; at = bytes.Index(low, []byte(c)) {
			out = append(append(out, b[:at]...), mask...)
			b, low = b[at+len(c):], low[at+len(c):]
		}
		b = append(out, b...)
	}
	return b
}

// cutCredential removes the beginning of a credential from the end of b.
func cutCredential(b []byte, credentials []string) []byte {
	low := lower(b)
	for _, c := range credentials {
		for n := min(len(c), len(b)); n >= minCredential/2; n-- {
			if bytes.HasSuffix(low, []byte(c[:n])) {
				return b[:len(b)-n]
			}
		}
	}
	return b
}

// lower returns a copy of b with ASCII letters in lower case, every byte where
// it was.
func lower(b []byte) []byte {
	b = bytes.Clone(b)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

// printable returns b as UTF-8 whose only control characters are newlines and
// tabs, without invisible ones that change how the rest is shown.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', unicode.IsGraphic(r):
			return r
		case r == '\r':
			return -1
		}
		return utf8.RuneError
	}, string(b))
}
