package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/pflag"
)

// headerFlags are the ways to tell a command which extra headers a receiver
// gets.
type headerFlags struct {
	lines []string
	file  string
}

func (h *headerFlags) register(f *pflag.FlagSet) {
	f.StringArrayVar(&h.lines, "callback-header", nil, "`'Name: value'` to send to the receiver as well, shown to whoever lists processes; may be repeated")
	f.StringVar(&h.file, "callback-header-file", "", "`file` with such headers, one a line")
}

// mostHeaders bounds a file of headers, in bytes: 16 of the longest there may
// be, and some air.
const mostHeaders = 128 << 10

// read returns the headers that were given; nil if there are none. What may be
// one the server knows.
func (h *headerFlags) read(w *world) (map[string]string, error) {
	headers := make(map[string]string)
	if err := addHeaders(headers, "--callback-header", h.lines); err != nil {
		return nil, err
	}
	if h.file != "" {
		text, err := readInput(w, h.file, mostHeaders)
		if err != nil {
			return nil, fmt.Errorf("--callback-header-file: %w", err)
		}
		var lines []string
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) != "" {
				lines = append(lines, line)
			}
		}
		if len(lines) == 0 {
			return nil, usagef("%s is empty", h.file)
		}
		if err := addHeaders(headers, h.file, lines); err != nil {
			return nil, err
		}
	}
	return headers, nil
}

// addHeaders reads lines of "Name: value". No error repeats a value.
func addHeaders(to map[string]string, from string, lines []string) error {
	for i, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" || value == "" {
			return usagef("%s, header %d of %d: a header is 'Name: value'", from, i+1, len(lines))
		}
		for known := range to {
			if http.CanonicalHeaderKey(known) == http.CanonicalHeaderKey(name) {
				return usagef("header %s is given twice", printable(name, mostShown))
			}
		}
		to[name] = value
	}
	return nil
}
