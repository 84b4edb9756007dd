package record

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/callbatch/callbatch/batch"
)

// A Kind says what a record is.
type Kind byte

// The kinds of records. The numbers are kept on disk.
const (
	KindSpec Kind = iota + 1
	KindProgress
	KindBlock
	KindState
	KindSegment
	KindMessage
	KindAttempt
	KindKey
	KindSecrets
	KindMeta
	KindHealth
	KindRedelivery
	KindPart
	KindIndex
	KindBinding
	KindRound
	KindTombstone
)

const sumBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seal returns payload as a record to stand under key.
func Seal(kind Kind, key, payload []byte) []byte {
	return seal(key, append(begin(kind, len(payload)), payload...))
}

// begin returns a buffer for a record of a kind with room for n bytes of
// payload; seal finishes it.
func begin(kind Kind, n int) []byte {
	return append(make([]byte, 0, n+1+sumBytes), byte(kind))
}

func seal(key, rec []byte) []byte {
	return binary.LittleEndian.AppendUint32(rec, sum(key, rec))
}

func sum(key, rec []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rec)
}

// Open returns the payload of a record that stood under key, or Damaged. The
// payload is part of value.
func Open(kind Kind, key, value []byte) ([]byte, error) {
	n := len(value) - sumBytes
	if n < 1 || Kind(value[0]) != kind || sum(key, value[:n]) != binary.LittleEndian.Uint32(value[n:]) {
		return nil, batch.Errorf(batch.Damaged, "the record under %x is damaged: restore a backup, or run check to see what else is", key)
	}
	return value[1:n], nil
}
