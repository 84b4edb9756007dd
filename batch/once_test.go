package batch

import (
	"errors"
	"testing"
	"time"
)

func TestWhatAKeyIsBoundTo(t *testing.T) {
	now := time.Now()
	once := Once{Key: "k", Content: Content("POST /v1/batches", []byte("x"))}
	b, err := once.Binds(nil, ID{1}, 7, now)
	if err != nil || b != (Binding{Content: once.Content, Batch: ID{1}, Count: 7, Made: now}) {
		t.Errorf("bound to %+v, %v", b, err)
	}
	if err := b.Replays(once.Content); err != nil {
		t.Errorf("the same again: %v", err)
	}
	for what, other := range map[string][32]byte{
		"another operation":       Content("POST /v1/batches?open=true", []byte("x")),
		"other content":           Content("POST /v1/batches", []byte("y")),
		"the border moved":        Content("POST /v1/batchesx", nil),
		"another path and nobody": Content("", []byte("POST /v1/batchesx")),
	} {
		var e *Error
		if err := b.Replays(other); !errors.As(err, &e) || e.Code != Invalid || e.Reason != "idempotency_mismatch" {
			t.Errorf("%s: %v", what, err)
		}
	}
	var e *Error
	if _, err := once.Binds(&b, ID{2}, 0, now); !errors.As(err, &e) || e.Code != Conflict || e.Reason != "idempotency_in_progress" {
		t.Errorf("bound twice: %v", err)
	}
	if b.Old(now.Add(BindingKept-1)) || !b.Old(now.Add(BindingKept)) {
		t.Error("it is old at another time")
	}
}
