package record

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/callbatch/callbatch/batch"
)

var key = []byte("under this key")

// open unseals a record that must be sound.
func open(t interface{ Fatal(...any) }, kind Kind, rec []byte) []byte {
	p, err := Open(kind, key, rec)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func millis(t *rapid.T) time.Time {
	if rapid.Bool().Draw(t, "no time") {
		return time.Time{}
	}
	return time.UnixMilli(rapid.Int64Range(1, 1<<42).Draw(t, "ms")).UTC()
}

var (
	small = rapid.IntRange(0, 300)
	text  = rapid.StringN(0, 20, 60)
	octet = rapid.SliceOfN(rapid.Byte(), 0, 50)
)

func results(t *rapid.T, first, round int) []batch.Result {
	var rs []batch.Result
	for _, pos := range rapid.SliceOfNDistinct(rapid.IntRange(0, 255), 1, 20, rapid.ID).Draw(t, "positions") {
		rs = append(rs, batch.Result{
			Index: first + pos, ID: text.Draw(t, "id"), Round: round, Status: batch.ItemStatus(rapid.IntRange(2, 5).Draw(t, "status")),
			Attempts: small.Draw(t, "attempts"), Finished: millis(t), Payload: octet.Draw(t, "payload"),
		})
	}
	return rs
}

func id[T ~[16]byte](t *rapid.T) (id T) {
	for i := range id {
		id[i] = rapid.Byte().Draw(t, "id byte")
	}
	return id
}

func same(t *rapid.T, want, got any, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Fatal(d)
	}
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	t.Run("block", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			b := batch.Block{First: small.Draw(t, "first")}
			for range rapid.IntRange(1, 20).Draw(t, "items") {
				b.Items = append(b.Items, batch.Item{ID: text.Draw(t, "id"), Raw: octet.Draw(t, "raw")})
			}
			p := open(t, KindBlock, EncodeBlock(key, b))
			got, err := DecodeBlock(p)
			same(t, b, got, err)
			first, count, err := BlockSpan(p)
			same(t, []int{b.First, len(b.Items)}, []int{first, count}, err)
		})
	})
	t.Run("state", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			s := batch.BlockState{Round: small.Draw(t, "round"), Closed: rapid.Bool().Draw(t, "closed")}
			for range rapid.IntRange(0, batch.BlockItems).Draw(t, "items") {
				s.Items = append(s.Items, batch.ItemState{
					Status: batch.ItemStatus(rapid.IntRange(0, 5).Draw(t, "status")), Attempts: rapid.IntRange(0, 2).Draw(t, "attempts"),
					Deaths: rapid.IntRange(0, 15).Draw(t, "deaths"), Due: millis(t),
				})
			}
			got, err := DecodeState(open(t, KindState, EncodeState(key, s)))
			same(t, s, got, err)
		})
	})
	t.Run("segment", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			first, round := small.Draw(t, "first"), small.Draw(t, "round")
			seg := NewSegment(results(t, first, round))
			p := open(t, KindSegment, EncodeSegment(key, first, seg))
			got, err := DecodeSegment(p, first, round)
			same(t, seg, got, err)
			tally, digest, err := SegmentSums(p)
			same(t, []any{seg.Tally, seg.Digest}, []any{tally, digest}, err)
		})
	})
	t.Run("progress", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			n := func() int { return small.Draw(t, "n") }
			want := batch.Progress{
				Status: batch.Status(rapid.IntRange(1, 8).Draw(t, "status")), Reason: text.Draw(t, "reason"), Round: n(),
				Done: batch.Tally{Succeeded: n(), Failed: n(), Canceled: n(), Expired: n()}, Open: n(),
				Accepted: millis(t), Expires: millis(t), Lapsed: rapid.Bool().Draw(t, "lapsed"), Started: millis(t), Finished: millis(t),
				Messages: batch.Ledger{Round: n(), Owed: n(), Waiting: n(), Delivered: n(), Exhausted: n(), Other: n()},
				Terminal: id[batch.MessageID](t), Told: batch.Told{Message: id[batch.MessageID](t), Tenth: n(), At: millis(t)}, Digest: rapid.Uint64().Draw(t, "digest"), Version: rapid.Uint64().Draw(t, "version"),
			}
			got, err := DecodeProgress(open(t, KindProgress, EncodeProgress(key, want)))
			same(t, want, got, err)
		})
	})
	t.Run("attempt", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			n := func() int64 { return rapid.Int64Range(0, 1<<40).Draw(t, "n") }
			headers := func() map[string]string { return rapid.MapOfN(text, text, 0, 5).Draw(t, "headers") }
			a := batch.Attempt{
				Number: small.Draw(t, "number"), Started: millis(t), RemoteAddr: text.Draw(t, "address"), RequestHeaders: headers(),
				Took: batch.Took{DNS: n(), Connect: n(), TLS: n(), FirstByte: n(), Total: n()},
			}
			if rapid.Bool().Draw(t, "answered") {
				a.Response = &batch.Response{
					Status: small.Draw(t, "status"), Headers: headers(), Body: text.Draw(t, "body"), Truncated: rapid.Bool().Draw(t, "truncated"),
				}
			}
			if rapid.Bool().Draw(t, "failed") {
				a.Error = &batch.AttemptError{Category: text.Draw(t, "category"), Detail: text.Draw(t, "detail")}
			}
			got, err := DecodeAttempt(open(t, KindAttempt, EncodeAttempt(key, a)))
			same(t, a, got, err)
		})
	})
	t.Run("message", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			m := batch.Message{
				ID: id[batch.MessageID](t), Tenant: id[batch.TenantID](t), Batch: id[batch.ID](t), Type: text.Draw(t, "type"),
				Round: small.Draw(t, "round"), Host: text.Draw(t, "host"), State: batch.MessageState(rapid.IntRange(1, 8).Draw(t, "state")),
				Reason: text.Draw(t, "reason"), Created: millis(t), Due: millis(t), Made: small.Draw(t, "made"), Started: millis(t),
				Until: millis(t), Ended: millis(t), Spared: small.Draw(t, "spared"),
				Manual: rapid.Bool().Draw(t, "manual"), Again: rapid.Bool().Draw(t, "again"), Settled: rapid.Bool().Draw(t, "settled"),
				Head: octet.Draw(t, "head"), Tail: octet.Draw(t, "tail"),
			}
			for range rapid.IntRange(0, 3).Draw(t, "refs") {
				n := func() int { return small.Draw(t, "n") }
				m.Refs = append(m.Refs, batch.Ref{Part: uint32(n()), Number: uint32(n()), Round: n(), From: n(), To: n()})
			}
			got, err := DecodeMessage(open(t, KindMessage, EncodeMessage(key, m)))
			same(t, m, got, err)
		})
	})
	t.Run("health and redelivery", func(t *testing.T) {
		at := time.UnixMilli(7).UTC()
		h := batch.Health{Host: "shop.example:443", Failures: 5, Since: at, Room: 1, Pause: time.Second, Until: at}
		gotHealth, err := DecodeHealth(open(t, KindHealth, EncodeHealth(key, h)))
		if d := gocmp.Diff(h, gotHealth); d != "" || err != nil {
			t.Error(d, err)
		}
		r := batch.Redelivery{Tenant: batch.TenantID{1}, State: batch.MessageExhausted, Host: "h:1", Since: at, Made: at, After: batch.MessageID{2}, Wanted: 3, Reached: 1}
		gotOrder, err := DecodeRedelivery(open(t, KindRedelivery, EncodeRedelivery(key, r)))
		if d := gocmp.Diff(r, gotOrder); d != "" || err != nil {
			t.Error(d, err)
		}
	})
	t.Run("part", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			n := func() int { return small.Draw(t, "n") }
			want := batch.Part{Number: n(), Key: rapid.Uint32().Draw(t, "key"), Items: n(), Blocks: n(), Size: int64(n()), Bytes: int64(n()), Sent: millis(t)}
			copy(want.SHA256[:], octet.Draw(t, "sum"))
			copy(want.Content[:], octet.Draw(t, "content"))
			got, err := DecodePart(open(t, KindPart, EncodePart(key, want)))
			same(t, want, got, err)
		})
	})
	t.Run("index", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			var want []batch.IndexEntry
			for _, h := range rapid.SliceOfN(rapid.Uint64(), 0, 50).Draw(t, "hashes") {
				e := batch.IndexEntry{Hash: h, Index: small.Draw(t, "index"), Line: -1}
				if rapid.Bool().Draw(t, "line") {
					e.Line = e.Index + 1 + small.Draw(t, "lines before")
				}
				want = append(want, e)
			}
			slices.SortFunc(want, func(a, b batch.IndexEntry) int { return cmp.Compare(a.Hash, b.Hash) })
			var got []batch.IndexEntry
			err := EachEntry(open(t, KindIndex, EncodeIndex(key, want)), func(e batch.IndexEntry) bool {
				got = append(got, e)
				return true
			})
			same(t, want, got, err)
		})
	})
	t.Run("binding", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			want := batch.Binding{Batch: id[batch.ID](t), Count: small.Draw(t, "count"), Made: millis(t)}
			copy(want.Content[:], octet.Draw(t, "sum"))
			got, err := DecodeBinding(open(t, KindBinding, EncodeBinding(key, want)))
			same(t, want, got, err)
		})
	})
	t.Run("spec", func(t *testing.T) {
		want := batch.Spec{
			ID: batch.ID{1}, Tenant: batch.TenantID{2}, Items: 3, Blocks: 4, Bytes: 5, BaseURL: "https://x.example", Created: time.UnixMilli(7).UTC(),
			Parts:   batch.Layout{{Key: batch.PartKey(0, 1)}, {Key: batch.PartKey(1, 0), Item: 7, Block: 2}},
			Options: batch.Options{Processor: "p", CallbackURL: "https://x.example/?a=<&>", Metadata: map[string]string{"k": "é\x00"}}.WithDefaults(),
		}
		got, err := DecodeSpec(open(t, KindSpec, EncodeSpec(key, want)))
		if d := gocmp.Diff(want, got); d != "" || err != nil {
			t.Error(d, err)
		}
	})
}

func TestTheDigestDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := results(t, 0, 1)
		whole := NewSegment(append([]batch.Result(nil), rs...)).Digest
		cut := rapid.IntRange(0, len(rs)).Draw(t, "cut")
		if parts := NewSegment(rs[cut:]).Digest + NewSegment(rs[:cut]).Digest; parts != whole {
			t.Fatalf("in parts %x, as a whole %x", parts, whole)
		}
	})
	a := batch.Result{Index: 1, Round: 1, Status: batch.ItemSucceeded, Payload: []byte("1")}
	for name, change := range map[string]func(*batch.Result){
		"index": func(r *batch.Result) { r.Index++ }, "round": func(r *batch.Result) { r.Round++ },
		"status": func(r *batch.Result) { r.Status++ }, "payload": func(r *batch.Result) { r.Payload = []byte("2") },
	} {
		b := a
		change(&b)
		if NewSegment([]batch.Result{a}).Digest == NewSegment([]batch.Result{b}).Digest {
			t.Errorf("another %s leaves the digest as it was", name)
		}
	}
}

func TestDamageIsReported(t *testing.T) {
	rec := EncodeBlock(key, batch.Block{First: 256, Items: []batch.Item{{ID: "a", Raw: []byte(`{"n":1}`)}, {Raw: []byte(`2`)}}})
	damaged := func(what string, key, rec []byte) {
		t.Helper()
		if _, err := Open(KindBlock, key, rec); batch.CodeOf(err) != batch.Damaged {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for i := range len(rec) * 8 {
		flipped := bytes.Clone(rec)
		flipped[i/8] ^= 1 << (i % 8)
		damaged("a flipped bit", key, flipped)
	}
	for n := range len(rec) {
		damaged("a short record", key, rec[:n])
	}
	damaged("none", key, nil)
	damaged("another place", []byte("another key"), rec)
	damaged("another kind", key, Seal(KindState, key, []byte{1}))
}

// What decodes must not ask for more memory than its record has, nor panic,
// whatever its bytes are.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add(open(f, KindMessage, EncodeMessage(key, batch.Message{Type: "t", Refs: make([]batch.Ref, 2)})))
	f.Add(open(f, KindSegment, EncodeSegment(key, 0, NewSegment([]batch.Result{{Index: 1, Payload: []byte("1")}}))))
	f.Add(open(f, KindAttempt, EncodeAttempt(key, batch.Attempt{RequestHeaders: map[string]string{"a": "b"}, Error: &batch.AttemptError{}})))
	f.Add(open(f, KindState, EncodeState(key, batch.BlockState{Round: 1, Items: make([]batch.ItemState, 256)})))
	f.Fuzz(func(t *testing.T, b []byte) {
		DecodeBlock(b)
		BlockSpan(b)
		DecodeState(b)
		DecodeSegment(b, 0, 1)
		SegmentSums(b)
		DecodeProgress(b)
		DecodeMessage(b)
		DecodeSpec(b)
		DecodeAttempt(b)
		DecodeHealth(b)
		DecodeRedelivery(b)
		DecodePart(b)
		DecodeBinding(b)
		EachEntry(b, func(batch.IndexEntry) bool { return true })
	})
}

// The bytes on disk are a promise to the next version.
func TestTheFormatIsWhatItWas(t *testing.T) {
	rec := EncodeSegment(key, 256, NewSegment([]batch.Result{{
		Index: 258, ID: "A-1", Round: 1, Status: batch.ItemSucceeded, Attempts: 1, Finished: time.UnixMilli(1_700_000_000_000), Payload: []byte(`{"n":1}`),
	}}))
	const want = "0599cdc581dbd0963a010000000102020180d095ffbc3103412d31077b226e223a317da22203f4"
	if got := hex.EncodeToString(rec); got != want {
		t.Errorf("got %s, want %s: raise Version if this is meant", got, want)
	}
}
