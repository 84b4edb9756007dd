package main_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
)

// syscallLine is a system call as strace saw it. Begin and end are lines of the
// trace: two calls are in order only if one ended before the other began.
type syscallLine struct {
	name       string
	file       string // what the descriptor is
	data       []byte // of all its buffers
	offset     int64  // of a pwrite64
	begin, end int    // end is 0 while it runs
}

// parseTrace reads the output of strace -f -y -xx.
func parseTrace(r io.Reader) ([]*syscallLine, error) {
	var calls []*syscallLine
	running := make(map[string]*syscallLine) // by thread
	lines := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			return calls, nil
		}
		if err != nil {
			return nil, err
		}
		thread, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		rest = strings.TrimLeft(rest, " ")
		if strings.HasPrefix(rest, "<... ") {
			if c := running[thread]; c != nil && strings.Contains(rest, " resumed>") {
				c.end = n
			}
			delete(running, thread)
			continue
		}
		c, err := parseCall(rest)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if c == nil {
			continue // a signal, an exit
		}
		c.begin = n
		if strings.HasSuffix(rest, "<unfinished ...>") {
			running[thread] = c
		} else {
			c.end = n
		}
		calls = append(calls, c)
	}
}

// parseCall reads name(fd<file>, "\x..", …, offset) = result.
func parseCall(line string) (*syscallLine, error) {
	name, args, ok := strings.Cut(line, "(")
	if !ok || strings.ContainsAny(name, " +-") {
		return nil, nil
	}
	c := &syscallLine{name: name}
	if _, after, ok := strings.Cut(args, "<"); ok {
		if file, _, ok := strings.Cut(after, ">"); ok {
			raw, err := unhex(file)
			if err != nil {
				return nil, err
			}
			c.file = string(raw)
		}
	}
	parts := strings.Split(args, `"`)
	for i := 1; i < len(parts); i += 2 {
		raw, err := unhex(parts[i])
		if err != nil {
			return nil, err
		}
		c.data = append(c.data, raw...)
	}
	if name == "pwrite64" {
		return c, c.parseOffset(parts[len(parts)-1])
	}
	return c, nil
}

// parseOffset reads what follows the buffer of a pwrite64: ", size, offset".
func (c *syscallLine) parseOffset(tail string) (err error) {
	if strings.HasPrefix(tail, "...") {
		return fmt.Errorf("the trace is cut short: raise strace -s")
	}
	tail, _, _ = strings.Cut(tail, ")")
	tail, _, _ = strings.Cut(tail, " <unfinished")
	fields := strings.Split(tail, ", ")
	c.offset, err = strconv.ParseInt(strings.TrimSpace(fields[len(fields)-1]), 10, 64)
	return err
}

// unhex reads \x2f\x74…; what is not in that form is itself.
func unhex(s string) ([]byte, error) {
	if !strings.HasPrefix(s, `\x`) {
		return []byte(s), nil
	}
	return hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
}

// metaPages is where bbolt writes what makes a commit count: one of the two
// first pages of 4 KiB.
const metaPages = 2 * 4096

// durableBefore says what is missing for mark to have been on disk when the
// call out began: a write of it to the store, a sync of that, then the meta
// page of its commit, and a sync that covers this.
func durableBefore(calls []*syscallLine, out *syscallLine, store string, mark []byte) error {
	isSync := func(c *syscallLine) bool { return c.name == "fdatasync" || c.name == "fsync" }
	steps := []struct {
		what string
		is   func(*syscallLine) bool
	}{
		{"a write of it", func(c *syscallLine) bool { return c.name == "pwrite64" && bytes.Contains(c.data, mark) }},
		{"a sync after the write", isSync},
		{"a meta page after the sync", func(c *syscallLine) bool { return c.name == "pwrite64" && c.offset < metaPages }},
		{"a sync after the meta page", isSync},
	}
	done, next := 0, 0
	for _, c := range calls {
		if next == len(steps) {
			return nil
		}
		over := c.end > 0 && c.end < out.begin
		if c.file == store && over && c.begin > done && steps[next].is(c) {
			done = c.end
			next++
		}
	}
	if next < len(steps) {
		return fmt.Errorf("before line %d, where %.40q leaves, the store saw no %s", out.begin, out.data, strings.TrimPrefix(steps[next].what, "a "))
	}
	return nil
}

// sent returns the first write to a socket that begins with head and holds mark.
func sent(calls []*syscallLine, head string, mark []byte) *syscallLine {
	for _, c := range calls {
		if strings.HasPrefix(c.file, "socket:") && bytes.HasPrefix(c.data, []byte(head)) && bytes.Contains(c.data, mark) {
			return c
		}
	}
	return nil
}

func TestTrace(t *testing.T) {
	const (
		data   = `7 pwrite64(3</s>, "x-mark-x", 4096, 16384) = 4096`
		sync   = `7 fdatasync(3</s>) = 0`
		meta   = `7 pwrite64(3</s>, "\x00\x01", 4096, 4096) = 4096`
		answer = `8 write(9<socket:[5]>, "HTTP/1.1 202 mark", 17) = 17`
	)
	for name, c := range map[string]struct {
		trace []string
		want  string
	}{
		"a commit and then the answer":      {[]string{data, sync, meta, sync, answer}, ""},
		"another commit beside it":          {[]string{data, `7 pwrite64(3</s>, "y", 1, 20480) = 1`, sync, meta, sync, `7 +++ exited with 0 +++`, answer}, ""},
		"never written":                     {[]string{sync, meta, sync, answer}, "no write of it"},
		"written afterwards":                {[]string{answer, data, sync, meta, sync}, "no write of it"},
		"no sync at all":                    {[]string{data, meta, answer}, "no sync after the write"},
		"no meta page":                      {[]string{data, sync, sync, answer}, "no meta page after the sync"},
		"the meta page before the sync":     {[]string{data, meta, sync, answer}, "no meta page after the sync"},
		"the meta page not synced":          {[]string{data, sync, meta, answer}, "no sync after the meta page"},
		"a sync of another file":            {[]string{data, sync, meta, `7 fdatasync(4</other>) = 0`, answer}, "no sync after the meta page"},
		"a sync that has not returned":      {[]string{data, sync, meta, `7 fdatasync(3</s> <unfinished ...>`, answer, `7 <... fdatasync resumed>) = 0`}, "no sync after the meta page"},
		"a sync that returns just in time":  {[]string{data, sync, meta, `7 fdatasync(3</s> <unfinished ...>`, `7 <... fdatasync resumed>) = 0`, answer}, ""},
		"a sync begun before the meta page": {[]string{data, sync, `9 fdatasync(3</s> <unfinished ...>`, meta, `9 <... fdatasync resumed>) = 0`, answer}, "no sync after the meta page"},
	} {
		t.Run(name, func(t *testing.T) {
			calls, err := parseTrace(strings.NewReader(strings.Join(c.trace, "\n") + "\n"))
			if err != nil {
				t.Fatal(err)
			}
			err = durableBefore(calls, sent(calls, "HTTP/1.1 202", []byte("mark")), "/s", []byte("mark"))
			if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestTraceThatIsCutShort(t *testing.T) {
	_, err := parseTrace(strings.NewReader(`7 pwrite64(3</s>, "\x01"..., 4096, 0) = 4096` + "\n"))
	if err == nil {
		t.Error("a trace without all bytes was read as if it were whole")
	}
}
