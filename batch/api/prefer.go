package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// patient returns how long a client likes to wait for his answer, as he says
// in "Prefer: wait=N" (RFC 7240), and tells him what of it is granted. A wish
// that nobody understands is none.
func patient(w http.ResponseWriter, h http.Header) time.Duration {
	value, ok := preference(h, "wait")
	if !ok {
		return 0
	}
	seconds, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return 0
	}
	seconds = min(seconds, longestWait)
	w.Header().Set("Preference-Applied", "wait="+strconv.FormatUint(seconds, 10))
	return time.Duration(seconds) * time.Second
}

// preference returns the value of a preference where it is first named.
func preference(h http.Header, name string) (value string, ok bool) {
	for p := range strings.SplitSeq(strings.Join(h.Values("Prefer"), ","), ",") {
		p, _, _ = strings.Cut(p, ";") // its parameters, of which none is known
		n, v, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(n), name) {
			v = strings.TrimSpace(v)
			if unquoted, err := strconv.Unquote(v); err == nil {
				v = unquoted
			}
			return v, true
		}
	}
	return "", false
}
