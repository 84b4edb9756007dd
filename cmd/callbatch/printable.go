package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// mostLine is how much of a stranger's text stands in a line of its own, in
// characters: what is kept of an answer may be a single line.
const mostLine = 16 << 10

// printable returns what a stranger sent as one line of at most most
// characters that can do nothing to a terminal.
func printable(s string, most int) string {
	var b strings.Builder
	for _, r := range s {
		if most--; most < 0 {
			b.WriteString("…")
			break
		}
		if !unicode.IsGraphic(r) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

// printableLines returns a text whose lines can do nothing to a terminal.
func printableLines(s string) string {
	lines := strings.Split(strings.ReplaceAll(s, "\t", "    "), "\n")
	for i, line := range lines {
		lines[i] = printable(line, mostLine)
	}
	return strings.Join(lines, "\n")
}

// escapeJSON writes the characters of a JSON text that which says as \u
// escapes. Their value stays the same.
func escapeJSON(text []byte, which func(rune) bool) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		switch {
		case r < utf8.RuneSelf && r != unicode.MaxASCII || !which(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return out
}
