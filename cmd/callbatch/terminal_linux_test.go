package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

// openTerminal returns a terminal, and what reads what is written to it.
func openTerminal(t *testing.T) (terminal, reader *os.File) {
	t.Helper()
	reader, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI has to have terminals: %v", err)
		}
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { reader.Close() })
	if err := unix.IoctlSetPointerInt(int(reader.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(reader.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	return terminal, reader
}

func TestBoardOnATerminal(t *testing.T) {
	terminal, reader := openTerminal(t)
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 10, Col: 120}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		env  []string
		want bool // that it is drawn
	}{
		{nil, true},
		{[]string{"NO_COLOR=1"}, false},
		{[]string{"TERM=dumb"}, false},
	} {
		b := newBoard(&world{env: tt.env, stdout: terminal}, terminal)
		if err := b.show(client.Batch{ID: "one", Status: "running", Counts: batch.Counts{Total: 4, Succeeded: 1}}); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 1<<10)
		n, err := reader.Read(text)
		got := string(text[:n])
		if drawn := strings.Contains(got, "\x1b["); err != nil || drawn != tt.want || strings.Contains(got, "#####\x1b[2m.") != tt.want || !strings.Contains(got, "1 of 4") {
			t.Errorf("%v: the terminal got %q (%v)", tt.env, got, err)
		}
		if width, height := b.size(); width != 120 || height != 10 {
			t.Errorf("it has %d columns and %d lines", width, height)
		}
	}
}

func TestBodiesDoNothingToATerminal(t *testing.T) {
	terminal, reader := openTerminal(t)
	w := &world{stdout: terminal}
	body := []byte("{\"a\":\"\u009b31m\u202e\"}")
	for name, write := range map[string]func() error{
		"alone":     func() error { return writeBody(w, body) },
		"in a line": func() error { return writeAround(w, map[string]int{"n": 1}, "body", w.forScreen(body), nil) },
	} {
		if err := write(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1<<10)
		n, err := reader.Read(b)
		if got := string(b[:n]); err != nil || !strings.Contains(got, `{"a":"\u009b31m\u202e"}`) || !strings.HasSuffix(got, "\r\n") {
			t.Errorf("%s: the terminal got %q (%v)", name, got, err)
		}
	}
}
