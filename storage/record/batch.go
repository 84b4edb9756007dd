package record

import (
	"encoding/binary"
	"encoding/json"

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
	p.Digest, p.Version = r.fixed64(), r.uint()
	return p, r.err()
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
