package api

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"net/http"
	"net/url"
)

// A cursor is a place in a list: the kind of the list, the id after which to
// go on, and a checksum, so that a mangled one is noticed. It is no secret
// and gives no right: the list is the caller's own whatever it says.
const (
	batchList   = 'b'
	messageList = 'm'
	messageFeed = 'f' // its place is a number, in the last eight bytes
)

func cursorAt(kind byte, id [16]byte) string {
	b := append([]byte{kind}, id[:]...)
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

// cursor returns where a list is to go on, nil for its beginning, as the
// parameter says. A cursor has one spelling.
func cursor(q url.Values, name string, kind byte) (*[16]byte, error) {
	if !q.Has(name) {
		return nil, nil
	}
	text := q.Get(name)
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) < 17 || text != cursorAt(kind, [16]byte(b[1:17])) {
		return nil, badParam("bad_"+name, "%s is what an earlier page of this list gave as next", name)
	}
	return (*[16]byte)(b[1:17]), nil
}

// A listing is a page of a list.
type listing[T any] struct {
	Data []T     `json:"data"`
	Next *string `json:"next"`
}

// writeList answers with a page and says where the next one is.
func writeList[T any](w http.ResponseWriter, r *request, kind byte, data []T, next *[16]byte) error {
	l := listing[T]{Data: data}
	if next != nil {
		c := cursorAt(kind, *next)
		l.Next = &c
		r.query.Set("cursor", c)
		w.Header().Set("Link", "<"+r.URL.Path+"?"+r.query.Encode()+`>; rel="next"`)
	}
	return writeJSON(w, http.StatusOK, encode(l))
}
