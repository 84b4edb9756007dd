package main

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/callback/signature"
)

// signed returns the headers of an empty webhook that is sent now.
func signed(by signature.Secret) http.Header {
	now, h := time.Now(), http.Header{}
	h.Set(signature.HeaderID, "msg_1")
	h.Set(signature.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(signature.HeaderSignature, signature.Sign("msg_1", now, nil, by))
	return h
}

func TestKeyring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, stranger := signature.NewSecret(), signature.NewSecret(), signature.NewSecret()
		var log strings.Builder
		var down error
		var asked []time.Time
		server := first
		k := newKeyring(func(context.Context) (string, error) {
			asked = append(asked, time.Now())
			return server.Reveal(), down
		}, &log)
		if err := k.learn(t.Context()); err != nil {
			t.Fatal(err)
		}
		verify := func(by signature.Secret) error { return k.verify(t.Context(), signed(by), nil, time.Now()) }
		accepts := func(want bool, by signature.Secret, when string) {
			t.Helper()
			if err := verify(by); (err == nil) != want {
				t.Errorf("%s: %v", when, err)
			}
		}

		accepts(true, first, "the server's")
		server = second
		accepts(true, first, "what the server has given up, which nobody has told")
		accepts(true, second, "the new one")
		accepts(true, first, "the old one at once")
		time.Sleep(formerFor - time.Second)
		accepts(true, first, "the old one just within its time")
		time.Sleep(time.Second)
		accepts(false, first, "the old one after it")
		accepts(true, second, "the new one still")
		if log.String() != "the server has a new secret\n" {
			t.Errorf("it said %q", &log)
		}

		down = errors.New("\x1bdown")
		accepts(false, stranger, "a stranger's while the server is away")
		accepts(true, second, "the known one while the server is away")
		if !strings.HasSuffix(log.String(), "does not tell its secret: \ufffddown\n") {
			t.Errorf("it said %q", &log)
		}

		var all sync.WaitGroup
		before := len(asked)
		for range 50 {
			all.Go(func() { _ = verify(stranger) })
		}
		all.Wait()
		for i := range asked[1:] {
			if pause := asked[i+1].Sub(asked[i]); i > 0 && pause < fetchPause {
				t.Errorf("asked again after %s", pause)
			}
		}
		if len(asked) == before {
			t.Error("nobody asked")
		}
	})
}
