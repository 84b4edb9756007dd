package intake

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/callbatch/callbatch/batch"
)

const (
	readBuffer = 64 << 10
	freeRatio  = 10 << 20 // decoded bytes that no ratio is asked of
)

// A coding undoes one content coding. open may read; its error must not be
// io.EOF. broken is the reason of the refusal if
// what it is fed is not of that coding.
type coding struct {
	open   func(io.Reader, *share) (io.Reader, error)
	broken string
}

// codingOf returns how to undo a content coding, or Unsupported.
func codingOf(name string) (coding, error) {
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "", "identity":
		return coding{open: func(r io.Reader, _ *share) (io.Reader, error) { return r, nil }}, nil
	case "gzip", "x-gzip":
		return coding{open: openGzip, broken: "bad_gzip"}, nil
	case "zstd":
		return coding{open: openZstd, broken: "bad_zstd"}, nil
	default:
		return coding{}, batch.Refuse(batch.Unsupported, "unsupported_coding", "the content coding is gzip, zstd or none, not %q", clip(name))
	}
}

// wire is the body as sent. It remembers what went wrong below any coding, and
// ends what a coding would swallow for ever, such as empty members.
type wire struct {
	ctx  context.Context // of the one call of Read it serves
	r    io.Reader
	most int64
	n    int64
	err  error
}

func (w *wire) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		w.err = err
		return 0, err
	}
	if w.n > w.most {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := w.r.Read(p)
	w.n += int64(n)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// body is the decoded body within its limits. Every error but io.EOF is, or
// wraps, a [*batch.Error], and stays. Nothing is read before the first Read.
type body struct {
	wire   *wire
	coding coding
	plain  io.Reader // nil before the first Read
	share  *share    // of the memory for bodies
	most   bound
	ratio  int64
	n      int64
	err    error
}

// A bound is how many bytes what is read may have, and what that is: the word
// its setting is made of.
type bound struct {
	word  string
	bytes int64
}

func openBody(ctx context.Context, r Request, o Options, of bound) (*body, error) {
	c, err := codingOf(r.ContentEncoding)
	if err != nil {
		return nil, err
	}
	most := of.bytes
	if c.broken != "" {
		most += most/256 + 4<<10 // a coding adds a little to what it cannot compress
	}
	b := &body{wire: &wire{ctx: ctx, r: r.Body, most: most}, coding: c, most: of, ratio: int64(o.Ratio)}
	if r.Length > most {
		return nil, b.tooLarge()
	}
	return b, nil
}

func (b *body) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.plain == nil {
		b.plain, err = b.coding.open(b.wire, b.share)
	}
	if err == nil {
		n, err = b.plain.Read(p)
		b.n += int64(n)
	}
	b.err = b.judge(err)
	return n, b.err
}

// judge turns the outcome of a read into what the reader is told.
func (b *body) judge(err error) error {
	switch {
	case b.n > b.most.bytes || b.wire.n > b.wire.most:
		return b.tooLarge()
	case b.n > freeRatio && b.n/b.ratio > b.wire.n:
		return batch.Refuse(batch.TooLarge, "ratio_too_large",
			"the body decodes to more than %d times what was sent (limits.ratio)", b.ratio)
	case err != nil && b.wire.err != nil: // also where a decoder takes the break for its end
		return fmt.Errorf("%w: %w", errIncomplete(), b.wire.err)
	case err == nil || err == io.EOF || batch.CodeOf(err) != "":
		return err
	default:
		return batch.Refuse(batch.Malformed, b.coding.broken, "the body is truncated or corrupt, or not of the content coding it names")
	}
}

func errIncomplete() error {
	return batch.Refuse(batch.Malformed, "incomplete_body", "the body ended early")
}

func (b *body) tooLarge() error {
	word := b.most.word
	return batch.Refuse(batch.TooLarge, word+"_too_large", "a %s has at most %d bytes, decoded (limits.%s_bytes)", word, b.most.bytes, word)
}

// skipBOM skips one byte order mark of UTF-8, and refuses UTF-16 and UTF-32
// for what they are.
func skipBOM(in *bufio.Reader) error {
	const mark = "\xef\xbb\xbf"
	head, _ := in.Peek(4) // an error comes again
	switch {
	case bytes.HasPrefix(head, []byte(mark)):
		_, err := in.Discard(len(mark))
		return err
	case isWide(head):
		return batch.Refuse(batch.Malformed, "invalid_utf8", "the body must be UTF-8; it looks like UTF-16 or UTF-32")
	}
	return nil
}

// isWide reports whether a text begins as UTF-16 or UTF-32 does: with a byte
// order mark of theirs, or with NULs where ASCII has them in four bytes.
func isWide(head []byte) bool {
	for _, mark := range []string{"\xff\xfe", "\xfe\xff", "\x00\x00\xfe\xff"} {
		if bytes.HasPrefix(head, []byte(mark)) {
			return true
		}
	}
	if len(head) < 4 {
		return false
	}
	switch [4]bool{head[0] == 0, head[1] == 0, head[2] == 0, head[3] == 0} {
	case [4]bool{0: true, 2: true}, [4]bool{1: true, 3: true}, // UTF-16
		[4]bool{0: true, 1: true, 2: true}, [4]bool{1: true, 2: true, 3: true}: // UTF-32
		return true
	}
	return false
}
