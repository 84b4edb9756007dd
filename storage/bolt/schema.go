package bolt

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// The tables, with what stands under which key. Each is a bucket, and those of
// short-lived small keys share one: every bucket that a commit touches costs as
// much as a few records. All are flat: a bucket a batch would make the file
// three times as large. Whatever a tenant owns and can name begins with the
// tenant; the rest hangs off an id that only such a record gives.
var (
	bucketMeta     = table{name: "meta"}                 // name → record
	bucketBatches  = table{name: "batches", fill: 0.9}   // tenant, batch → spec
	bucketProgress = table{name: "progress", fill: 0.9}  // tenant, batch → progress
	bucketActive   = table{name: "places", mark: 'a'}    // tenant, batch → nothing: the batches that have not ended
	bucketEnded    = table{name: "places", mark: 'e'}    // tenant, end, batch → nothing: the batches that have ended, and when
	bucketStaging  = table{name: "places", mark: 'u'}    // tenant, batch[, part] → nothing: uploads that are under way, and what is being removed
	bucketBlocks   = table{name: "blocks", fill: 1}      // batch, part, number → items
	bucketStates   = table{name: "states"}               // batch, part, number → state of a block that is partly done
	bucketSegments = table{name: "segments", fill: 0.95} // batch, part, number, round, n → results
	bucketOpen     = table{name: "places", mark: 'o'}    // batch, due, part, number → 1 if partly done: blocks that are not finished
	bucketRounds   = table{name: "rounds"}               // batch, round → how a round ended that was followed by another
	bucketMessages = table{name: "messages", fill: 0.9}  // tenant, message → message
	bucketByBatch  = table{name: "bybatch", fill: 0.9}   // batch, message → nothing
	bucketAttempts = table{name: "attempts", fill: 0.9}  // message, number → attempt
	bucketOutbox   = table{name: "places", mark: 'w'}    // tenant, host, class, due, message → when its time is spent: messages that wait
	bucketSending  = table{name: "places", mark: 's'}    // tenant, message → nothing: messages whose attempt is under way
	bucketDead     = table{name: "places", mark: 'd'}    // tenant, message → nothing: messages that were given up
	bucketGone     = table{name: "gone"}                 // tenant, batch → when it was deleted
	bucketGoneBy   = table{name: "places", mark: 'g'}    // when, tenant, batch → nothing: deleted batches, by their time
	bucketDoomed   = table{name: "places", mark: 'x'}    // tenant, batch → nothing: deleted batches of which something is left
	bucketMoves    = table{name: "places", mark: 'm'}    // tenant, batch → message after which to go on: batches whose waiting messages go to another host
	bucketHosts    = table{name: "hosts"}                // tenant or everybody, host → how it stands
	bucketOrders   = table{name: "orders"}               // tenant, order → redelivery that is being carried out
	bucketKeys     = table{name: "keys"}                 // tenant, key → API key
	bucketSecrets  = table{name: "secrets"}              // tenant → signing secrets
	bucketUploads  = table{name: "places", mark: 'p'}    // tenant, batch → nothing: the batches that are open for parts
	bucketParts    = table{name: "parts", fill: 0.9}     // batch, number → part
	bucketIndex    = table{name: "index", fill: 0.9}     // batch, part, least hash → entries of the index of the items' ids
	bucketBindings = table{name: "once", mark: 'k'}      // tenant, SHA-256 of an Idempotency-Key → binding
	bucketBound    = table{name: "once", mark: 't'}      // when it was made, tenant, SHA-256 of an Idempotency-Key → nothing
)

// buckets are the names of all buckets there are.
var buckets = []string{
	"meta", "batches", "progress", "places", "blocks", "states", "segments", "messages", "bybatch", "attempts",
	"rounds", "gone", "hosts", "orders", "keys", "secrets", "parts", "index", "once",
}

var (
	metaVersion = []byte("version") // of the schema
	metaStarts  = []byte("starts")  // how often the store was opened for writing
	metaClosed  = []byte("closed")  // how often it was by the time it was last closed
	metaLinks   = []byte("links")   // the key that signs links
	metaMessage = []byte("message") // the greatest id of a message when some were removed
)

// be is how numbers stand in keys, so that keys sort as numbers do.
var be = binary.BigEndian

