package callback

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxShownHeaders = 8 << 10  // bytes of names and values
	maxShownBody    = 16 << 10 // bytes

	minCredential = 8 // bytes; shorter ones would be found everywhere
)

// echoes returns what of our request must not be kept even if the receiver
// repeats it: the signatures, and the values of the extra headers, whole and
// word by word.
func echoes(sent http.Header, extra map[string]string) []string {
	out := strings.Fields(sent["Webhook-Signature"][0])
	for i, s := range out {
		out[i] = strings.TrimPrefix(s, "v1,")
	}
	for _, value := range extra {
		out = append(out, value)
		out = append(out, strings.Fields(value)...)
	}
	out = slices.DeleteFunc(out, func(s string) bool { return len(s) < minCredential })
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) }) // the whole before its parts
	return out
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

func redact(b []byte, credentials []string) []byte {
	for _, c := range credentials {
		b = bytes.ReplaceAll(b, []byte(c), []byte(mask))
	}
	return b
}

// cutCredential removes the beginning of a credential from the end of b.
func cutCredential(b []byte, credentials []string) []byte {
	for _, c := range credentials {
		for n := min(len(c), len(b)); n >= minCredential/2; n-- {
			if bytes.HasSuffix(b, []byte(c[:n])) {
				return b[:len(b)-n]
			}
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
