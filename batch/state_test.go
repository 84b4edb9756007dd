package batch

import (
	"encoding"
	"strings"
	"testing"
)

func TestStates(t *testing.T) {
	t.Run("survive their text", func(t *testing.T) {
		for s := Open; s <= Expired; s++ {
			var got Status
			survives(t, s, &got, func() bool { return got == s })
		}
		for s := ItemPending; s <= ItemExpired; s++ {
			var got ItemStatus
			survives(t, s, &got, func() bool { return got == s })
		}
		for s := MessageWaiting; s <= MessagePulled; s++ {
			var got MessageState
			survives(t, s, &got, func() bool { return got == s })
		}
	})
	t.Run("that are none are not read", func(t *testing.T) {
		for _, text := range []string{"", "done", "Waiting", "unknown(9)"} {
			for _, into := range []encoding.TextUnmarshaler{new(Status), new(ItemStatus), new(MessageState)} {
				if err := into.UnmarshalText([]byte(text)); err == nil {
					t.Errorf("%T: %q was read as %v", into, text, into)
				}
			}
		}
	})
	t.Run("a message is settled once nobody waits for it", func(t *testing.T) {
		for s, want := range map[MessageState]bool{
			MessageWaiting: false, MessageSending: false, MessageParked: false,
			MessageDelivered: true, MessageExhausted: true, MessageCanceled: true, MessageBlocked: true, MessagePulled: true,
		} {
			if s.Settled() != want {
				t.Errorf("%s: got %v", s, !want)
			}
		}
	})
}

func survives(t *testing.T, s encoding.TextMarshaler, into encoding.TextUnmarshaler, same func() bool) {
	t.Helper()
	text, err := s.MarshalText()
	if err == nil {
		err = into.UnmarshalText(text)
	}
	if err != nil || !same() || strings.HasPrefix(string(text), "unknown") {
		t.Errorf("%v, as %q, came back as %v, %v", s, text, into, err)
	}
}
