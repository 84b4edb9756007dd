package command

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/time/rate"
)

// What the workers of a processor may write into the log. The rest is counted.
const (
	linesAtOnce   = 50
	linesASecond  = 10
	mostLineBytes = 1 << 10
)

// A diary is what is logged of the workers of a processor: bounded, however
// much they have to say.
type diary struct {
	log     *slog.Logger
	limit   *rate.Limiter
	skipped atomic.Int64
}

func newDiary(log *slog.Logger) *diary {
	return &diary{log: log, limit: rate.NewLimiter(linesASecond, linesAtOnce)}
}

func (d *diary) write(level slog.Level, message string, args ...any) {
	if !d.limit.AllowN(time.Now(), 1) {
		d.skipped.Add(1)
		return
	}
	if n := d.skipped.Swap(0); n > 0 {
		args = append(args, "skipped", n)
	}
	d.log.Log(context.Background(), level, message, args...)
}

// listen writes down what a worker says on its standard error, line by line,
// until it ends.
func (d *diary) listen(pid int, stderr io.Reader) {
	for lines := bufio.NewReaderSize(stderr, mostLineBytes); ; {
		line, cut, err := lines.ReadLine()
		if len(line) > 0 {
			d.write(slog.LevelInfo, "worker says", "pid", pid, "text", printable(line), "cut", cut)
		}
		for cut && err == nil {
			_, cut, err = lines.ReadLine()
		}
		if err != nil {
			return
		}
	}
}

// printable returns line as text that is safe to show.
func printable(line []byte) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(string(line), "\uFFFD"))
}
