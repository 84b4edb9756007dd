package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

// Of an upload in parts: from which size on a file is sent so by itself, how
// large the parts are and at most how many of them, and how many are under way
// at a time.
const (
	largeFile   = 64 << 20
	usualPart   = 16 << 20
	largestPart = 56 << 20 // what a server takes, less a row and a header
	usualParts  = 9000     // of the 10,000 that a server takes
	abreast     = 4
)

// A convoy is an upload in parts.
type convoy struct {
	*submission
	w    *world
	c    *client.Client
	in   *os.File
	info fs.FileInfo
	mark *bookmark

	id     string
	header []byte // of CSV
	there  map[int]client.Part

	mu    sync.Mutex // of what follows
	meter *meter
	lines []int     // of the file, where each part begins
	said  time.Time // that the server is away
}

// convoy sends the file in parts, after those that are there already if it is
// an upload that was interrupted, and returns the batch once it is whole.
func (s *submission) convoy(ctx context.Context, w *world, c *client.Client, f *os.File, info fs.FileInfo) (b client.Batch, err error) {
	v := &convoy{submission: s, w: w, c: c, in: f, info: info}
	if v.mark, err = newBookmark(w, serverURL(w), s.file, info, s.options); err != nil {
		return b, err
	}
	if b, err = v.open(ctx); err != nil {
		return b, err
	}
	if b.Status != batch.Open.String() {
		fmt.Fprintf(w.stderr, "%s was sent in full before: it is %s\n", printable(b.ID, mostShown), printable(b.Status, mostShown))
		return b, v.mark.drop()
	}
	v.id = b.ID
	if b, err = v.send(ctx); err != nil {
		return b, v.abandon(ctx, err)
	}
	return b, v.mark.drop()
}

// open finds the batch to go on with, or makes it.
func (v *convoy) open(ctx context.Context) (b client.Batch, err error) {
	kept, found := v.mark.recall()
	if v.resume != "" {
		found = found && kept.Batch == v.resume
	}
	v.mark.PartSize = cmp.Or(int64(v.partSize), v.usualSize())
	if found {
		v.mark.PartSize = cmp.Or(int64(v.partSize), kept.PartSize)
	}
	if v.resume != "" {
		b, err = v.c.Batch(ctx, v.resume)
		if err == nil && b.Status != batch.Open.String() {
			err = fmt.Errorf("%s is %s: it lacks no part", printable(b.ID, mostShown), printable(b.Status, mostShown))
		}
		return b, err
	}
	if found {
		b, err = v.c.Batch(ctx, kept.Batch)
		var refused *client.Error
		if !errors.As(err, &refused) || exitCodeOf(refused) != exitNotFound {
			return b, err
		}
	}
	return v.begin(ctx)
}

// begin makes the batch, and a bookmark of it.
func (v *convoy) begin(ctx context.Context) (b client.Batch, err error) {
	key := cmp.Or(v.key, rand.Text())
	if b, err = persist(ctx, v.w, func() (client.Batch, error) { return v.c.OpenBatch(ctx, v.options, key) }); err != nil {
		return b, err
	}
	v.mark.Batch = b.ID
	if err := v.mark.keep(); err != nil {
		fmt.Fprintf(v.w.stderr, "the same command would begin anew after an interruption: %s\n", printable(err.Error(), mostLine))
		v.mark.path = ""
	}
	return b, nil
}

// usualSize is how large parts are, so that there are not too many.
func (v *convoy) usualSize() int64 {
	return min(largestPart, max(usualPart, v.info.Size()/usualParts))
}

// send sends the parts that are not there and seals the batch.
func (v *convoy) send(ctx context.Context) (b client.Batch, err error) {
	parts, err := v.c.Parts(ctx, v.id)
	if err != nil {
		return b, err
	}
	v.there = make(map[int]client.Part, len(parts))
	for _, p := range parts {
		v.there[p.Part] = p
	}
	if len(parts) > 0 {
		if err := v.compare(); err != nil {
			return b, err
		}
		fmt.Fprintf(v.w.stderr, "going on with %s: %d parts are there\n", v.id, len(parts))
	}
	v.meter = newMeter(v.w, v.info.Size(), "sent", "bytes")
	defer v.meter.close()
	cut, err := v.cutter()
	if err != nil {
		return b, err
	}
	v.header = cut.header
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(abreast)
	for p, err := range cut.pieces() {
		if within.Err() != nil {
			break
		}
		v.note(p)
		g.Go(func() error {
			if err != nil {
				return fmt.Errorf("%s: %w", v.file, err)
			}
			return v.bring(within, p)
		})
	}
	if err := g.Wait(); err != nil {
		return b, cmp.Or(context.Cause(ctx), err)
	}
	if len(v.lines) == 0 {
		return b, fmt.Errorf("%w in %s to send", errNothing, v.file)
	}
	if now, err := v.in.Stat(); err != nil || now.Size() != v.info.Size() || !now.ModTime().Equal(v.info.ModTime()) {
		return b, errors.Join(err, fmt.Errorf("%s: %w", v.file, errChanged))
	}
	key := fingerprint(v.id, "seal")
	b, err = persist(ctx, v.w, func() (client.Batch, error) { return v.c.Seal(ctx, v.id, len(v.lines), key) })
	return b, v.placed(err)
}

