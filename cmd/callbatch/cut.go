package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
)

// A piece is a run of whole lines of a file, or of whole rows of CSV.
type piece struct {
	number int   // from 0
	offset int64 // in the file
	length int64 // in bytes
	line   int   // of the file, where it begins
	sum    string
}

// A cutter cuts a file into pieces. Only the last line may lack its end.
type cutter struct {
	in     *bufio.Reader
	csv    bool
	size   int64 // of a piece at least, but the last; a line more at most
	header []byte

	offset int64
	line   int
}

// mostRow is how far a line, or a row, may go beyond the size of a piece: the
// largest item, and air.
const mostRow = 4 << 20

func newCutter(in io.Reader, csv bool, size int64) *cutter {
	return &cutter{in: bufio.NewReaderSize(in, 1<<20), csv: csv, size: size, line: 1}
}

// head reads the header of CSV, which every piece is sent below.
func (c *cutter) head() error {
	if mark, _ := c.in.Peek(len(byteOrderMark)); string(mark) == byteOrderMark {
		n, _ := c.in.Discard(len(mark)) // it was there a moment ago
		c.offset = int64(n)
	}
	if !c.csv {
		return nil
	}
	err := c.row(func(part []byte) { c.header = append(c.header, part...) })
	if err == io.EOF {
		c.header = nil // there are no rows below
		return nil
	}
	return err
}

// pieces returns the pieces in order. What has nothing but white space in it
// is none.
func (c *cutter) pieces() iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		for n := 0; ; {
			p := piece{number: n, offset: c.offset, line: c.line}
			hash, text := sha256.New(), false
			hash.Write(c.header)
			var err error
			for err == nil && c.offset-p.offset < c.size {
				err = c.row(func(part []byte) {
					hash.Write(part)
					text = text || len(bytes.TrimSpace(part)) > 0
				})
			}
			if err != nil && err != io.EOF {
				yield(p, err)
				return
			}
			if p.length, p.sum = c.offset-p.offset, hex.EncodeToString(hash.Sum(nil)); text {
				if !yield(p, nil) {
					return
				}
				n++
			}
			if err == io.EOF {
				return
			}
		}
	}
}

// row reads one line, or one row of CSV, whose cells may have line ends within
// quotes, and gives it to take piecemeal. It returns io.EOF where the file
// ends.
func (c *cutter) row(take func([]byte)) error {
	first, length, quotes := c.line, 0, 0
	for {
		part, err := c.in.ReadSlice('\n')
		take(part)
		c.offset += int64(len(part))
		if length += len(part); length > mostRow {
			return fmt.Errorf("line %d is longer than an item may be", first)
		}
		if c.csv {
			quotes += bytes.Count(part, []byte{'"'})
		}
		switch err {
		case nil:
			c.line++
			if quotes%2 == 0 {
				return nil
			}
		case bufio.ErrBufferFull:
		default:
			return err
		}
	}
}
