package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/callbatch/callbatch/batch/client"
)

// A board shows how batches stand: on a terminal in a line each, which changes
// in place; elsewhere in a line when there is something new.
type board struct {
	w      *world
	out    io.Writer
	screen *screen
	json   bool // every change as a document instead

	rows    []row // of what has not ended, in the order in which it came
	drawn   int   // lines that stand on the terminal now
	waiting bool  // it was said that the server is away
}

// A row is what a board has shown of a batch.
type row struct {
	batch client.Batch // as it is now
	said  client.Batch // as it was when a line was written, where each is written below the last
	at    time.Time    // when that was
}

func newBoard(w *world, out io.Writer) *board {
	return &board{w: w, out: out, screen: &screen{out: out, lively: w.lively(out)}}
}

// show takes in how a batch stands now.
func (b *board) show(now client.Batch) error {
	b.waiting = false
	if b.json {
		return writeDocument(b.w, now)
	}
	i := slices.IndexFunc(b.rows, func(r row) bool { return r.batch.ID == now.ID })
	if i < 0 {
		i, b.rows = len(b.rows), append(b.rows, row{})
	}
	r := &b.rows[i]
	r.batch = now
	ended := now.Terminal()
	if b.screen.lively {
		var last string
		if ended {
			last = b.line(now) + "\n"
			b.rows = slices.Delete(b.rows, i, i+1)
		}
		return b.draw(last)
	}
	at := time.Now()
	if !isNews(r.said, now, at.Sub(r.at)) {
		return nil
	}
	r.said, r.at = now, at
	if ended {
		b.rows = slices.Delete(b.rows, i, i+1)
	}
	_, err := fmt.Fprintf(b.out, "%s  %-30s  %-9s  %s\n", at.Format(time.TimeOnly), printable(now.ID, mostShown), printable(now.Status, mostShown), details(now))
	return err
}

// isNews reports whether a line is due when the last was written so long ago:
// what a batch waits for may change many times a second.
func isNews(said, now client.Batch, ago time.Duration) bool {
	switch {
	case said.Status != now.Status, said.Round != now.Round, said.Callback.Status != now.Callback.Status:
		return true
	case said.WaitingOn != now.WaitingOn:
		return ago >= time.Second
	}
	return ago >= meterPace
}

// lost says, once, that the connection is lost.
func (b *board) lost(err error) {
	if b.waiting {
		return
	}
	b.waiting = true
	b.close()
	fmt.Fprintf(b.w.stderr, "%s; asking again until that is over\n", printable(err.Error(), mostLine))
}

// close leaves what is drawn as it is; more goes below it.
func (b *board) close() { b.drawn = 0 }

// draw writes what is to stay, and below it the lines that change, over those
// that stand there.
func (b *board) draw(stays string) error {
	const margin = 2 // lines for the prompt and for how many are hidden
	_, height := b.size()
	var text strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&text, "\x1b[%dA", b.drawn)
	}
	text.WriteString("\r\x1b[J" + stays)
	shown := min(len(b.rows), max(1, height-margin))
	for _, r := range b.rows[:shown] {
		text.WriteString(b.line(r.batch) + "\n")
	}
	b.drawn = shown
	if hidden := len(b.rows) - shown; hidden > 0 {
		fmt.Fprintf(&text, "and %d more\n", hidden)
		b.drawn++
	}
	_, err := io.WriteString(b.out, text.String())
	return err
}

// size returns the terminal's columns and lines.
func (b *board) size() (width, height int) {
	if f, ok := b.w.terminal(b.out); ok {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 && h > 0 {
			return w, h
		}
	}
	return 80, 24
}

// line writes a batch into one line of the terminal.
func (b *board) line(now client.Batch) string {
	const wide, bar, narrow = 110, 20, 8
	width, _ := b.size()
	length := narrow
	if width >= wide {
		length = bar
	}
	head := fmt.Sprintf("%-30s  ", printable(now.ID, mostShown))
	status := fmt.Sprintf("%-9s", printable(now.Status, mostShown))
	rest := fmt.Sprintf("  %3d %%  %s", 100*now.Counts.Finished()/max(1, now.Counts.Total), details(now))
	room := width - 1 - len(head) - len(status) - len("  ") - length
	if text := []rune(rest); len(text) > room {
		rest = string(text[:max(0, room)])
	}
	filled := length * now.Counts.Finished() / max(1, now.Counts.Total)
	return head + b.screen.paint(colourOf(now), status) + "  " +
		strings.Repeat("#", filled) + b.screen.paint(dim, strings.Repeat(".", length-filled)) + rest
}

func colourOf(b client.Batch) string {
	switch {
	case b.Terminal() && b.Counts.Succeeded == b.Counts.Total:
		return green
	case b.Terminal():
		return red
	case b.WaitingOn != "":
		return yellow
	}
	return bold
}

// details says how far a batch is and what keeps it, in what does nothing to a
// terminal.
func details(b client.Batch) string {
	c := b.Counts
	parts := []string{fmt.Sprintf("%d of %d", c.Finished(), c.Total)}
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if c.Failed+c.Canceled+c.Expired > 0 {
		c.Succeeded, c.Running, c.Pending = 0, 0, 0
		add("%s", countsLine(c))
	}
	parts = append(parts, speed(b)...)
	if b.WaitingOn != "" && string(b.WaitingOn) != b.Status {
		add("waiting on %s", b.WaitingOn)
	}
	if b.Reason != "" {
		add("%s", b.Reason)
	}
	if b.Round > 1 {
		add("round %d", b.Round)
	}
	if s := b.Callback.Status; s != "" && s != "none" {
		add("callback %s", s)
	}
	return printable(strings.Join(parts, ", "), mostShown)
}

// speed says how fast a batch is and how long it will take, as far as that is
// known.
func speed(b client.Batch) (parts []string) {
	if b.Terminal() {
		return nil
	}
	if b.Rate != nil {
		parts = append(parts, strings.TrimSuffix(fmt.Sprintf("%.1f", *b.Rate), ".0")+"/s")
	}
	if b.ETA != nil {
		parts = append(parts, max(0, time.Until(*b.ETA)).Round(time.Second).String()+" left")
	}
	return parts
}
