package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns a terminal, and what reads what is written to it.
func openTerminal(t *testing.T) (terminal, reader *os.File) {
	t.Helper()
	reader, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
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
