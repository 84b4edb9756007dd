package intake

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/callbatch/callbatch/batch"
)

const spoolMemory = 1 << 20

// A spool holds items that cannot be judged yet: the first MiB in memory, more
// in a file.
type spool struct {
	dir    string
	share  *share
	held   int // for memory, and to read it all again
	memory []byte
	file   *os.File // nil: all is in memory
}

// add keeps an item with the line it stands on, -1 if unknown, and whether it
// is strict JSON for sure.
func (s *spool) add(raw []byte, line int, valid bool) error {
	mark := uint64(line+1) << 1
	if valid {
		mark |= 1
	}
	if err := s.share.grow(&s.held, len(s.memory)+len(raw)+2*binary.MaxVarintLen64); err != nil {
		return err
	}
	s.memory = binary.AppendUvarint(s.memory, mark)
	s.memory = append(binary.AppendUvarint(s.memory, uint64(len(raw))), raw...)
	if len(s.memory) < spoolMemory {
		return nil
	}
	return s.spill()
}

// spill moves what is in memory to the file.
func (s *spool) spill() error {
	if s.file == nil {
		f, err := unlinkedFile(s.dir)
		if err != nil {
			return err
		}
		s.file = f
	}
	if _, err := s.file.Write(s.memory); err != nil {
		return spillError(err)
	}
	s.memory = s.memory[:0]
	return nil
}

// each calls f with every item, in order, until f fails. The bytes are good
// during the call only.
func (s *spool) each(f func(raw []byte, line int, valid bool) error) error {
	var stored io.Reader = bytes.NewReader(nil)
	if s.file != nil {
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("rewind spooled items: %w", err)
		}
		stored = s.file
	}
	buffer := readBuffer
	if s.file == nil {
		buffer = min(buffer, len(s.memory))
	}
	r := bufio.NewReaderSize(io.MultiReader(stored, bytes.NewReader(s.memory)), buffer)
	var raw []byte
	for {
		mark, err := binary.ReadUvarint(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read spooled items: %w", err)
		}
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return fmt.Errorf("read spooled items: %w", err)
		}
		if uint64(cap(raw)) < size {
			if err := s.share.grow(&s.held, cap(s.memory)+int(size)); err != nil {
				return err
			}
			raw = make([]byte, size)
		}
		raw = raw[:size]
		if _, err := io.ReadFull(r, raw); err != nil {
			return fmt.Errorf("read spooled items: %w", err)
		}
		if err := f(raw, int(mark>>1)-1, mark&1 == 1); err != nil {
			return err
		}
	}
}

func (s *spool) close() {
	if s.file != nil {
		_ = s.file.Close() // a temporary file without a name
	}
}

// unlinkedFile opens a temporary file that is gone when it is closed, however
// the process ends.
func unlinkedFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "callbatch-intake-*")
	if err != nil {
		return nil, spillError(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("unlink temporary file: %w", err)
	}
	return f, nil
}

// spillError makes a full disk the refusal it is.
func spillError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", batch.Errorf(batch.Full, "there is no room for temporary files"), err)
	}
	return fmt.Errorf("write temporary file: %w", err)
}
