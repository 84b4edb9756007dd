package engine_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/callback"
)

// A receiver answers attempts and notes when they came.
type receiver struct {
	answer func(context.Context, callback.Message) callback.Result

	mu  sync.Mutex
	got []callback.Message
	at  []time.Time
}

func (r *receiver) Send(ctx context.Context, m callback.Message) callback.Result {
	r.mu.Lock()
	r.got, r.at = append(r.got, m), append(r.at, time.Now())
	r.mu.Unlock()
	if r.answer == nil {
		return callback.Result{Verdict: callback.Delivered, Status: 204}
	}
	return r.answer(ctx, m)
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

func always(r callback.Result) func(context.Context, callback.Message) callback.Result {
	return func(context.Context, callback.Message) callback.Result { return r }
}

var (
	unavailable = callback.Result{Verdict: callback.Retry, Status: 503, Category: callback.CategoryStatus, Detail: "503"}
	refusal     = callback.Result{Verdict: callback.Retry, Category: callback.CategoryConnect, Detail: "refused"}
)

const hook = "https://shop.example/hook"

func TestDelivery(t *testing.T) {
	bubble(t, "of a batch's end follows at once, signed by the tenant's secret", func(t *testing.T, m *memory) {
		r := &receiver{}
		o := procs(engine.Processor{Do: echo})
		o.Sender = r
		start(t, m, o)
		m.await(t, m.submit(spec(1, batch.Options{CallbackURL: hook}), 1, 1))
		synctest.Wait()
		if len(r.got) != 1 || r.got[0].Attempt != 1 || r.got[0].URL != hook || len(r.got[0].Secrets) != 1 || string(r.got[0].Body) != "{}" {
			t.Fatalf("sent %+v", r.got)
		}
		for id := range m.messages {
			if l := m.message(id); l.State != batch.MessageDelivered || l.attempts[0].Response.Status != 204 || l.attempts[0].Error != nil {
				t.Errorf("the message is %+v", l)
			}
		}
	})
	bubble(t, "follows the schedule for days and then is exhausted", func(t *testing.T, m *memory) {
		r := &receiver{answer: always(unavailable)}
		start(t, m, engine.Options{Sender: r})
		id := m.post(hook, 1)[0]
		time.Sleep(4 * 24 * time.Hour)
		l := m.message(id)
		if l.State != batch.MessageExhausted || l.Reason != "the attempts of the schedule are spent" || len(l.attempts) != 10 {
			t.Fatalf("%s (%s) after %d attempts", l.State, l.Reason, len(l.attempts))
		}
		for i, step := range []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour} {
			if wait := r.at[i+1].Sub(r.at[i]); wait < step || wait > step+step/10+time.Second {
				t.Errorf("attempt %d came after %v, want %v", i+2, wait, step)
			}
		}
	})
	bubble(t, "ends when its window is spent", func(t *testing.T, m *memory) {
		start(t, m, engine.Options{Sender: &receiver{answer: always(unavailable)}, Schedule: callback.Schedule{Window: time.Hour}})
		id := m.post(hook, 1)[0]
		time.Sleep(2 * time.Hour)
		if l := m.message(id); l.State != batch.MessageExhausted || l.Reason != "the time for attempts is spent" {
			t.Errorf("%s (%s)", l.State, l.Reason)
		}
	})
	for _, c := range []struct {
		name  string
		r     callback.Result
		state batch.MessageState
	}{
		{"stops when the receiver says so", callback.Result{Verdict: callback.Gone, Status: 410, Category: callback.CategoryStatus, Detail: "410"}, batch.MessageExhausted},
		{"stops when the guard forbids the address", callback.Result{Verdict: callback.Refused, Category: callback.CategoryBlocked, Detail: "loopback"}, batch.MessageBlocked},
	} {
		bubble(t, c.name, func(t *testing.T, m *memory) {
			start(t, m, engine.Options{Sender: &receiver{answer: always(c.r)}})
			id := m.post(hook, 1)[0]
			synctest.Wait()
			if l := m.message(id); l.State != c.state || l.Reason != c.r.Detail || len(l.attempts) != 1 {
				t.Errorf("%s (%s), %d attempts", l.State, l.Reason, len(l.attempts))
			}
		})
	}
	bubble(t, "without a URL is canceled", func(t *testing.T, m *memory) {
		start(t, m, engine.Options{Sender: &receiver{}})
		id := m.post("", 1)[0]
		synctest.Wait()
		if l := m.message(id); l.State != batch.MessageCanceled {
			t.Errorf("%s (%s)", l.State, l.Reason)
		}
	})
	bubble(t, "that our stop cuts short is not counted and due at once", func(t *testing.T, m *memory) {
		r := &receiver{answer: func(ctx context.Context, _ callback.Message) callback.Result {
			<-ctx.Done()
			return callback.Result{Verdict: callback.Interrupted}
		}}
		_, stop := start(t, m, engine.Options{Sender: r})
		id := m.post(hook, 1)[0]
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if l := m.message(id); l.State != batch.MessageWaiting || l.Made != 0 || l.Due.After(time.Now()) {
			t.Errorf("%s after %d attempts, due %v", l.State, l.Made, l.Due)
		}
	})
	bubble(t, "that ends within the drain is recorded", func(t *testing.T, m *memory) {
		r := &receiver{answer: func(ctx context.Context, _ callback.Message) callback.Result {
			nap(ctx, 10*time.Second)
			return callback.Result{Verdict: callback.Delivered, Status: 200}
		}}
		_, stop := start(t, m, engine.Options{Sender: r})
		id := m.post(hook, 1)[0]
		synctest.Wait()
		stop()
		if l := m.message(id); l.State != batch.MessageDelivered {
			t.Errorf("%s", l.State)
		}
	})
	bubble(t, "is recorded in groups, and held while the store is away", func(t *testing.T, m *memory) {
		until, groups := time.Now().Add(time.Minute), 0
		m.onAttempted = func([]batch.AttemptOutcome) error {
			if time.Now().Before(until) {
				return batch.Errorf(batch.Unavailable, "away")
			}
			groups++
			return nil
		}
		r := &receiver{}
		start(t, m, engine.Options{Sender: r})
		ids := m.post(hook, 100)
		time.Sleep(2 * time.Minute)
		for _, id := range ids {
			if l := m.message(id); l.State != batch.MessageDelivered || len(l.attempts) != 1 {
				t.Fatalf("%s after %d attempts", l.State, len(l.attempts))
			}
		}
		if groups > 5 || r.count() != 100 {
			t.Errorf("%d attempts in %d groups", r.count(), groups)
		}
	})
	bubble(t, "keeps to its slots, and leaves some to each class", func(t *testing.T, m *memory) {
		r := &receiver{answer: func(ctx context.Context, _ callback.Message) callback.Result {
			nap(ctx, 10*time.Second)
			return callback.Result{Verdict: callback.Delivered, Status: 200}
		}}
		o := procs(engine.Processor{Do: echo})
		o.Sender, o.InFlight = r, 16
		start(t, m, o)
		m.post(hook, 100)
		time.Sleep(time.Second)
		if n := r.count(); n != 14 {
			t.Errorf("%d of 16 slots are used by what was asked for", n)
		}
		m.await(t, m.submit(spec(1, batch.Options{CallbackURL: hook}), 1, 1))
		time.Sleep(time.Second)
		if n := r.count(); n != 15 {
			t.Errorf("%d slots are used with a fresh message besides", n)
		}
	})
}

