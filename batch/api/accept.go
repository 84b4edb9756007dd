package api

import (
	"mime"
	"strconv"
	"strings"
)

// A wish is one entry of a header by which a client says what it can take.
type wish struct {
	value  string // in lower case
	weight float64
}

// wishes reads such a header. An entry that is not well formed is left out.
func wishes(values []string) (ws []wish) {
	for entry := range strings.SplitSeq(strings.Join(values, ","), ",") {
		value, params, err := mime.ParseMediaType(entry)
		if err != nil {
			continue
		}
		w := wish{value, 1}
		if q, has := params["q"]; has {
			if w.weight, err = strconv.ParseFloat(q, 64); err != nil || !(w.weight >= 0 && w.weight <= 1) {
				continue
			}
		}
		ws = append(ws, w)
	}
	return ws
}

// A media is a form of results, with the other names clients have for it.
type media struct {
	name    string
	aliases []string
}

// choose returns which of the offers a client likes best: by weight, then what
// it names before what it merely takes, then in our order. ok is false if it
// takes none. Who says nothing takes all.
func choose(accept []string, offers []media) (best media, ok bool) {
	ws := wishes(accept)
	if len(strings.TrimSpace(strings.Join(accept, ""))) == 0 {
		return offers[0], true
	}
	weight, exact := 0.0, 0
	for _, o := range offers {
		if q, e := o.liking(ws); q > weight || q == weight && q > 0 && e > exact {
			best, weight, exact, ok = o, q, e, true
		}
	}
	return best, ok
}

// liking returns the weight of the most exact wish that fits, and how exact
// that is: 3 a name, 2 all of a kind, 1 everything.
func (m media) liking(ws []wish) (weight float64, exact int) {
	kind, _, _ := strings.Cut(m.name, "/")
	for _, w := range ws {
		fits := 0
		switch {
		case w.value == m.name:
			fits = 3
		case w.value == kind+"/*":
			fits = 2
		case w.value == "*/*":
			fits = 1
		}
		for _, a := range m.aliases {
			if w.value == a {
				fits = 3
			}
		}
		if fits > exact || fits == exact && fits > 0 && w.weight > weight {
			weight, exact = w.weight, fits
		}
	}
	return weight, exact
}

// chooseCoding returns how an answer may be coded for a client: zstd or gzip,
// or "" as it is.
func chooseCoding(accept []string) (best string) {
	ws, weight := wishes(accept), 0.0
	for _, coding := range []string{"zstd", "gzip"} {
		q, named := 0.0, false
		for _, w := range ws {
			switch {
			case w.value == coding || coding == "gzip" && w.value == "x-gzip":
				q, named = w.weight, true
			case w.value == "*" && !named:
				q = w.weight
			}
		}
		if q > weight {
			best, weight = coding, q
		}
	}
	for _, w := range ws {
		if w.value == "identity" && w.weight > weight {
			return ""
		}
	}
	return best
}
