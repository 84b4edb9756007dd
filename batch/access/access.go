// Package access says who may ask for what: API keys, their scopes, and the
// first key of a new store.
package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/callbatch/callbatch/batch"
)

// A Scope is a right that a key bears.
type Scope string

// The scopes. Submit does not include Read; Admin includes both, in its
// tenant; Operator looks after the server and reads nothing of any tenant.
const (
	Submit   Scope = "submit"
	Read     Scope = "read"
	Admin    Scope = "admin"
	Operator Scope = "operator"
)

// Allows reports whether key bears one of the scopes.
func Allows(key batch.Key, anyOf ...Scope) bool {
	return slices.ContainsFunc(anyOf, func(s Scope) bool {
		if slices.Contains(key.Scopes, string(s)) {
			return true
		}
		return (s == Submit || s == Read) && slices.Contains(key.Scopes, string(Admin))
	})
}

// A key's text is its prefix and 48 lower-case characters: 208 random bits
// and a CRC-32 over prefix and bits, so that a slip of the pen is told from a
// wrong key without asking the store, and secret scanners find few others.
const (
	keyPrefix   = "cbk_"
	randomBytes = 26
	checkBytes  = 4
)

var keyText = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// NewKey returns the text of a fresh key.
func NewKey() string {
	b := make([]byte, randomBytes, randomBytes+checkBytes)
	rand.Read(b) // never fails: see crypto/rand
	return keyPrefix + keyText.EncodeToString(binary.BigEndian.AppendUint32(b, checksum(b)))
}

// WellFormed reports whether text could be a key of this kind of server.
func WellFormed(text string) bool {
	rest, ok := strings.CutPrefix(text, keyPrefix)
	if !ok || len(rest) != keyText.EncodedLen(randomBytes+checkBytes) {
		return false
	}
	b, err := keyText.DecodeString(rest)
	if err != nil {
		return false
	}
	return binary.BigEndian.Uint32(b[randomBytes:]) == checksum(b[:randomBytes])
}

func checksum(b []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte(keyPrefix)), crc32.IEEETable, b)
}

// Hash returns what the store knows of a key: its SHA-256. One round is enough: what is hashed
// has 208 bits nobody can guess.
func Hash(text string) []byte {
	h := sha256.Sum256([]byte(text))
	return h[:]
}