func TestBreakerOfAHost(t *testing.T) {
	bubble(t, "opens after five failures in a row and costs no attempt", func(t *testing.T, m *memory) {
		var up atomic.Bool
		r := &receiver{answer: func(context.Context, callback.Message) callback.Result {
			if up.Load() {
				return callback.Result{Verdict: callback.Delivered, Status: 200}
			}
			return unavailable
		}}
		start(t, m, engine.Options{Sender: r, InFlight: 1})
		ids := m.post(hook, 30)
		time.Sleep(time.Minute)
		if n := r.count(); n < 8 || n > 10 {
			t.Errorf("%d attempts in the first minute, want 5 and a few probes", n)
		}
		up.Store(true)
		time.Sleep(10 * time.Minute)
		for _, id := range ids {
			if l := m.message(id); l.State != batch.MessageDelivered || l.Made != len(l.attempts) {
				t.Errorf("%s, %d made, %d kept", l.State, l.Made, len(l.attempts))
			}
		}
		if n := r.count(); n > 40 {
			t.Errorf("%d attempts for 30 messages", n)
		}
	})
	bubble(t, "keeps what it holds back close at hand, so that nothing newer passes it", func(t *testing.T, m *memory) {
		start(t, m, engine.Options{Sender: &receiver{answer: always(unavailable)}, InFlight: 1})
		ids := m.post(hook, 30)
		time.Sleep(30 * time.Minute)
		held := 0
		for _, id := range ids {
			if l := m.message(id); l.State == batch.MessageWaiting && l.Made == 0 {
				held++
				if wait := time.Until(l.Due); wait > 40*time.Second {
					t.Errorf("a message that was never sent waits %s", wait)
				}
			}
		}
		if held == 0 {
			t.Error("none was held back: the test shows nothing")
		}
	})
	bubble(t, "is shared between tenants for what lies below HTTP, and for nothing else", func(t *testing.T, m *memory) {
		for i, c := range []struct {
			r      callback.Result
			shared bool
		}{{refusal, true}, {unavailable, false}} {
			url := fmt.Sprintf("https://host%d.example/", i)
			r := &receiver{answer: always(c.r)}
			_, stop := start(t, m, engine.Options{Sender: r, InFlight: 1})
			m.post(url, 10)
			time.Sleep(time.Second)
			before := r.count()
			m.mu.Lock()
			other := m.letter(batch.Spec{Tenant: batch.TenantID{9}, Options: batch.Options{CallbackURL: url}}).ID
			m.mu.Unlock()
			raise(m.messagesChanged)
			time.Sleep(time.Second)
			if got := r.count() == before; got != c.shared {
				t.Errorf("%s: shared is %v, want %v: %+v", c.r.Category, got, c.shared, m.message(other).log)
			}
			stop()
		}
	})
}
