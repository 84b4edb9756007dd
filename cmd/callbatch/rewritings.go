package main

import (
	"bytes"
	"iter"
	"unicode"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const byteOrderMark = "\ufeff"

// rewritings gives body as it is, and then as it may have been before tools
// and libraries changed it, each with how it differs.
func rewritings(body []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		if !yield("", body) {
			return
		}
		for how, text := range retyped(body) {
			if !bytes.Equal(text, body) && !yield(how, text) {
				return
			}
		}
		for how, text := range reserialised(bytes.TrimSpace(bytes.TrimPrefix(body, []byte(byteOrderMark)))) {
			if !yield(how, text) || !yield(how+" and with a line end at the end", append(text, '\n')) {
				return
			}
		}
	}
}

// retyped is what editors, shells and file transfers undo.
func retyped(body []byte) iter.Seq2[string, []byte] {
	crlf, lf := []byte("\r\n"), []byte("\n")
	unix := bytes.ReplaceAll(body, crlf, lf)
	return func(yield func(string, []byte) bool) {
		_ = yield("without the line end at its end", bytes.TrimRight(body, "\r\n")) &&
			yield("with a line end at its end", append(bytes.Clone(body), '\n')) &&
			yield("with a CR LF at its end", append(bytes.Clone(body), '\r', '\n')) &&
			yield("without the white space around it", bytes.TrimSpace(body)) &&
			yield("with LF instead of CR LF", unix) &&
			yield("with CR LF instead of LF", bytes.ReplaceAll(unix, lf, crlf)) &&
			yield("without the byte order mark", bytes.TrimPrefix(body, []byte(byteOrderMark))) &&
			yield("with a byte order mark", append([]byte(byteOrderMark), body...))
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

// reserialised is what parsing undoes. It gives nothing for what is not JSON.
func reserialised(body []byte) iter.Seq2[string, []byte] {
	lenient := json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	return func(yield func(string, []byte) bool) {
		for _, order := range orders {
			for _, spelling := range spellings {
				for _, spacing := range spacings {
					text, err := jsontext.AppendFormat(nil, body, lenient, order.options, spelling.options, spacing.options)
					if err != nil {
						return
					}
					if spelling.how == asciiOnly {
						text = escapeJSON(text, func(r rune) bool { return r > unicode.MaxASCII })
					}
					if !yield(spacing.how+spelling.how+order.how, text) {
						return
					}
				}
			}
		}
	}
}