var (
	errNothing = errors.New("there is nothing")
	errChanged = errors.New("the file has changed since a part of it was sent")
)

// cutter cuts the file, from its beginning.
func (v *convoy) cutter() (*cutter, error) {
	cut := newCutter(io.NewSectionReader(v.in, 0, v.info.Size()), v.media.kind == csvKind, v.mark.PartSize)
	if err := cut.head(); err != nil {
		return nil, fmt.Errorf("%s: %w", v.file, err)
	}
	return cut, nil
}

// compare holds the file against the parts that are there, before more are
// sent.
func (v *convoy) compare() error {
	cut, err := v.cutter()
	if err != nil {
		return err
	}
	same := 0
	for p, err := range cut.pieces() {
		if err != nil {
			return fmt.Errorf("%s: %w", v.file, err)
		}
		if v.there[p.number].SHA256 == p.sum {
			same++
		}
	}
	if same < len(v.there) {
		return fmt.Errorf("%s: %w, or that was with another --part-size", v.file, errChanged)
	}
	return nil
}

// note takes note of where a piece begins.
func (v *convoy) note(p piece) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lines = append(v.lines, p.line)
}

// bring makes sure that a piece is there as a part.
func (v *convoy) bring(ctx context.Context, p piece) error {
	if _, there := v.there[p.number]; there {
		v.count(p.length)
		return nil
	}
	part, err := endure(ctx, persistence, v.away, func() (client.Part, error) { return v.put(ctx, p) })
	switch {
	case err != nil:
		return v.placed(err)
	case part.SHA256 != p.sum:
		return fmt.Errorf("%s: %w", v.file, errChanged)
	}
	return nil
}

// put sends a piece as a part.
func (v *convoy) put(ctx context.Context, p piece) (client.Part, error) {
	sent := &counted{Reader: io.NewSectionReader(v.in, p.offset, p.length), on: v.count}
	part, err := v.c.PutPart(ctx, v.id, p.number, io.MultiReader(bytes.NewReader(v.header), sent), client.PartOptions{
		ContentType: v.media.kind, Length: int64(len(v.header)) + p.length,
	})
	if err != nil {
		v.count(-sent.n.Load())
	}
	return part, err
}

// away says now and then that the server is away.
func (v *convoy) away(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Since(v.said) > persistence/2 {
		v.said = time.Now()
		anew(v.w, err)
	}
}

// placed gives the places of a refusal as lines of the file.
func (v *convoy) placed(err error) error {
	var refused *client.Error
	if !errors.As(err, &refused) {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, at := range refused.Errors {
		if at.Part == nil || at.Line == nil || *at.Part >= len(v.lines) {
			continue
		}
		line := v.lines[*at.Part] + *at.Line - 1
		if v.header != nil {
			line -= bytes.Count(v.header, []byte{'\n'})
		}
		refused.Errors[i].Part, refused.Errors[i].Index, refused.Errors[i].Line = nil, nil, &line
	}
	return err
}

func (v *convoy) count(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.meter.set(v.meter.done + n)
}

// abandon ends an upload that failed: what the server refused is taken back,
// for anything else it is said how to go on.
func (v *convoy) abandon(ctx context.Context, err error) error {
	switch {
	case hopeless(err) && v.key == "":
		if v.c.Delete(ctx, v.id, false) != nil {
			fmt.Fprintln(v.w.stderr, "what was sent of it is left to the server, which removes it within a day")
		}
		return errors.Join(err, v.mark.drop())
	case hopeless(err) || errors.Is(err, errChanged):
		return err
	}
	command := "callbatch submit " + quote(v.file) + " --resume " + v.id
	if v.mark.PartSize != v.usualSize() {
		command += fmt.Sprintf(" --part-size %d", v.mark.PartSize)
	}
	fmt.Fprintf(v.w.stderr, "the upload is not done; this goes on with it:\n  %s\n", printable(command, mostLine))
	return err
}

// quote writes a word so that a shell takes it as it is.
func quote(word string) string {
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+=:@%", r)
	}) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// hopeless reports whether the file as it is will never be taken.
func hopeless(err error) bool {
	var refused *client.Error
	if !errors.As(err, &refused) {
		return errors.Is(err, errNothing)
	}
	switch refused.Status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	}
	return false
}

// counted calls on with each number of bytes that are read.
type counted struct {
	io.Reader
	on func(int64)
	n  atomic.Int64 // so far
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	c.on(int64(n))
	return n, err
}
