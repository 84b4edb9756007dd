package engine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/callback"
)

// word returns what an error of the domain says to programs.
func word(err error) string {
	var e *batch.Error
	if !errors.As(err, &e) || e.Code != batch.Unavailable {
		return ""
	}
	return e.Word()
}

func TestATest(t *testing.T) {
	tenant := batch.TenantID{7}
	bubble(t, "is one signed attempt, and leaves nothing behind", func(t *testing.T, m *memory) {
		r := &receiver{answer: always(unavailable)}
		e, _ := start(t, m, engine.Options{Sender: r})
		headers := map[string]string{"Authorization": "Bearer x"}
		id, a, err := e.Test(t.Context(), tenant, hook, headers)
		if err != nil || a.Number != 1 || a.Response.Status != 503 || a.Error.Category != callback.CategoryStatus {
			t.Fatalf("%+v, %v", a, err)
		}
		got := r.got[0]
		if r.count() != 1 || got.ID != id.String() || got.Attempt != 1 || got.URL != hook || len(got.Secrets) != 1 {
			t.Errorf("sent %+v", got)
		}
		if d := cmp.Diff(headers, got.Headers); d != "" {
			t.Error(d)
		}
		var body struct {
			Type      string
			Timestamp time.Time
			Data      map[string]any
		}
		d := json.NewDecoder(bytes.NewReader(got.Body))
		d.DisallowUnknownFields()
		if err := d.Decode(&body); err != nil || body.Type != "callback.test" || !body.Timestamp.Equal(time.Now()) || body.Data == nil {
			t.Errorf("the body is %s: %v", got.Body, err)
		}
		time.Sleep(time.Hour)
		if r.count() != 1 || len(m.messages) != 0 || len(m.hosts) != 0 {
			t.Errorf("%d attempts, %d messages, %d hosts", r.count(), len(m.messages), len(m.hosts))
		}
	})
	bubble(t, "is refused when there are 4 of the tenant, or 16 in all", func(t *testing.T, m *memory) {
		r := &receiver{answer: hold(10 * time.Second)}
		e, _ := start(t, m, engine.Options{Sender: r})
		var under sync.WaitGroup
		begin := func(tenant byte) {
			under.Go(func() {
				if _, _, err := e.Test(t.Context(), batch.TenantID{tenant}, hook, nil); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for tenant := range byte(4) {
			for range 4 {
				begin(tenant)
			}
			if _, _, err := e.Test(t.Context(), batch.TenantID{tenant}, hook, nil); word(err) != "too_many_tests" {
				t.Errorf("the fifth of tenant %d: %v", tenant, err)
			}
		}
		if _, _, err := e.Test(t.Context(), batch.TenantID{9}, hook, nil); word(err) != "too_many_tests" {
			t.Errorf("the seventeenth: %v", err)
		}
		under.Wait()
		begin(9)
		under.Wait()
		if n := r.count(); n != 17 {
			t.Errorf("%d tests were sent", n)
		}
	})
	bubble(t, "ends with its context", func(t *testing.T, m *memory) {
		e, _ := start(t, m, engine.Options{Sender: &receiver{answer: hold(time.Hour)}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if _, _, err := e.Test(ctx, tenant, hook, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
	bubble(t, "is refused once the engine is to stop, which waits for those under way", func(t *testing.T, m *memory) {
		for _, c := range []struct {
			takes time.Duration
			want  string
		}{{10 * time.Second, ""}, {time.Hour, "draining"}} {
			e, stop := start(t, m, engine.Options{Sender: &receiver{answer: hold(c.takes)}})
			var under sync.WaitGroup
			under.Go(func() {
				if _, _, err := e.Test(t.Context(), tenant, hook, nil); word(err) != c.want || c.want == "" && err != nil {
					t.Errorf("one that takes %v: %v", c.takes, err)
				}
			})
			synctest.Wait()
			under.Go(func() { stop() })
			synctest.Wait()
			if _, _, err := e.Test(t.Context(), tenant, hook, nil); word(err) != "draining" {
				t.Errorf("while it drains: %v", err)
			}
			begun := time.Now()
			under.Wait()
			if took := time.Since(begun); took != min(c.takes, 20*time.Second) {
				t.Errorf("the drain took %v", took)
			}
			if _, _, err := e.Test(t.Context(), tenant, hook, nil); word(err) != "draining" {
				t.Errorf("after it: %v", err)
			}
		}
	})
	bubble(t, "is refused where nothing is sent", func(t *testing.T, m *memory) {
		e, _ := start(t, m, engine.Options{})
		if _, _, err := e.Test(t.Context(), tenant, hook, nil); word(err) != "unavailable" {
			t.Error(err)
		}
	})
}
