package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/bolt"
	"github.com/callbatch/callbatch/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) { storagetest.Run(t, place) }

func TestStoreOverTime(t *testing.T) { storagetest.RunTimed(t, place, synctest.Test) }

func TestSharedStore(t *testing.T) {
	storagetest.RunShared(t, func(t testing.TB) (a, b batch.Store) {
		s, err := place(t).Open(batch.Terms{Hold: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return s, s
	})
}

func BenchmarkStore(b *testing.B) { storagetest.Bench(b, place) }

// place is a store file; killing its process means going on with a copy.
func place(t testing.TB) storagetest.Place {
	dir, life := t.TempDir(), 0
	path := func() string { return filepath.Join(dir, fmt.Sprintf("%d.db", life)) }
	return storagetest.Place{
		Open: func(terms batch.Terms) (batch.Store, error) {
			return bolt.Open(path(), bolt.Options{Terms: terms})
		},
		Kill: func() error {
			from := path()
			life++
			return snapshot(from, path())
		},
	}
}

// snapshot copies a store file that may be written to. Between two readings
// of the same meta pages only pages that neither meta names were written, as
// when the process had died there.
func snapshot(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	for {
		before, err := metaPages(src)
		if err != nil {
			return err
		}
		if err := copyFile(src, to); err != nil {
			return err
		}
		after, err := metaPages(src)
		if err != nil || bytes.Equal(before, after) {
			return err
		}
	}
}

func metaPages(f *os.File) ([]byte, error) {
	b := make([]byte, 2*os.Getpagesize())
	_, err := f.ReadAt(b, 0)
	return b, err
}

// copyFile leaves holes where the file is empty: most of a new store is.
func copyFile(src *os.File, to string) error {
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	b, empty := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; at += int64(len(b)) {
		n, err := src.ReadAt(b, at)
		if !bytes.Equal(b[:n], empty[:n]) {
			if _, err := dst.WriteAt(b[:n], at); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return dst.Truncate(at + int64(n))
		}
		if err != nil {
			return err
		}
	}
}
