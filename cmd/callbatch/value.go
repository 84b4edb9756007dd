package main

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// A span is a duration that is more than nothing: "30s", "24h".
type span time.Duration

// A wait is a duration that may be nothing.
type wait time.Duration

// A size is a number of bytes: 65536, "64KiB", "1MB".
type size int64

// A network is a range of addresses: "10.0.0.0/8".
type network netip.Prefix

// Words are a command and its arguments: [./ocr, --json].
type words []string

// A level is that from which on something is logged: "info".
type level slog.Level

func (n *network) UnmarshalText(text []byte) error {
	if (*netip.Prefix)(n).UnmarshalText(text) != nil {
		return fmt.Errorf(`%q is not a network such as "10.0.0.0/8" or "192.0.2.1/32"`, text)
	}
	return nil
}

func (l *level) UnmarshalText(text []byte) error {
	if (*slog.Level)(l).UnmarshalText(text) != nil {
		return errors.New(`must be "debug", "info", "warn" or "error"`)
	}
	return nil
}

func (s *span) UnmarshalText(text []byte) error {
	d, err := parseDuration(string(text))
	if err == nil && d == 0 {
		return errors.New("must be more than 0")
	}
	*s = span(d)
	return err
}

func (w *wait) UnmarshalText(text []byte) error {
	d, err := parseDuration(string(text))
	*w = wait(d)
	return err
}

func (s *size) UnmarshalText(text []byte) error {
	n, err := parseSize(string(text))
	*s = size(n)
	return err
}

// MarshalText writes what UnmarshalText reads.
func (s span) MarshalText() ([]byte, error) { return []byte(brief(time.Duration(s))), nil }

// MarshalText writes what UnmarshalText reads.
func (w wait) MarshalText() ([]byte, error) { return []byte(brief(time.Duration(w))), nil }

// MarshalText writes what UnmarshalText reads.
func (n network) MarshalText() ([]byte, error) { return netip.Prefix(n).MarshalText() }

// MarshalText writes what UnmarshalText reads.
func (l level) MarshalText() ([]byte, error) {
	return []byte(strings.ToLower(slog.Level(l).String())), nil
}

// MarshalText writes the size in the largest unit of which it is a multiple.
func (s size) MarshalText() ([]byte, error) {
	for _, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		one, err := parseSize("1" + u)
		if err == nil && s >= size(one) && int64(s)%one == 0 {
			return fmt.Appendf(nil, "%d%s", int64(s)/one, u), nil
		}
	}
	return fmt.Appendf(nil, "%dB", int64(s)), nil
}

// brief writes a duration without the zeros at its end: "24h", not "24h0m0s".
func brief(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if _, bare := strconv.ParseUint(s, 10, 64); err != nil && bare == nil {
		return 0, fmt.Errorf("give a unit, as in %ss", s)
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`%q is not a duration such as "30s", "5m" or "24h"`, s)
	}
	return d, nil
}

var units = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
	{"", 1},
}

// parseSize reads a positive whole number of bytes, with or without a unit.
func parseSize(s string) (int64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n <= 0 || n > math.MaxInt64/u.bytes {
			break
		}
		return n * u.bytes, nil
	}
	return 0, fmt.Errorf(`%q is not a size such as 65536, "64KiB" or "1GiB"`, s)
}

// strictly is the decoder's hook that refuses what would only nearly fit. The
// environment has nothing but strings: these are read as what is wanted.
func strictly(from, to reflect.Value) (any, error) {
	text, isText := from.Interface().(string)
	if _, ok := to.Addr().Interface().(encoding.TextUnmarshaler); ok && to.Type() != reflect.TypeFor[size]() {
		if !isScalar(from) {
			return nil, fmt.Errorf("must be text, not %s", inWords(from))
		}
		return fmt.Sprint(from), nil
	}
	switch to.Kind() {
	case reflect.String:
		if !isText {
			return nil, fmt.Errorf("must be text, not %s", inWords(from))
		}
	case reflect.Bool:
		return wantBool(from, text)
	case reflect.Int, reflect.Int64, reflect.Uint16:
		if isText && to.Type() == reflect.TypeFor[size]() {
			return text, nil
		}
		return wantNumber(from, text, to)
	case reflect.Float64:
		return wantRate(from, text)
	case reflect.Slice:
		if isText && to.Type() == reflect.TypeFor[words]() {
			return nil, fmt.Errorf("must be a list of a program and its arguments, not %s: no shell reads it", inWords(from))
		}
		if isText {
			return splitList(text), nil
		}
		if from.Kind() != reflect.Slice {
			return nil, errors.New("must be a list")
		}
	case reflect.Struct, reflect.Map:
		if _, ok := to.Interface().(header); ok && isText {
			return map[string]any{"value": text}, nil
		}
		if from.Kind() != reflect.Map {
			return nil, fmt.Errorf("must be a map of keys, not %s", inWords(from))
		}
	}
	return from.Interface(), nil
}

func isScalar(v reflect.Value) bool {
	return v.Kind() != reflect.Map && v.Kind() != reflect.Slice
}

// inWords shows a value to whoever wrote it.
func inWords(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Map:
		return "a map"
	case reflect.Slice:
		return "a list"
	}
	return fmt.Sprint(v)
}

func wantBool(from reflect.Value, text string) (any, error) {
	if from.Kind() == reflect.Bool {
		return from.Bool(), nil
	}
	switch text {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return nil, fmt.Errorf("must be true or false, not %s", inWords(from))
}

func wantNumber(from reflect.Value, text string, to reflect.Value) (any, error) {
	var n int64
	switch from.Kind() {
	case reflect.String:
		var err error
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, fmt.Errorf("must be a whole number, not %q", text)
		}
	case reflect.Int, reflect.Int64:
		n = from.Int()
	default:
		return nil, fmt.Errorf("must be a whole number, not %s", inWords(from))
	}
	if n <= 0 || to.Kind() == reflect.Uint16 && n > math.MaxUint16 {
		return nil, fmt.Errorf("%d is out of range", n)
	}
	return n, nil
}

func wantRate(from reflect.Value, text string) (any, error) {
	f, err := strconv.ParseFloat(fmt.Sprint(from), 64)
	if err != nil || f <= 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return nil, fmt.Errorf("must be a number more than 0, not %s", inWords(from))
	}
	return f, nil
}

// splitList reads a list from one line, as the environment has it.
func splitList(text string) []any {
	list := []any{}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// Set, String and Type make a span the value of a flag.
func (s *span) Set(text string) error { return s.UnmarshalText([]byte(text)) }

func (s *span) String() string {
	if *s == 0 {
		return "" // not set
	}
	return time.Duration(*s).String()
}

func (s *span) Type() string { return "duration" }

// A lane is a host and its port as messages show them: "shop.example:443".
type lane string

// Set, String and Type make a lane the value of a flag.
func (l *lane) Set(text string) error {
	name, port, err := net.SplitHostPort(text)
	n, wrong := strconv.ParseUint(port, 10, 16)
	if err != nil || wrong != nil || name == "" || n == 0 {
		return errors.New("it is a host and its port as messages show them, such as shop.example:443")
	}
	*l = lane(text)
	return nil
}

func (l *lane) String() string { return string(*l) }
func (l *lane) Type() string   { return "host:port" }

// A sizeFlag is a size as the value of a flag.
type sizeFlag int

func (f *sizeFlag) Set(s string) error {
	n, err := parseSize(s)
	*f = sizeFlag(n)
	return err
}

func (f *sizeFlag) String() string { return strconv.Itoa(int(*f)) }
func (f *sizeFlag) Type() string   { return "size" }
