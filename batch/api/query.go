package api

import (
	"encoding"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/callbatch/callbatch/batch"
)

// parseQuery reads a query strictly: what it does not understand would
// otherwise be left out of what the client asked for.
func parseQuery(raw string, known []string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, badParam("bad_query", "the query is not well formed: parameters are separated by & and percent-encoded")
	}
	if slices.Contains(known, anyParam) {
		return q, nil
	}
	for name, values := range q {
		switch {
		case !utf8.ValidString(name) || !utf8.ValidString(values[0]):
			return nil, badParam("bad_query", "the query is not UTF-8")
		case !slices.Contains(known, name) && !(strings.HasPrefix(name, metadataPrefix) && slices.Contains(known, metadataParam)):
			return nil, badParam("unknown_parameter", "there is no parameter %q here", name[:min(len(name), 80)])
		case len(values) > 1:
			return nil, badParam("repeated_parameter", "%q is given more than once", name[:min(len(name), 80)])
		}
	}
	return q, nil
}

const metadataPrefix = "metadata."

// metadata returns the pairs of metadata that are asked for.
func metadata(q url.Values) (map[string]string, error) {
	pairs := map[string]string{}
	for name := range q {
		if key, ok := strings.CutPrefix(name, metadataPrefix); ok {
			pairs[key] = q.Get(name)
		}
	}
	switch _, empty := pairs[""]; {
	case empty:
		return nil, badParam("bad_metadata", "a pair of metadata is asked for as metadata.KEY=VALUE")
	case len(pairs) > batch.MaxMetadata:
		return nil, badParam("bad_metadata", "no batch has more than %d pairs of metadata", batch.MaxMetadata)
	}
	return pairs, nil
}

// instant returns a time, or the zero time if the parameter is not there.
func instant(q url.Values, name string) (time.Time, error) {
	if !q.Has(name) {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, q.Get(name))
	if err != nil || t.IsZero() {
		return time.Time{}, badParam("bad_"+name, `%s is a time such as "2026-11-23T12:00:00Z"`, name)
	}
	return t, nil
}

func badParam(word, format string, args ...any) error {
	return batch.Refuse(batch.Malformed, word, format, args...)
}

// number returns an integer parameter of at least low, or fallback if it is
// not there.
func number(q url.Values, name string, low, fallback int) (int, error) {
	if !q.Has(name) {
		return fallback, nil
	}
	n, err := strconv.ParseInt(q.Get(name), 10, 0)
	if err != nil && !errors.Is(err, strconv.ErrRange) || n < int64(low) {
		return 0, badParam("bad_"+name, "%s is a whole number of at least %d", name, low)
	}
	const most = 1 << 50 // beyond any index, and far from overflow
	return int(min(n, most)), nil
}

// pageLimit returns how many entries a page of a list has.
func pageLimit(q url.Values) (int, error) {
	const usual, most = 50, 200
	n, err := number(q, "limit", 1, usual)
	return min(n, most), err
}

// word reads a parameter into a state, whose names it knows. It is left as
// it is if the parameter is not there.
func word(q url.Values, name string, state encoding.TextUnmarshaler) error {
	if !q.Has(name) {
		return nil
	}
	if state.UnmarshalText([]byte(q.Get(name))) != nil {
		return badParam("bad_"+name, "%q is no %s", fmt.Sprintf("%.80s", q.Get(name)), name)
	}
	return nil
}
