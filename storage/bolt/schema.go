package bolt

import (
	"encoding/binary"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
)

// The buckets, with what stands under which key. All are flat: a bucket a
// batch would make the file three times as large. Whatever a tenant owns and
// can name begins with the tenant; the rest hangs off an id that only such a
// record gives.
var (
	bucketMeta     = []byte("meta")     // name → record
	bucketBatches  = []byte("batches")  // tenant, batch → spec
	bucketProgress = []byte("progress") // tenant, batch → progress
	bucketActive   = []byte("active")   // tenant, batch → nothing: the batches that have not ended
	bucketStaging  = []byte("staging")  // tenant, batch → nothing: uploads that are under way
	bucketBlocks   = []byte("blocks")   // batch, part, number → items
	bucketStates   = []byte("states")   // batch, part, number → state of a block that is partly done
	bucketSegments = []byte("segments") // batch, part, number, round, n → results
	bucketOpen     = []byte("open")     // batch, due, part, number → 1 if partly done: blocks that are not finished
	bucketMessages = []byte("messages") // tenant, message → message
	bucketByBatch  = []byte("bybatch")  // batch, message → nothing
	bucketAttempts = []byte("attempts") // message, number → attempt
	bucketOutbox   = []byte("outbox")   // tenant, host, class, due, message → when its time is spent: messages that wait
	bucketSending  = []byte("sending")  // tenant, message → nothing: messages whose attempt is under way
	bucketDead     = []byte("dead")     // tenant, message → nothing: messages that were given up
	bucketFeed     = []byte("feed")     // tenant, place → message
	bucketHosts    = []byte("hosts")    // tenant or everybody, host → how it stands
	bucketOrders   = []byte("orders")   // tenant, order → redelivery that is being carried out
	bucketKeys     = []byte("keys")     // tenant, key → API key
	bucketSecrets  = []byte("secrets")  // tenant → signing secrets
)

var buckets = [][]byte{
	bucketMeta, bucketBatches, bucketProgress, bucketActive, bucketStaging, bucketBlocks, bucketStates, bucketSegments,
	bucketOpen, bucketMessages, bucketByBatch, bucketAttempts, bucketOutbox, bucketSending,
	bucketDead, bucketFeed, bucketHosts, bucketOrders, bucketKeys, bucketSecrets,
}

// rightEdge are the buckets whose keys mostly come in order: their pages are
// filled rather than split in half.
var rightEdge = map[string]float64{
	string(bucketBatches): 0.9, string(bucketProgress): 0.9, string(bucketBlocks): 1, string(bucketSegments): 0.95,
	string(bucketMessages): 0.9, string(bucketByBatch): 0.9, string(bucketAttempts): 0.9, string(bucketFeed): 1,
}

var (
	metaVersion = []byte("version") // of the schema
	metaStarts  = []byte("starts")  // how often the store was opened for writing
	metaLinks   = []byte("links")   // the key that signs links
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

func messageKey(batchID batch.ID, m batch.MessageID) []byte {
	return append(append(make([]byte, 0, 32), batchID[:]...), m[:]...)
}

func attemptKey(m batch.MessageID, number int) []byte {
	return be.AppendUint32(append(make([]byte, 0, 20), m[:]...), uint32(number))
}

func feedKey(t batch.TenantID, seq uint64) []byte {
	return be.AppendUint64(append(make([]byte, 0, 24), t[:]...), seq)
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

// bucket returns a bucket with its fill set.
func bucket(tx *bbolt.Tx, name []byte) *bbolt.Bucket {
	b := tx.Bucket(name)
	if f, ok := rightEdge[string(name)]; ok {
		b.FillPercent = f
	}
	return b
}
