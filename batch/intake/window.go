package intake

import (
	"bufio"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"
)

// A windowed reads Zstandard as it is and accounts for the window of each frame
// before the decoder comes to it, which allocates the whole of it at once. What
// is no Zstandard is left for the decoder to find.
type windowed struct {
	in    *bufio.Reader
	share *share
	held  int
	left  int64 // bytes up to the next header
	frame bool  // that is the header of a block, not that of a frame
	sum   bool  // the frame ends in a checksum
}

func (w *windowed) Read(p []byte) (int, error) {
	for w.left == 0 {
		if err := w.header(); err != nil {
			return 0, err
		}
	}
	n, err := w.in.Read(p[:min(int64(len(p)), w.left)])
	w.left -= int64(n)
	return n, err
}

// header looks at the next header.
func (w *windowed) header() error {
	size := zstd.HeaderMaxSize
	if w.frame {
		size = blockHeader
	}
	b, err := w.in.Peek(size)
	if len(b) == 0 || err != nil && err != io.EOF {
		return err
	}
	if w.frame {
		w.block(b)
		return nil
	}
	var h zstd.Header
	switch {
	case h.Decode(b) != nil:
		w.left = math.MaxInt64
	case h.Skippable:
		w.left = int64(h.HeaderSize) + int64(h.SkippableSize)
	default:
		w.left, w.frame, w.sum = int64(h.HeaderSize), true, h.HasCheckSum
		window := h.WindowSize
		if h.SingleSegment {
			window = h.FrameContentSize
		}
		if window <= zstdWindow { // else it is refused
			return w.share.grow(&w.held, int(window))
		}
	}
	return nil
}

const blockHeader = 3 // bytes

// block looks at the header of a block, as RFC 8878, 3.1.1.2 has it.
func (w *windowed) block(b []byte) {
	if len(b) < blockHeader {
		w.left = math.MaxInt64
		return
	}
	const rle, sumBytes = 1, 4
	h := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	last, kind, size := h&1 == 1, h>>1&3, int64(h>>3)
	if kind == rle {
		size = 1
	}
	w.left = blockHeader + size
	if last {
		w.frame = false
		if w.sum {
			w.left += sumBytes
		}
	}
}
