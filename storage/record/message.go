package record

import (
	"time"

	"github.com/callbatch/callbatch/batch"
)

// EncodeMessage returns a message as it stands under key.
func EncodeMessage(key []byte, m batch.Message) []byte {
	b := begin(KindMessage, len(m.Head)+len(m.Tail)+len(m.Host)+len(m.Reason)+128)
	b = append(b, m.ID[:]...)
	b = append(b, m.Tenant[:]...)
	b = append(b, m.Batch[:]...)
	b = appendBytes(b, m.Type)
	b = appendInt(b, m.Round)
	b = appendBytes(b, m.Host)
	b = append(b, byte(m.State))
	b = appendBytes(b, m.Reason)
	for _, t := range []time.Time{m.Created, m.Until, m.Ended, m.Due, m.Started} {
		b = appendTime(b, t)
	}
	b = appendInt(b, m.Made)
	b = appendInt(b, m.Spared)
	b = append(b, flags(m.Manual, m.Again, m.Settled))
	b = appendBytes(b, m.Head)
	b = appendBytes(b, m.Tail)
	b = appendInt(b, len(m.Refs))
	for _, r := range m.Refs {
		b = appendInt(b, int(r.Part))
		b = appendInt(b, int(r.Number))
		b = appendInt(b, r.Round)
		b = appendInt(b, r.From)
		b = appendInt(b, r.To)
	}
	return seal(key, b)
}

// DecodeMessage reads a message; its head and tail share payload, which must
// be the caller's own.
func DecodeMessage(payload []byte) (batch.Message, error) {
	r := reader{b: payload}
	m := batch.Message{
		ID: r.id(), Tenant: r.id(), Batch: r.id(), Type: r.string(), Round: r.int(), Host: r.string(),
		State: batch.MessageState(r.byte()), Reason: r.string(),
		Created: r.time(), Until: r.time(), Ended: r.time(), Due: r.time(), Started: r.time(), Made: r.int(), Spared: r.int(),
	}
	f := r.byte()
	m.Manual, m.Again, m.Settled = f&1 != 0, f&2 != 0, f&4 != 0
	m.Head, m.Tail = r.bytes(), r.bytes()
	for range r.count() {
		m.Refs = append(m.Refs, batch.Ref{
			Part: uint32(r.int()), Number: uint32(r.int()), Round: r.int(), From: r.int(), To: r.int(),
		})
	}
	return m, r.err()
}

// EncodeHealth returns how a host stands.
func EncodeHealth(key []byte, h batch.Health) []byte { return encodeJSON(KindHealth, key, h) }

// DecodeHealth reads how a host stands.
func DecodeHealth(payload []byte) (batch.Health, error) { return decodeJSON[batch.Health](payload) }

// EncodeRedelivery returns the order to send many messages again.
func EncodeRedelivery(key []byte, r batch.Redelivery) []byte {
	return encodeJSON(KindRedelivery, key, r)
}

// DecodeRedelivery reads the order to send many messages again.
func DecodeRedelivery(payload []byte) (batch.Redelivery, error) {
	return decodeJSON[batch.Redelivery](payload)
}
