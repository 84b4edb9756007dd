package batch

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPartKeys(t *testing.T) {
	for _, n := range []int{0, 1, MaxParts - 1} {
		for _, upload := range []int{0, 1, MaxUploads - 1} {
			if got := PartNumber(PartKey(n, upload)); got != n {
				t.Errorf("upload %d of part %d is one of part %d", upload, n, got)
			}
		}
	}
	if PartKey(0, 0) != 0 || PartKey(3, 1) == PartKey(3, 2) || PartKey(2, 0) > PartKey(3, 0) {
		t.Error("keys are not those of their parts, in their order")
	}
}

// Whatever the parts, each block is found where it was put.
func TestLayouts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var parts []Part
		for n := range rapid.IntRange(0, 30).Draw(t, "parts") {
			blocks := rapid.IntRange(1, 4).Draw(t, "blocks")
			parts = append(parts, Part{
				Number: n, Key: PartKey(n, rapid.IntRange(0, 3).Draw(t, "upload")), Blocks: blocks,
				Items: blocks + rapid.IntRange(0, 1000).Draw(t, "items"),
			})
		}
		text, err := NewLayout(parts).MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var s Spec
		if err := s.Parts.UnmarshalText(text); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.Parts, NewLayout(parts)) {
			t.Fatalf("%v came back as %v", NewLayout(parts), s.Parts)
		}
		ordinal, item := 0, 0
		for _, p := range parts {
			at, ok := s.Parts.At(p.Key)
			if !ok || at.Item != item || at.Block != ordinal {
				t.Fatalf("part %d begins at %+v, %v, not with item %d and block %d", p.Number, at, ok, item, ordinal)
			}
			if _, ok := s.Parts.At(p.Key + 1<<keyBits); ok {
				t.Fatalf("another upload of part %d is the batch's", p.Number)
			}
			for n := range p.Blocks {
				k := BlockKey{Part: p.Key, Number: uint32(n)}
				if s.Ordinal(k) != ordinal || s.BlockAt(ordinal) != k {
					t.Fatalf("block %d of part %d is the %d., and that is %+v", n, p.Number, s.Ordinal(k), s.BlockAt(ordinal))
				}
				ordinal++
			}
			item += p.Items
		}
		if _, ok := s.Parts.At(PartKey(len(parts), 0)); ok == (len(parts) > 0) {
			t.Fatalf("the part behind the last is the batch's: %v", ok)
		}
	})
	for _, bad := range []string{"AA", "AAA", "?", "gICA"} {
		if err := new(Layout).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is a layout", bad)
		}
	}
}

func TestWhichPartsAreAWholeBatch(t *testing.T) {
	parts := func(numbers ...int) (ps []Part) {
		for _, n := range numbers {
			ps = append(ps, Part{Number: n})
		}
		return ps
	}
	var every2nd []int
	for n := 1; n < 200; n += 2 {
		every2nd = append(every2nd, n)
	}
	for _, c := range []struct {
		there  []Part
		want   int
		reason string
		says   string
	}{
		{parts(0), -1, "", ""},
		{parts(0, 1, 2), -1, "", ""},
		{parts(0, 1, 2), 3, "", ""},
		{parts(), -1, "empty_batch", "a batch has at least one part"},
		{parts(), 2, "missing_parts", "parts are missing: 0 to 1"},
		{parts(1), -1, "missing_parts", "parts are missing: 0"},
		{parts(0, 2, 6), -1, "missing_parts", "parts are missing: 1, 3 to 5"},
		{parts(0, 2), 6, "missing_parts", "parts are missing: 1, 3 to 5"},
		{parts(0, 1, 2), 2, "too_many_parts", "there is a part 2, and 2 parts are said to be all: delete what is too much"},
		{parts(MaxParts - 1), MaxParts, "missing_parts", "parts are missing: 0 to 9998"},
	} {
		err := CheckParts(c.there, c.want)
		var e *Error
		if errors.As(err, &e); (err != nil || c.reason != "") && (e == nil || e.Reason != c.reason || e.Message != c.says) {
			t.Errorf("%d parts of %d: %v, want %q", len(c.there), c.want, err, c.says)
		}
	}
	var e *Error
	if errors.As(CheckParts(parts(every2nd...), -1), &e); len(e.Message) > 400 || e.Message[len(e.Message)-3:] != "…" {
		t.Errorf("many gaps are named as %s", e.Message)
	}
}

