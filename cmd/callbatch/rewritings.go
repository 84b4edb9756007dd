package main

import (
	"bytes"
	"iter"
	"slices"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const byteOrderMark = "\ufeff"

// retyped gives body as it is, and then as it may have been before editors,
// shells and file transfers changed it, each with how it differs.
func retyped(body []byte) iter.Seq2[string, []byte] {
	crlf, lf := []byte("\r\n"), []byte("\n")
	unix := bytes.ReplaceAll(body, crlf, lf)
	return func(yield func(string, []byte) bool) {
		other := func(how string, text []byte) bool { return bytes.Equal(text, body) || yield(how, text) }
		_ = yield("", body) &&
			other("without the line end at its end", bytes.TrimRight(body, "\r\n")) &&
			other("with a line end at its end", append(bytes.Clone(body), '\n')) &&
			other("with a CR LF at its end", append(bytes.Clone(body), '\r', '\n')) &&
			other("without the white space around it", bytes.TrimSpace(body)) &&
			other("with LF instead of CR LF", unix) &&
			other("with CR LF instead of LF", bytes.ReplaceAll(unix, lf, crlf)) &&
			other("without the byte order mark", bytes.TrimPrefix(body, []byte(byteOrderMark))) &&
			other("with a byte order mark", append([]byte(byteOrderMark), body...))
	}
}

// A style is one way of a library to write JSON.
type style struct {
	how     string
	options jsontext.Options
}

// The styles in which libraries differ: white space, the characters of texts,
// and the order of members.
var (
	spacings = []style{
		{"as compact JSON", nil},
		{"as JSON with a space after commas and colons", json.JoinOptions(jsontext.SpaceAfterComma(true), jsontext.SpaceAfterColon(true))},
		{"as JSON indented by two spaces", jsontext.WithIndent("  ")},
		{"as JSON indented by four spaces", jsontext.WithIndent("    ")},
		{"as JSON indented by tabs", jsontext.WithIndent("\t")},
	}
	spellings = []style{
		{"", jsontext.PreserveRawStrings(true)},
		{" with no needless escapes", nil},
		{" with <, > and & escaped", json.JoinOptions(jsontext.EscapeForHTML(true), jsontext.EscapeForJS(true))},
		{asciiOnly, nil},
	}
	orders = []style{
		{"", nil},
		{" with sorted keys", jsontext.ReorderRawObjects(true)},
	}
)

// asciiOnly is the spelling that the JSON package does not have.
const asciiOnly = " with all but ASCII escaped"

// rewritten gives body as it may have been before it was parsed and written
// again, each with how it differs: nothing for what is not JSON.
func rewritten(body []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for how, text := range reserialised(bytes.TrimSpace(bytes.TrimPrefix(body, []byte(byteOrderMark)))) {
			if !yield(how, text) || !yield(how+" and with a line end at the end", append(text, '\n')) {
				return
			}
		}
	}
}

// reserialised gives a JSON text in every style. What a spelling or an order
// changes nothing of, and that is most texts, it gives once.
func reserialised(body []byte) iter.Seq2[string, []byte] {
	lenient := json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return func(yield func(string, []byte) bool) {
		var seen [][]byte
		for _, order := range orders {
			for _, spelling := range spellings {
				compact, err := jsontext.AppendFormat(nil, body, lenient, order.options, spelling.options)
				if err != nil {
					return
				}
				if spelling.how == asciiOnly {
					compact = escapeJSON(compact, func(r rune) bool { return r > unicode.MaxASCII })
				}
				if slices.ContainsFunc(seen, func(s []byte) bool { return bytes.Equal(s, compact) }) {
					continue
				}
				seen = append(seen, compact)
				for _, spacing := range spacings {
					text, err := jsontext.AppendFormat(nil, compact, lenient, jsontext.PreserveRawStrings(true), spacing.options)
					if err != nil || !yield(spacing.how+spelling.how+order.how, text) {
						return
					}
				}
			}
		}
	}
}
