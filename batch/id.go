package batch

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"
)

// An ID names a batch for ever. It holds 40 bits of milliseconds since
// [Epoch] and 88 random bits, so ids sort by the time they were made and
// cannot be guessed. Its text is the prefix of its kind and 26 lower-case
// characters of Crockford's base 32.
type ID [16]byte

// MessageID names a message, as [ID] names a batch. Its text is the
// webhook-id that every attempt bears.
type MessageID [16]byte

// TenantID names a tenant. The zero value is the tenant "default".
type TenantID [16]byte

// KeyID names an API key without revealing it.
type KeyID [16]byte

// Epoch is the zero of the milliseconds in ids; they run out in 2059.
var Epoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

const (
	batchPrefix   = "bat_"
	messagePrefix = "msg_"
	tenantPrefix  = "ten_"
	keyPrefix     = "key_"

	idChars  = 26
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

// NewID returns an id for a batch made now.
func NewID(now time.Time) ID { return newID(now) }

// FirstID returns an id before those of all batches made at t or later, by the
// millisecond.
func FirstID(t time.Time) (id ID) {
	const most = 1<<40 - 1 // what ids can say
	since := min(max(0, t.Sub(Epoch)), (most-1)*time.Millisecond) + time.Millisecond - 1
	binary.BigEndian.PutUint64(id[:], uint64(since.Milliseconds())<<24)
	return id
}

// NewMessageID returns an id for a message made now.
func NewMessageID(now time.Time) MessageID { return newID(now) }

// FirstMessageID returns an id before those of all messages made at t or
// later.
func FirstMessageID(t time.Time) (id MessageID) {
	made := newID(t)
	copy(id[:5], made[:5])
	return id
}

// NextMessageID returns an id for a message made now that is greater than the
// last: ids of one store are in the order in which their messages were made
// durable, even if its clock goes back. 64 random bits of it cannot be guessed.
func NextMessageID(last MessageID, now time.Time) MessageID {
	id := NewMessageID(now)
	binary.BigEndian.PutUint64(id[:], binary.BigEndian.Uint64(id[:])&^0xffffff) // the milliseconds, and a count of 0
	if bytes.Compare(id[:8], last[:8]) <= 0 {
		binary.BigEndian.PutUint64(id[:], binary.BigEndian.Uint64(last[:])+1)
	}
	return id
}

// NewKeyID returns an id for an API key made now.
func NewKeyID(now time.Time) KeyID { return newID(now) }

func newID(now time.Time) (id [16]byte) {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, now.Sub(Epoch).Milliseconds())))
	copy(id[:5], ms[3:])
	rand.Read(id[5:]) // never fails: see crypto/rand
	return id
}

// ParseID reads the text of a batch id.
func ParseID(s string) (ID, error) { return parseID(batchPrefix, s) }

// ParseMessageID reads the text of a message id.
func ParseMessageID(s string) (MessageID, error) { return parseID(messagePrefix, s) }

func (id ID) String() string        { return formatID(batchPrefix, id) }
func (id MessageID) String() string { return formatID(messagePrefix, id) }
func (id TenantID) String() string  { return formatID(tenantPrefix, id) }
func (id KeyID) String() string     { return formatID(keyPrefix, id) }

// MarshalText makes ids travel as text in JSON and logs.
func (id ID) MarshalText() ([]byte, error)        { return []byte(id.String()), nil }
func (id MessageID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }
func (id TenantID) MarshalText() ([]byte, error)  { return []byte(id.String()), nil }
func (id KeyID) MarshalText() ([]byte, error)     { return []byte(id.String()), nil }

func (id *ID) UnmarshalText(b []byte) (err error) {
	*id, err = parseID(batchPrefix, string(b))
	return err
}

func (id *MessageID) UnmarshalText(b []byte) (err error) {
	*id, err = parseID(messagePrefix, string(b))
	return err
}

func (id *TenantID) UnmarshalText(b []byte) (err error) {
	*id, err = parseID(tenantPrefix, string(b))
	return err
}

func (id *KeyID) UnmarshalText(b []byte) (err error) {
	*id, err = parseID(keyPrefix, string(b))
	return err
}

// Time returns the millisecond at which the id was made.
func (id ID) Time() time.Time {
	var ms [8]byte
	copy(ms[3:], id[:5])
	return Epoch.Add(time.Duration(binary.BigEndian.Uint64(ms[:])) * time.Millisecond)
}

// formatID writes 128 bits as 26 digits of 5 bits; the first digit holds 3.
func formatID(prefix string, id [16]byte) string {
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	var b [idChars]byte
	for i := idChars - 1; i >= 0; i-- {
		b[i] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return prefix + string(b[:])
}

func parseID(prefix, s string) (id [16]byte, err error) {
	if len(s) != len(prefix)+idChars || s[:len(prefix)] != prefix || s[len(prefix)] > '7' {
		return id, fmt.Errorf("an id is %s and %d lower-case characters", prefix, idChars)
	}
	var hi, lo uint64
	for _, c := range []byte(s[len(prefix):]) {
		d, ok := digit(c)
		if !ok {
			return id, fmt.Errorf("%q is not a character of an id", c)
		}
		hi = hi<<5 | lo>>59
		lo = lo<<5 | uint64(d)
	}
	binary.BigEndian.PutUint64(id[:8], hi)
	binary.BigEndian.PutUint64(id[8:], lo)
	return id, nil
}

func digit(c byte) (int, bool) {
	for i := range len(alphabet) {
		if alphabet[i] == c {
			return i, true
		}
	}
	return 0, false
}
