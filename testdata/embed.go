// Package testdata holds the sample data that the demo carries inside the
// binary, so that it works from any folder.
package testdata

import _ "embed"

// Timezones is timezones.ndjson: one time zone of the world a line.
//
//go:embed timezones.ndjson
var Timezones []byte

// Degrees is degrees.jq: a program that turns the coordinates of one time
// zone into decimal degrees.
//
//go:embed degrees.jq
var Degrees string
