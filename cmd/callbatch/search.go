package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"iter"

	"github.com/callbatch/callbatch/callback/signature"
)

// A match is a signature that fits, and by which mistakes. Where all of them
// are empty it is only badly written.
type match struct {
	given
	reading
	content string // what was signed instead of id, time and body
	how     string // how the body that was signed differs from the one there is
}

// A content is one way to put together what is signed: a head, and the body.
type content struct{ what, head string }

// contents are those in use, the right one first. What it is called is empty:
// that is how it is to be.
func (d diagnosis) contents() []content {
	id, stamp := d.header.Get(signature.HeaderID)+".", d.header.Get(signature.HeaderTimestamp)+"."
	return []content{
		{"", id + stamp},
		{"the body alone", ""},
		{"webhook-timestamp, a dot and the body, without webhook-id", stamp},
		{"webhook-id, a dot and the body, without webhook-timestamp", id},
	}
}

// mostSigned bounds a search: so many bytes are signed in all, which takes
// less than a second. To write a body again takes as long as to sign it a few
// times.
const (
	mostSigned = 1 << 30
	toWrite    = 4
	toSign     = 256 // bytes that are hashed besides, however short the body is
)

// search looks for what was signed instead, by usual mistakes with secret,
// content and body. A body that was written again is not also one that was
// signed without the rest: they would be too many.
func (d diagnosis) search() (match, bool) {
	s := searching{given: givens(d.header.Get(signature.HeaderSignature)), left: mostSigned}
	if len(s.given) == 0 {
		return match{}, false
	}
	for i, text := range d.secrets {
		s.keys = append(s.keys, readings(i+1, text)...)
	}
	all := d.contents()
	if m, ok := s.among(retyped(d.body), all); ok {
		return m, true
	}
	return s.among(rewritten(d.body), all[:1])
}

// A searching is a search under way.
type searching struct {
	given map[string]given
	keys  []reading
	left  int // of mostSigned
}

// among looks for a signature of one of the bodies.
func (s *searching) among(bodies iter.Seq2[string, []byte], contents []content) (match, bool) {
	for how, body := range bodies {
		s.left -= toWrite * len(body)
		for _, c := range contents {
			for _, key := range s.keys {
				if s.left -= len(body) + toSign; s.left < 0 {
					return match{}, false
				}
				if g, ok := s.given[key.sign(c.head, body)]; ok {
					return match{g, key, c.what, how}, true
				}
			}
		}
	}
	return match{}, false
}

// sign returns the bytes of the signature by a key.
func (r reading) sign(head string, body []byte) string {
	mac := hmac.New(sha256.New, r.key)
	mac.Write([]byte(head))
	mac.Write(body)
	return string(mac.Sum(nil))
}
