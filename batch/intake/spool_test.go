package intake

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/callbatch/callbatch/batch"
)

func TestSpoolKeepsOrderAndBytes(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 300_000} { // from nothing to several MiB
		t.Run(fmt.Sprint(n, " items"), func(t *testing.T) {
			s := &spool{dir: t.TempDir(), share: new(share)}
			defer s.close()
			for i := range n {
				if err := s.add(fmt.Appendf(nil, `{"n":%d}`, i), i-1, i%3 == 0); err != nil {
					t.Fatal(err)
				}
			}
			i := 0
			err := s.each(func(raw []byte, line int, valid bool) error {
				if want := fmt.Sprintf(`{"n":%d}`, i); string(raw) != want || line != i-1 || valid != (i%3 == 0) {
					return fmt.Errorf("item %d is %q of line %d, valid %t", i, raw, line, valid)
				}
				i++
				return nil
			})
			if err != nil || i != n {
				t.Error(i, err)
			}
		})
	}
}

func TestTemporaryFilesThatCannotBe(t *testing.T) {
	t.Run("a missing folder is the operator's mistake", func(t *testing.T) {
		_, err := unlinkedFile(filepath.Join(t.TempDir(), "missing"))
		if !errors.Is(err, os.ErrNotExist) || batch.CodeOf(err) != "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a full disk is said to be full", func(t *testing.T) {
		err := spillError(&os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
		if batch.CodeOf(err) != batch.Full || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
	})
}
