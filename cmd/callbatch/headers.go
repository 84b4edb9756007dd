package main

import (
	"errors"
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
	for i, line := range h.lines {
		if err := addHeader(headers, line); err != nil {
			return nil, usagef("--callback-header, header %d of %d: %w", i+1, len(h.lines), err)
		}
	}
	if h.file != "" {
		text, err := readInput(w, h.file, mostHeaders)
		if err != nil {
			return nil, usagef("--callback-header-file: %w", err)
		}
		before, n := len(headers), 0
		for line := range strings.Lines(string(text)) {
			n++
			if strings.TrimSpace(line) == "" {
				continue
			}
			if err := addHeader(headers, line); err != nil {
				return nil, usagef("%s, line %d: %w", h.file, n, err)
			}
		}
		if len(headers) == before {
			return nil, usagef("%s is empty", h.file)
		}
	}
	return headers, nil
}

// addHeader reads a line of "Name: value". No error repeats a value.
func addHeader(to map[string]string, line string) error {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if !ok || name == "" || value == "" {
		return errors.New("a header is 'Name: value'")
	}
	for known := range to {
		if http.CanonicalHeaderKey(known) == http.CanonicalHeaderKey(name) {
			return fmt.Errorf("header %s is given twice", printable(name, mostShown))
		}
	}
	to[name] = value
	return nil
}
