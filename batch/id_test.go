package batch

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestID(t *testing.T) {
	now := time.Now()

	t.Run("survives its text", func(t *testing.T) {
		for range 1000 {
			id := NewID(now)
			got, err := ParseID(id.String())
			if err != nil || got != id {
				t.Fatalf("%s came back as %s, %v", id, got, err)
			}
			if len(id.String()) != 30 || id.String() != strings.ToLower(id.String()) {
				t.Fatalf("%s is not bat_ and 26 lower-case characters", id)
			}
		}
	})
	t.Run("sorts by time, as bytes and as text", func(t *testing.T) {
		a, b := NewID(now), NewID(now.Add(time.Millisecond))
		if a.String() >= b.String() || string(a[:]) >= string(b[:]) {
			t.Errorf("%s is not before %s", a, b)
		}
		if got := a.Time(); !got.Equal(now.Truncate(time.Millisecond)) {
			t.Errorf("its time is %s, not %s", got, now)
		}
	})
	t.Run("of a message may be looked for by its time", func(t *testing.T) {
		for range 100 {
			first := FirstMessageID(now)
			at, before := NewMessageID(now), NewMessageID(now.Add(-time.Millisecond))
			if bytes.Compare(first[:], at[:]) > 0 || bytes.Compare(first[:], before[:]) <= 0 {
				t.Fatalf("%s is not between %s and %s", first, before, at)
			}
		}
		if first := FirstMessageID(time.Time{}); first != (MessageID{}) {
			t.Errorf("since ever begins at %s", first)
		}
	})
	t.Run("is text in JSON", func(t *testing.T) {
		in := struct{ M MessageID }{NewMessageID(now)}
		b, err := json.Marshal(in)
		if err != nil || !strings.Contains(string(b), `"msg_`) {
			t.Fatalf("%s, %v", b, err)
		}
		out := in
		out.M = MessageID{}
		if err := json.Unmarshal(b, &out); err != nil || out != in {
			t.Errorf("%v came back as %v, %v", in, out, err)
		}
	})
	good := NewID(now).String()
	for name, bad := range map[string]string{
		"empty":           "",
		"another kind":    "msg_" + good[4:],
		"short":           good[:29],
		"long":            good + "0",
		"upper case":      strings.ToUpper(good),
		"no such letter":  good[:29] + "u",
		"more than 128":   "bat_8" + good[5:],
		"a path":          "bat_../../../../../etc/passwd0",
		"unicode of size": "bat_" + strings.Repeat("é", 13),
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			if id, err := ParseID(bad); err == nil {
				t.Errorf("%q was read as %s", bad, id)
			}
		})
	}
}

func TestNextMessageID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, last := made, MessageID{}
		for range 50 {
			now = now.Add(time.Duration(rapid.IntRange(-3, 3).Draw(t, "ms")) * time.Millisecond)
			id := NextMessageID(last, now)
			if bytes.Compare(id[:], last[:]) <= 0 {
				t.Fatalf("%v comes after %v", id, last)
			}
			if floor := FirstMessageID(now); bytes.Compare(id[:], floor[:]) < 0 {
				t.Fatalf("%v was made at %v, whose first is %v", id, now, floor)
			}
			last = id
		}
	})
	full := MessageID{1, 2, 3, 4, 5, 0xff, 0xff, 0xff}
	if id := NextMessageID(full, Epoch); !bytes.HasPrefix(id[:], []byte{1, 2, 3, 4, 6, 0, 0, 0}) {
		t.Errorf("a full count is followed by %x", id)
	}
	if a, b := NextMessageID(MessageID{}, made), NextMessageID(MessageID{}, made); a == b {
		t.Error("two are the same")
	}
}

func TestFirstID(t *testing.T) {
	at := Epoch.Add(400 * 24 * time.Hour)
	for name, c := range map[string]struct {
		id, since time.Time
		before    bool
	}{
		"made then":                     {at, at, false},
		"made a millisecond later":      {at.Add(time.Millisecond), at, false},
		"made a millisecond earlier":    {at.Add(-time.Millisecond), at, true},
		"made in the same millisecond":  {at, at.Add(1), true},
		"before there were ids":         {Epoch, Epoch.Add(-time.Hour), false},
		"when there are none any more":  {at, time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC), true},
		"at the beginning of all times": {Epoch, time.Time{}, false},
	} {
		id, first := NewID(c.id), FirstID(c.since)
		if got := bytes.Compare(id[:], first[:]) < 0; got != c.before {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