func TestWhatAnOpenBatchTakes(t *testing.T) {
	now := time.Now()
	b := Batch{Progress: Progress{Status: Open}, Spec: Spec{Touched: now}}
	p := Part{Items: 3, Blocks: 2, Size: 10, Sent: now.Add(time.Hour)}
	for _, room := range []Room{{Items: 2, Bytes: 10}, {Items: 3, Bytes: 9}} {
		if err := b.Add(p, room); CodeOf(err) != TooLarge {
			t.Errorf("with room for %+v: %v", room, err)
		}
	}
	room := Room{Items: 3, Bytes: 10}
	if err := b.Add(p, room); err != nil || b.Counts() != (Counts{Total: 3, Pending: 3}) || b.Progress.Open != 2 || b.Touched != p.Sent {
		t.Errorf("with the part it is %+v, %v", b, err)
	}
	if b.Abandoned(p.Sent.Add(OpenKept-1)) || !b.Abandoned(p.Sent.Add(OpenKept)) {
		t.Error("it is abandoned at another time")
	}
	if err := b.Remove(p, now); err != nil || b.Items != 0 || b.Blocks != 0 || b.Bytes != 0 || b.Progress.Open != 0 || b.Touched != now {
		t.Errorf("without the part it is %+v, %v", b, err)
	}
	if err := b.Seal(nil, now); err != nil || b.Status != Queued || b.Accepted != now || b.Abandoned(now.Add(10*OpenKept)) {
		t.Errorf("sealed it is %+v, %v", b, err)
	}
	for what, err := range map[string]error{"a part more": b.Add(p, room), "one less": b.Remove(p, now), "a seal": b.Seal(nil, now), "any": b.Accepts()} {
		var e *Error
		if !errors.As(err, &e) || e.Reason != "wrong_state" {
			t.Errorf("%s of a sealed batch: %v", what, err)
		}
	}
}

func TestRepeatsAreListedByPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Repeats
		var all []Place
		for i, n := range rapid.Permutation(slices.Collect(func(yield func(int) bool) {
			for i := range 250 {
				if !yield(i) {
					return
				}
			}
		})).Draw(t, "order") {
			p := Place{Part: 1 + n/100, Index: n % 100, Line: n%100 + 1}
			all = append(all, p)
			if !r.Lists(p) && i%2 == 0 {
				r.Count()
			} else {
				r.Add(Place{Index: n, Line: -1}, p)
			}
		}
		slices.SortFunc(all, Place.compare)
		var e *Error
		if !errors.As(r.Err(), &e) || len(e.Places) != MaxProblems || e.More != 150 {
			t.Fatalf("%d of 250 are listed and %d counted", len(e.Places), e.More)
		}
		for i, p := range e.Places {
			first := fmt.Sprintf("the id is that of part 0, index %d already", (all[i].Part-1)*100+all[i].Index)
			if *p.Part != all[i].Part || p.Index != all[i].Index || p.Line != all[i].Line || p.Detail != first {
				t.Fatalf("problem %d is %+v of part %d, want %+v", i, p, *p.Part, all[i])
			}
		}
	})
	var none, one Repeats
	one.Add(Place{Part: 0, Index: 7, Line: 9}, Place{Part: 2, Index: 3, Line: 4})
	if none.Err() != nil {
		t.Errorf("no repeats are %v", none.Err())
	}
	const want = "part 2, line 4 (index 3): the id is that of part 0, line 9 (index 7) already"
	if got := one.Err(); got == nil || got.Error() != want {
		t.Errorf("one reads %v, want %s", got, want)
	}
}
