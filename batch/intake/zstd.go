package intake

import (
	"bufio"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/callbatch/callbatch/batch"
)

// zstdWindow is the most memory a frame may ask for, in bytes: what RFC 8878
// wants every decoder to have.
const zstdWindow = 8 << 20

// frames reads the frames of a Zstandard stream as one.
type frames struct{ z *zstd.Decoder }

func openZstd(r io.Reader, sh *share) (io.Reader, error) {
	in := bufio.NewReaderSize(r, readBuffer)
	switch _, err := in.Peek(1); {
	case err == io.EOF: // there must be a frame
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	z, err := zstd.NewReader(&windowed{in: in, share: sh}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
	if err != nil {
		return nil, err
	}
	return frames{z}, nil
}

func (f frames) Read(p []byte) (int, error) {
	n, err := f.z.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = batch.Refuse(batch.TooLarge, "zstd_window_too_large",
			"a zstd frame has a window of at most %d bytes: compress at level 19 or below, without --long", zstdWindow)
	}
	return n, err
}