func tenantKey(t batch.TenantID, id [16]byte) []byte {
	return append(append(make([]byte, 0, 32), t[:]...), id[:]...)
}

func splitTenantKey(k []byte) (t batch.TenantID, id [16]byte) {
	copy(t[:], k)
	copy(id[:], k[16:])
	return t, id
}

func endedKey(t batch.TenantID, at time.Time, id batch.ID) []byte {
	b := append(make([]byte, 0, 40), t[:]...)
	b = be.AppendUint64(b, uint64(max(0, at.UnixMilli())))
	return append(b, id[:]...)
}

func splitEndedKey(k []byte) (at batch.EndedAt) {
	at.Time = time.UnixMilli(int64(be.Uint64(k[16:]))).UTC()
	copy(at.ID[:], k[24:])
	return at
}

func blockKey(k batch.BlockKey) []byte {
	b := append(make([]byte, 0, 32), k.Batch[:]...)
	b = be.AppendUint32(b, k.Part)
	return be.AppendUint32(b, k.Number)
}

func segmentKey(k batch.BlockKey, round, n int) []byte {
	b := be.AppendUint32(blockKey(k), uint32(round))
	return be.AppendUint32(b, uint32(n))
}

func segmentRound(k []byte) int { return int(be.Uint32(k[24:])) }

func openKey(k batch.BlockKey, due time.Time) []byte {
	b := append(make([]byte, 0, 32), k.Batch[:]...)
	b = be.AppendUint64(b, dueMillis(due))
	b = be.AppendUint32(b, k.Part)
	return be.AppendUint32(b, k.Number)
}

func splitOpenKey(t batch.TenantID, k []byte) (bk batch.BlockKey, due time.Time) {
	bk.Tenant = t
	copy(bk.Batch[:], k)
	bk.Part, bk.Number = be.Uint32(k[24:]), be.Uint32(k[28:])
	return bk, millisTime(be.Uint64(k[16:]))
}

func roundKey(id batch.ID, round int) []byte {
	return be.AppendUint32(append(make([]byte, 0, 20), id[:]...), uint32(round))
}

// goneKey begins with when the batch under a key was deleted.
func goneKey(key []byte, deleted time.Time) []byte {
	return append(be.AppendUint64(make([]byte, 0, 40), dueMillis(deleted)), key...)
}

// partRow is the key of an upload of a part among those under way. That of
// the batch is its beginning.
func partRow(t batch.TenantID, id batch.ID, key uint32) []byte {
	return be.AppendUint32(tenantKey(t, id), key)
}

func partKey(id batch.ID, number int) []byte {
	return be.AppendUint32(append(make([]byte, 0, 20), id[:]...), uint32(number))
}

func indexKey(id batch.ID, part uint32, least uint64) []byte {
	b := append(make([]byte, 0, 28), id[:]...)
	b = be.AppendUint32(b, part)
	return be.AppendUint64(b, least)
}

func bindingKey(t batch.TenantID, key string) []byte {
	sum := sha256.Sum256([]byte(key))
	return append(append(make([]byte, 0, 48), t[:]...), sum[:]...)
}

func boundKey(made time.Time, binding []byte) []byte {
	return append(be.AppendUint64(make([]byte, 0, 56), dueMillis(made)), binding...)
}

func messageKey(batchID batch.ID, m batch.MessageID) []byte {
	return append(append(make([]byte, 0, 32), batchID[:]...), m[:]...)
}

func attemptKey(m batch.MessageID, number int) []byte {
	return be.AppendUint32(append(make([]byte, 0, 20), m[:]...), uint32(number))
}

func outboxKey(l laneKey, due time.Time, m batch.MessageID) []byte {
	b := append(make([]byte, 0, 49), l[:]...)
	b = be.AppendUint64(b, dueMillis(due))
	return append(b, m[:]...)
}

func splitOutboxKey(k []byte) (l laneKey, due time.Time, m batch.MessageID) {
	copy(l[:], k)
	copy(m[:], k[33:])
	return l, millisTime(be.Uint64(k[25:])), m
}

// dueMillis rounds up, so that nothing is due before its time.
func dueMillis(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.Add(time.Millisecond - 1).UnixMilli())
}

func millisTime(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}
