package main

import (
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
)

// A meter shows on stderr how far something has come: a bar on a terminal, a
// line every few seconds elsewhere. What is over quickly shows nothing.
type meter struct {
	out   io.Writer
	bar   *progressbar.ProgressBar // nil where lines are written
	what  string
	total int64 // -1: unknown
	done  int64
	shown time.Time
}

// Between two lines of a meter, and before the first.
const meterPace = 5 * time.Second

// newMeter begins to measure: what is the verb, "sent", and unit what there
// is total of; "bytes" are shown as such.
func newMeter(w *world, total int64, what, unit string) *meter {
	m := &meter{out: w.stderr, what: what, total: total, shown: time.Now()}
	if w.lively(w.stderr) {
		m.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(w.stderr),
			progressbar.OptionSetDescription(what),
			progressbar.OptionShowBytes(unit == "bytes"),
			progressbar.OptionShowCount(),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetTheme(progressbar.ThemeASCII),
		)
	}
	return m
}

// Write counts what passes by, for an [io.TeeReader].
func (m *meter) Write(p []byte) (int, error) {
	m.set(m.done + int64(len(p)))
	return len(p), nil
}

func (m *meter) set(done int64) {
	m.done = done
	switch {
	case m.bar != nil:
		_ = m.bar.Set64(done) // only shown
	case time.Since(m.shown) < meterPace:
	case m.total < 0:
		m.line("%s: %d", m.what, done)
	default:
		m.line("%s: %d of %d", m.what, done, m.total)
	}
}

func (m *meter) line(format string, args ...any) {
	m.shown = time.Now()
	fmt.Fprintf(m.out, format+"\n", args...)
}

// close takes the bar away.
func (m *meter) close() {
	if m.bar != nil {
		_ = m.bar.Finish() // only shown
	}
}
