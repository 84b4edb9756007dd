package main

import (
	"path/filepath"
	"strings"
)

// A media says what a body is.
type media struct {
	kind     string // content type
	coding   string // content encoding; empty: none
	document bool   // one JSON document, options and all
}

// csvKind is the content type of rows below a header.
const csvKind = "text/csv"

// mediaOf tells from a file's name what is in it.
func mediaOf(name string) (m media, known bool) {
	for suffix, coding := range map[string]string{".gz": "gzip", ".zst": "zstd"} {
		if plain, ok := strings.CutSuffix(name, suffix); ok {
			name, m.coding = plain, coding
			break
		}
	}
	switch filepath.Ext(name) {
	case ".ndjson", ".jsonl":
		m.kind = "application/x-ndjson"
	case ".csv":
		m.kind = csvKind
	case ".json":
		m.kind, m.document = "application/json", true
	default:
		return m, false
	}
	return m, true
}

// cuttable reports whether a body can be cut at line ends.
func (m media) cuttable() bool { return m.coding == "" && !m.document }
