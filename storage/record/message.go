package record

import "github.com/callbatch/callbatch/batch"

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
	b = appendTime(b, m.Created)
	b = appendTime(b, m.Due)
	b = appendInt(b, m.Made)
	b = appendTime(b, m.Started)
	b = appendBytes(b, m.Head)
	b = appendBytes(b, m.Tail)
	b = appendInt(b, len(m.Refs))
	for _, r := range m.Refs {
		b = appendInt(b, int(r.Part))
		b = appendInt(b, int(r.Number))
		b = appendInt(b, r.Round)
		b = appendInt(b, r.From)
		b = appendInt(b, r.To)
		b = append(b, flag(r.Bare))
	}
	return seal(key, b)
}

// DecodeMessage reads a message; its head and tail share payload, which must
// be the caller's own.
func DecodeMessage(payload []byte) (batch.Message, error) {
	r := reader{b: payload}
	m := batch.Message{
		ID: r.id(), Tenant: r.id(), Batch: r.id(), Type: r.string(), Round: r.int(), Host: r.string(),
		State: batch.MessageState(r.byte()), Reason: r.string(), Created: r.time(), Due: r.time(), Made: r.int(),
		Started: r.time(), Head: r.bytes(), Tail: r.bytes(),
	}
	for range r.count() {
		m.Refs = append(m.Refs, batch.Ref{
			Part: uint32(r.int()), Number: uint32(r.int()), Round: r.int(), From: r.int(), To: r.int(), Bare: r.byte() == 1,
		})
	}
	return m, r.err()
}

// EncodeAttempt returns an attempt as it stands under key.
func EncodeAttempt(key []byte, a batch.Attempt) []byte { return encodeJSON(KindAttempt, key, a) }

// DecodeAttempt reads an attempt.
func DecodeAttempt(payload []byte) (batch.Attempt, error) { return decodeJSON[batch.Attempt](payload) }
