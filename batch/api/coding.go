package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// smallAnswer is up to how many bytes an answer is not worth coding.
const smallAnswer = 1400

// An encoder codes what it is written. Flush brings all of it out.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// encoders keep encoders for the next answer: one is more memory than most
// answers. None works with goroutines of its own.
var encoders = map[string]*sync.Pool{
	"gzip": {New: func() any {
		e, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			panic("api: gzip: " + err.Error())
		}
		return e
	}},
	"zstd": {New: func() any {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithZeroFrames(true), zstd.WithWindowSize(256<<10))
		if err != nil {
			panic("api: zstd: " + err.Error())
		}
		return e
	}},
}

// A coded is where a long answer is written: coded as the client can take it,
// or as it is.
type coded struct {
	w      http.ResponseWriter
	coding string
	encoder
}

// code prepares an answer of unknown length. Its header is not written yet.
func code(w http.ResponseWriter, r *http.Request) *coded {
	w.Header().Add("Vary", "Accept-Encoding")
	c := &coded{w: w, coding: chooseCoding(r.Header.Values("Accept-Encoding"))}
	if c.coding != "" {
		w.Header().Set("Content-Encoding", c.coding)
	}
	return c
}

// Write writes some of the answer.
func (c *coded) Write(p []byte) (int, error) {
	if c.coding == "" {
		return c.w.Write(p)
	}
	if c.encoder == nil {
		c.encoder = encoders[c.coding].Get().(encoder)
		c.Reset(c.w)
	}
	return c.encoder.Write(p)
}

// send writes some of the answer and brings it on its way, or ends it.
func (c *coded) send(p []byte, last bool) error {
	_, err := c.Write(p)
	switch {
	case err != nil:
	case last:
		err = c.Close()
	default:
		err = c.Flush()
	}
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// Flush sends what was written on its way. Until there is more nothing has a
// deadline.
func (c *coded) Flush() error {
	if c.encoder != nil {
		if err := c.encoder.Flush(); err != nil {
			return err
		}
	}
	return flush(c.w)
}

// Close ends an answer that is whole. One that is not is left as it is, so
// that nobody takes it for more.
func (c *coded) Close() error {
	if c.coding == "" {
		return nil
	}
	if c.encoder == nil { // of nothing
		if _, err := c.Write(nil); err != nil {
			return err
		}
	}
	return c.encoder.Close()
}

// codeWhole codes a body that is at hand if the client can take it and it is
// worth it, and says so in the header.
func codeWhole(h http.Header, accept []string, body []byte) []byte {
	if len(body) <= smallAnswer || h.Get("Content-Length") != "" {
		return body
	}
	h.Add("Vary", "Accept-Encoding")
	coding := chooseCoding(accept)
	if coding == "" {
		return body
	}
	h.Set("Content-Encoding", coding)
	var b bytes.Buffer
	e := encoders[coding].Get().(encoder)
	defer encoders[coding].Put(e)
	e.Reset(&b)
	_, err := e.Write(body)
	if err = errors.Join(err, e.Close()); err != nil {
		panic("api: into memory: " + err.Error())
	}
	e.Reset(nil)
	return b.Bytes()
}

// free gives the encoder back.
func (c *coded) free() {
	if c.encoder != nil {
		c.Reset(nil)
		encoders[c.coding].Put(c.encoder)
		c.encoder = nil
	}
}
