package bolt_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
)

// A disk writes sectors, a database pages.
const (
	sector = 512
	page   = 4096
)

// image is a store file, byte for byte.
type image []byte

func readImage(path string) (image, error) { return os.ReadFile(path) }

// write makes a file of the image, a new one, as a judge may still have the
// last one open. Empty pages become holes.
func (im image) write(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var empty [page]byte
	for at := 0; at < len(im); at += page {
		p := im[at:min(at+page, len(im))]
		if bytes.Equal(p, empty[:len(p)]) {
			continue
		}
		if _, err := f.WriteAt(p, int64(at)); err != nil {
			return err
		}
	}
	if err := f.Truncate(int64(len(im))); err != nil {
		return err
	}
	return f.Close()
}

// commit returns the number of the last transaction: the higher one of the
// two meta pages.
func (im image) commit() uint64 {
	const at = 64 // of the transaction id within a meta page
	return max(binary.LittleEndian.Uint64(im[at:]), binary.LittleEndian.Uint64(im[page+at:]))
}

// change is what one commit did to the file: data pages, which are synced
// first, and then one meta page.
type change struct {
	was, is image // of the same length
	data    []int // pages
	meta    int   // page
}

// diff finds what one commit changed. It is no commit of bbolt's if it did not
// change exactly one meta page, and count on by one.
func diff(was, is image) (c change, err error) {
	if len(was) > len(is) || is.commit() != was.commit()+1 {
		return c, fmt.Errorf("commit %d with %d bytes follows commit %d with %d bytes", is.commit(), len(is), was.commit(), len(was))
	}
	grown := make(image, len(is)) // the file grows, and is synced, before pages are written
	copy(grown, was)
	c = change{was: grown, is: is, meta: -1}
	for n := range len(is) / page {
		if bytes.Equal(grown.page(n), is.page(n)) {
			continue
		}
		if n >= 2 {
			c.data = append(c.data, n)
			continue
		}
		if c.meta >= 0 {
			return c, fmt.Errorf("commit %d changed both meta pages", is.commit())
		}
		c.meta = n
	}
	return c, nil
}

func (im image) page(n int) []byte { return im[n*page : (n+1)*page] }

// outcome is which of the two contents a crash state may show.
type outcome string

const (
	before outcome = "before the commit"
	either outcome = "before or after the commit"
)

// crash is a state that a power loss during a commit leaves behind.
type crash struct {
	image
	kind string
	want outcome
}

// crashes makes n states that a truthful disk can be left in: some data
// pages, whole, torn or not at all, before the first sync; a torn meta page
// after it; and nothing.
func (c change) crashes(rnd *rand.Rand, n int) []crash {
	all := []crash{{c.was, "nothing written", before}}
	for len(all) < n {
		if rnd.IntN(4) > 0 {
			im := bytes.Clone(c.was)
			for _, p := range c.data {
				switch rnd.IntN(3) {
				case 0:
					copy(image(im).page(p), c.is.page(p))
				case 1:
					tear(rnd, image(im).page(p), c.is.page(p))
				}
			}
			all = append(all, crash{im, "some data pages written, some torn", before})
			continue
		}
		im := bytes.Clone(c.is)
		copy(image(im).page(c.meta), c.was.page(c.meta))
		tear(rnd, image(im).page(c.meta), c.is.page(c.meta))
		all = append(all, crash{im, "the meta page torn", either})
	}
	return all[:n]
}

// lies makes a state for each data page, at most n, that only a disk leaves
// behind that lies about its flush: the meta page is there, the data page not.
func (c change) lies(rnd *rand.Rand, n int) []crash {
	var all []crash
	for _, i := range rnd.Perm(len(c.data)) {
		if len(all) == n {
			break
		}
		im := bytes.Clone(c.is)
		copy(image(im).page(c.data[i]), c.was.page(c.data[i]))
		all = append(all, crash{im, "a data page lost", either})
	}
	return all
}

// tear writes some sectors of a page.
func tear(rnd *rand.Rand, onto, from []byte) {
	for at := 0; at < page; at += sector {
		if rnd.IntN(2) == 0 {
			copy(onto[at:at+sector], from[at:at+sector])
		}
	}
}
