package upstream

import (
	"cmp"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxExcerpt = 4 << 10  // bytes of an answer that a client reads
	maxRefusal = 16 << 10 // bytes of a refusal that are read; a longer one costs its connection
)

// excerpt returns the beginning of what the service said with its refusal. If
// it breaks off, the status stands, with what there is. After a 101 there is
// no answer but a bare connection, which would not even heed the context.
func (p *Processor) excerpt(resp *http.Response) string {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return ""
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if encoded(resp) {
		return ""
	}
	return p.mask.printable(body)
}

// A masker takes out of an answer what we sent in confidence: services tend
// to echo requests when they refuse them.
type masker struct{ replace *strings.Replacer }

// minSecret is how short a header's value is no secret: masking it would
// only tear holes.
const minSecret = 4

func newMasker(template *http.Request) masker {
	var secrets []string
	add := func(s string) {
		if len(s) >= minSecret {
			secrets = append(secrets, s)
		}
	}
	for name := range template.Header {
		if slices.Contains([]string{"Accept-Encoding", "Content-Type", "User-Agent"}, name) {
			continue
		}
		value := template.Header.Get(name)
		add(value)
		if _, credentials, ok := strings.Cut(value, " "); ok {
			add(credentials)
		}
	}
	if user, password, ok := template.BasicAuth(); ok {
		add(user)
		add(password)
	}
	for _, pair := range strings.Split(template.URL.RawQuery, "&") {
		name, value, named := strings.Cut(pair, "=")
		if !named {
			value = name
		}
		add(value)
		if plain, err := url.QueryUnescape(value); err == nil {
			add(plain)
		}
	}
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // the whole before its parts
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, "***")
	}
	return masker{strings.NewReplacer(pairs...)}
}

// printable returns at most maxExcerpt bytes of body as text that is safe to
// show, without our secrets.
func (m masker) printable(body []byte) string {
	text := m.replace.Replace(string(body[:min(len(body), maxRefusal)]))
	var b strings.Builder
	for _, r := range text {
		if r == '\r' {
			continue
		}
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		if b.Len()+utf8.RuneLen(r) > maxExcerpt {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
