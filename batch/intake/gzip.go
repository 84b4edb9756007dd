package intake

import (
	"bufio"
	"io"

	"github.com/klauspost/compress/gzip"
)

// members reads the members of a gzip stream as one. The library's own way of
// doing so takes a member that is cut off within the name in its header for
// the clean end of the stream, and what should have followed is lost unseen.
type members struct {
	in *bufio.Reader
	z  gzip.Reader
}

func openGzip(r io.Reader, _ *share) (io.Reader, error) {
	m := &members{in: bufio.NewReaderSize(r, readBuffer)}
	return m, m.next()
}

// next reads the header of the next member, which must be there.
func (m *members) next() error {
	err := m.z.Reset(m.in)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	m.z.Multistream(false)
	return err
}

func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.z.Read(p)
		if n > 0 && err == io.EOF {
			return n, nil
		}
		if err != io.EOF {
			return n, err
		}
		if _, err := m.in.Peek(1); err != nil {
			return 0, err
		}
		if err := m.next(); err != nil {
			return 0, err
		}
	}
}
