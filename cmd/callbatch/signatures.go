package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// A given is a signature as it stands in the header.
type given struct {
	mark   string // in front of it: "v1," as it should be, "sha256=", or nothing
	coding string // how its bytes are written, if not as they should be: "in hex"
}

// rightMark is the mark of the only version there is.
const rightMark = "v1,"

// givens returns what stands in the value of a header and may be a signature,
// by its bytes, however it is marked and written.
func givens(value string) map[string]given {
	all := make(map[string]given)
	for entry := range strings.FieldsSeq(value) {
		before := ""
		for part := range strings.SplitSeq(entry, ",") {
			mark, text := cutMark(part)
			if mark == "" {
				mark = before
			}
			before = ""
			mac, coding := decodeMAC(text)
			if mac == "" {
				before = part + ","
			} else if _, twice := all[mac]; !twice {
				all[mac] = given{mark, coding}
			}
		}
	}
	return all
}

// cutMark takes off what other schemes put in front of a signature: "v1=",
// "sha256:". The padding of base64 is none.
func cutMark(text string) (mark, rest string) {
	i := strings.IndexAny(text, "=:")
	if i < 0 || strings.Trim(text[i:], "=:") == "" {
		return "", text
	}
	return text[:i+1], text[i+1:]
}

// codings are the ways to write the bytes of a signature, the right one first.
var codings = []struct {
	how    string
	decode func(string) ([]byte, error)
}{
	{"", base64.StdEncoding.Strict().DecodeString},
	{"in base64 without its padding", base64.RawStdEncoding.Strict().DecodeString},
	{"in URL-safe base64", base64.URLEncoding.Strict().DecodeString},
	{"in URL-safe base64", base64.RawURLEncoding.Strict().DecodeString},
	{"in hex", hex.DecodeString},
}

// decodeMAC returns the bytes of a signature, empty if text is none, and how
// they are written.
func decodeMAC(text string) (mac, coding string) {
	for _, c := range codings {
		if b, err := c.decode(text); err == nil && len(b) == sha256.Size {
			return string(b), c.how
		}
	}
	return "", ""
}
