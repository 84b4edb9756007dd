package record

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// EncodeSpec returns a spec as it stands under key.
func EncodeSpec(key []byte, s batch.Spec) []byte { return encodeJSON(KindSpec, key, s) }

// DecodeSpec reads a spec.
func DecodeSpec(payload []byte) (batch.Spec, error) { return decodeJSON[batch.Spec](payload) }

// EncodeProgress returns a progress as it stands under key.
func EncodeProgress(key []byte, p batch.Progress) []byte {
	b := begin(KindProgress, 128)
	b = append(b, byte(p.Status))
	b = appendBytes(b, p.Reason)
	b = appendInt(b, p.Round)
	b = appendTally(b, p.Done)
	b = appendInt(b, p.Open)
	b = appendTime(b, p.Accepted)
	b = appendTime(b, p.Expires)
	b = append(b, flag(p.Lapsed))
	b = appendTime(b, p.Started)
	b = appendTime(b, p.Finished)
	m := p.Messages
	for _, n := range []int{m.Round, m.Owed, m.Waiting, m.Delivered, m.Exhausted, m.Other} {
		b = appendInt(b, n)
	}
	b = append(b, p.Terminal[:]...)
	b = append(b, p.Told.Message[:]...)
	b = appendInt(b, p.Told.Tenth)
	b = appendTime(b, p.Told.At)
	b = binary.BigEndian.AppendUint64(b, p.Digest)
	b = binary.AppendUvarint(b, p.Version)
	b = appendInt(b, p.LaidOut)
	b = appendInt(b, p.Kept)
	return seal(key, b)
}

// DecodeProgress reads a progress.
func DecodeProgress(payload []byte) (batch.Progress, error) {
	r := reader{b: payload}
	p := batch.Progress{
		Status: batch.Status(r.byte()), Reason: r.string(), Round: r.int(), Done: r.tally(), Open: r.int(),
		Accepted: r.time(), Expires: r.time(), Lapsed: r.byte() != 0, Started: r.time(), Finished: r.time(),
	}
	p.Messages = batch.Ledger{Round: r.int(), Owed: r.int(), Waiting: r.int(), Delivered: r.int(), Exhausted: r.int(), Other: r.int()}
	p.Terminal = r.id()
	p.Told = batch.Told{Message: r.id(), Tenth: r.int(), At: r.time()}
	p.Digest, p.Version, p.LaidOut, p.Kept = r.fixed64(), r.uint(), r.int(), r.int()
	return p, r.err()
}

// EncodeRound returns how a round ended, as it stands under key.
func EncodeRound(key []byte, o batch.Round) []byte {
	b := begin(KindRound, 64+3*len(o.Next))
	b = appendInt(b, o.Number)
	b = append(b, byte(o.Status))
	b = appendBytes(b, o.Reason)
	b = appendTime(b, o.Started)
	b = appendTime(b, o.Finished)
	b = appendTally(b, o.Done)
	b = append(b, flag(o.Next != nil))
	b = appendInt(b, len(o.Next))
	last := 0
	for _, index := range o.Next {
		b = appendInt(b, index-last)
		last = index
	}
	return seal(key, b)
}

// DecodeRound reads how a round ended.
func DecodeRound(payload []byte) (batch.Round, error) {
	r := reader{b: payload}
	o := batch.Round{
		Number: r.int(), Status: batch.Status(r.byte()), Reason: r.string(), Started: r.time(), Finished: r.time(), Done: r.tally(),
	}
	named, last := r.byte() == 1, 0
	n := r.count()
	if named {
		o.Next = make([]int, n)
	}
	for i := range o.Next {
		last += r.int()
		o.Next[i] = last
	}
	return o, r.err()
}

// EncodeTombstone returns what is left of a batch that was deleted.
func EncodeTombstone(key []byte, deleted time.Time) []byte {
	return seal(key, appendTime(begin(KindTombstone, 8), deleted))
}

// DecodeTombstone reads when a batch was deleted.
func DecodeTombstone(payload []byte) (deleted time.Time, err error) {
	r := reader{b: payload}
	deleted = r.time()
	return deleted, r.err()
}

// EncodeKey returns an API key's record.
func EncodeKey(key []byte, k batch.Key) []byte { return encodeJSON(KindKey, key, k) }

// DecodeKey reads an API key's record.
func DecodeKey(payload []byte) (batch.Key, error) { return decodeJSON[batch.Key](payload) }

// EncodeSecrets returns the secrets of a tenant.
func EncodeSecrets(key []byte, s []batch.Secret) []byte { return encodeJSON(KindSecrets, key, s) }

// DecodeSecrets reads the secrets of a tenant.
func DecodeSecrets(payload []byte) ([]batch.Secret, error) {
	return decodeJSON[[]batch.Secret](payload)
}

// encodeJSON is for what is written once and read seldom.
func encodeJSON(kind Kind, key []byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("record: plain data: " + err.Error())
	}
	return Seal(kind, key, b)
}

func decodeJSON[T any](payload []byte) (v T, err error) {
	if json.Unmarshal(payload, &v) != nil {
		return v, errShape
	}
	return v, nil
}
