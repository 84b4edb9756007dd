package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/callback"
	"github.com/callbatch/callbatch/callback/signature"
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

// hold answers after d, unless the attempt is cut short.
func hold(d time.Duration) func(context.Context, callback.Message) callback.Result {
	return func(ctx context.Context, _ callback.Message) callback.Result {
		if nap(ctx, d) != nil {
			return callback.Result{Verdict: callback.Interrupted, Category: callback.CategoryInterrupted}
		}
		return callback.Result{Verdict: callback.Delivered, Status: 200}
	}
}

func always(r callback.Result) func(context.Context, callback.Message) callback.Result {
	return func(context.Context, callback.Message) callback.Result { return r }
}

var (
	unavailable = callback.Result{Verdict: callback.Retry, Status: 503, Category: callback.CategoryStatus, Detail: "503"}
	unreachable = callback.Result{Verdict: callback.Retry, Category: callback.CategoryConnect, Detail: "refused"}

	// forbidden is what a name server's answer leads to, malformed a URL.
	forbidden = callback.Result{
		Verdict: callback.Refused, Category: callback.CategoryBlocked, Detail: "loopback", Took: callback.Took{DNS: time.Millisecond},
	}
	malformed = callback.Result{Verdict: callback.Refused, Category: callback.CategoryBlocked, Detail: "no host"}
)

const hook = "https://shop.example/hook"

func TestDelivery(t *testing.T) {
	bubble(t, "of a batch's end follows at once, signed by the tenant's secret, with the extra headers", func(t *testing.T, m *memory) {
		r := &receiver{}
		o := procs(engine.Processor{Do: echo})
		o.Sender = r
		start(t, m, o)
		headers := map[string]string{"Authorization": "Bearer x"}
		m.await(t, m.submit(spec(1, batch.Options{CallbackURL: hook, CallbackHeaders: headers}), 1, 1))
		synctest.Wait()
		if len(r.got) != 1 || r.got[0].Attempt != 1 || r.got[0].URL != hook || len(r.got[0].Secrets) != 1 || string(r.got[0].Body) != "{}" {
			t.Fatalf("sent %+v", r.got)
		}
		if d := cmp.Diff(headers, r.got[0].Headers); d != "" {
			t.Error(d)
		}
		for id := range m.messages {
			if l := m.message(id); l.State != batch.MessageDelivered || l.attempts[0].Response.Status != 204 || l.attempts[0].Error != nil {
				t.Errorf("the message is %+v", l)
			}
		}
	})
	bubble(t, "that ends within the drain is recorded", func(t *testing.T, m *memory) {
		_, stop := start(t, m, engine.Options{Sender: &receiver{answer: hold(10 * time.Second)}})
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
		start(t, m, engine.Options{Sender: r, PerHost: 100})
		m.prove(hook)
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
	bubble(t, "stops while too many outcomes wait for the store, and goes on", func(t *testing.T, m *memory) {
		m.silent = true
		var back time.Time
		until := time.Now().Add(10 * time.Second)
		m.onAttempted = func([]batch.AttemptOutcome) error {
			if time.Now().Before(until) {
				return batch.Errorf(batch.Unavailable, "away")
			}
			if back.IsZero() {
				back = time.Now()
			}
			return nil
		}
		r := &receiver{}
		start(t, m, engine.Options{Sender: r, InFlight: 4, PerHost: 1000})
		m.prove(hook)
		m.post(hook, 100)
		time.Sleep(9 * time.Second)
		if n := r.count(); n != 16 {
			t.Errorf("%d attempts while their outcomes cannot be recorded", n)
		}
		time.Sleep(7 * time.Second)
		if n := r.count(); n != 100 {
			t.Fatalf("%d attempts after that", n)
		}
		if took := r.at[99].Sub(back); took > 0 {
			t.Errorf("the last came %v after the store was back", took)
		}
	})
	for _, c := range []struct {
		name  string
		err   error
		state batch.MessageState
	}{
		{"of what is damaged ends", batch.Errorf(batch.Damaged, "checksum"), batch.MessageExhausted},
		{"of what is gone ends", batch.Errorf(batch.NotFound, "no such batch"), batch.MessageCanceled},
		{"of a batch that was deleted ends", batch.Errorf(batch.Gone, "it was deleted"), batch.MessageCanceled},
		{"waits for a store that is away", batch.Errorf(batch.Unavailable, "away"), batch.MessageWaiting},
	} {
		bubble(t, c.name+", and no attempt is counted", func(t *testing.T, m *memory) {
			m.onBody = func(batch.Message) ([]byte, error) { return nil, c.err }
			r := &receiver{}
			var log bytes.Buffer
			start(t, m, engine.Options{Sender: r, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			id := m.post(hook, 1)[0]
			synctest.Wait()
			if wrong := strings.Contains(log.String(), "ERROR"); wrong == (batch.CodeOf(c.err) == batch.Gone) {
				t.Errorf("it is logged: %s", &log)
			}
			if l := m.message(id); l.State != c.state || l.Made != 0 || len(l.attempts) != 0 || r.count() != 0 {
				t.Errorf("%s (%s) after %d attempts", l.State, l.Reason, l.Made)
			}
			if l := m.message(id); l.State == batch.MessageWaiting && time.Until(l.Due) < 5*time.Second {
				t.Errorf("due in %v", time.Until(l.Due))
			}
		})
	}
	bubble(t, "without a URL is canceled", func(t *testing.T, m *memory) {
		start(t, m, engine.Options{Sender: &receiver{}})
		id := m.post("", 1)[0]
		synctest.Wait()
		if l := m.message(id); l.State != batch.MessageCanceled || l.Made != 0 {
			t.Errorf("%s (%s) after %d attempts", l.State, l.Reason, l.Made)
		}
	})
}

func TestSchedule(t *testing.T) {
	bubble(t, "is followed for days", func(t *testing.T, m *memory) {
		r := &receiver{answer: always(unavailable)}
		start(t, m, engine.Options{Sender: r})
		id := m.post(hook, 1)[0]
		time.Sleep(4 * 24 * time.Hour)
		l := m.message(id)
		if l.State != batch.MessageExhausted || l.Reason != batch.ReasonSteps || len(l.attempts) != 10 {
			t.Fatalf("%s (%s) after %d attempts", l.State, l.Reason, len(l.attempts))
		}
		for i, step := range []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour} {
			if wait := r.at[i+1].Sub(r.at[i]); wait < step || wait > step+step/10+time.Second {
				t.Errorf("attempt %d came after %v, want %v", i+2, wait, step)
			}
		}
	})
	bubble(t, "begins anew when the message's owner asks, and its window too", func(t *testing.T, m *memory) {
		r := &receiver{answer: always(unavailable)}
		m.terms.Window = 20 * time.Minute
		start(t, m, engine.Options{Sender: r, Schedule: callback.Schedule{Steps: []time.Duration{0, time.Second, time.Minute}}})
		id := m.post(hook, 1)[0]
		for round := range 3 {
			time.Sleep(15 * time.Minute)
			if l := m.message(id); l.State != batch.MessageExhausted || l.Reason != batch.ReasonSteps || len(l.attempts) != 3*(round+1) {
				t.Fatalf("%s (%s) after %d attempts", l.State, l.Reason, len(l.attempts))
			}
			m.redeliver(id)
		}
		if n := r.got[8].Attempt; n != 9 {
			t.Errorf("the last attempt bears the number %d", n)
		}
	})
	bubble(t, "ends with its window", func(t *testing.T, m *memory) {
		m.terms.Window = time.Hour
		start(t, m, engine.Options{Sender: &receiver{answer: always(unavailable)}})
		id := m.post(hook, 1)[0]
		time.Sleep(40 * time.Minute)
		if l := m.message(id); l.State != batch.MessageExhausted || l.Reason != batch.ReasonWindow || len(l.attempts) != 4 {
			t.Errorf("%s (%s) after %d attempts", l.State, l.Reason, len(l.attempts))
		}
	})
	bubble(t, "is not for word of the progress", func(t *testing.T, m *memory) {
		for _, r := range []callback.Result{unavailable, forbidden} {
			_, stop := start(t, m, engine.Options{Sender: &receiver{answer: always(r)}})
			id := m.post(hook, 1, func(l *letter) { l.Type = batch.TypeProgress })[0]
			synctest.Wait()
			if l := m.message(id); l.State != batch.MessageExhausted || l.Reason != batch.ReasonOnce || len(l.attempts) != 1 {
				t.Errorf("%s: %s (%s) after %d attempts", r.Category, l.State, l.Reason, len(l.attempts))
			}
			stop()
		}
	})
	bubble(t, "stops when the receiver says so", func(t *testing.T, m *memory) {
		gone := callback.Result{Verdict: callback.Gone, Status: 410, Category: callback.CategoryStatus, Detail: "410"}
		start(t, m, engine.Options{Sender: &receiver{answer: always(gone)}})
		id := m.post(hook, 1)[0]
		synctest.Wait()
		if l := m.message(id); l.State != batch.MessageExhausted || l.Reason != "410" || len(l.attempts) != 1 {
			t.Errorf("%s (%s), %d attempts", l.State, l.Reason, len(l.attempts))
		}
	})
}

func TestRefusedByTheGuard(t *testing.T) {
	bubble(t, "is the last word about a URL", func(t *testing.T, m *memory) {
		start(t, m, engine.Options{Sender: &receiver{answer: always(malformed)}})
		id := m.post(hook, 1)[0]
		synctest.Wait()
		if l := m.message(id); l.State != batch.MessageBlocked || l.Reason != "no host" || len(l.attempts) != 1 {
			t.Errorf("%s (%s), %d attempts", l.State, l.Reason, len(l.attempts))
		}
	})
	bubble(t, "is the last word about what a name stands for at the fourth attempt of a schedule", func(t *testing.T, m *memory) {
		start(t, m, engine.Options{Sender: &receiver{answer: always(forbidden)}})
		id := m.post(hook, 1)[0]
		time.Sleep(10 * time.Minute)
		if l := m.message(id); l.State != batch.MessageWaiting || len(l.attempts) != 3 {
			t.Errorf("%s after %d attempts", l.State, len(l.attempts))
		}
		for _, want := range []int{4, 8} {
			time.Sleep(time.Hour)
			if l := m.message(id); l.State != batch.MessageBlocked || l.Reason != "loopback" || len(l.attempts) != want {
				t.Errorf("%s (%s), %d attempts, want %d", l.State, l.Reason, len(l.attempts), want)
			}
			m.redeliver(id)
		}
	})
	bubble(t, "passes with a name server's mistake", func(t *testing.T, m *memory) {
		r := &receiver{}
		r.answer = func(context.Context, callback.Message) callback.Result {
			if len(r.got) < 3 {
				return forbidden
			}
			return callback.Result{Verdict: callback.Delivered, Status: 200}
		}
		start(t, m, engine.Options{Sender: r})
		id := m.post(hook, 1)[0]
		time.Sleep(time.Hour)
		if l := m.message(id); l.State != batch.MessageDelivered {
			t.Errorf("%s (%s)", l.State, l.Reason)
		}
	})
	bubble(t, "is the last word when the schedule has no more to give", func(t *testing.T, m *memory) {
		start(t, m, engine.Options{Sender: &receiver{answer: always(forbidden)}, Schedule: callback.Schedule{Steps: []time.Duration{0, time.Second}}})
		id := m.post(hook, 1)[0]
		time.Sleep(time.Minute)
		if l := m.message(id); l.State != batch.MessageBlocked || len(l.attempts) != 2 {
			t.Errorf("%s (%s), %d attempts", l.State, l.Reason, len(l.attempts))
		}
	})
}

func TestOurOwnStop(t *testing.T) {
	for _, manual := range []bool{false, true} {
		bubble(t, fmt.Sprintf("cuts an attempt short after the drain, and it never was; asked for by its owner: %v", manual), func(t *testing.T, m *memory) {
			r := &receiver{answer: hold(time.Hour)}
			_, stop := start(t, m, engine.Options{Sender: r})
			id := m.post(hook, 1, func(l *letter) { l.Manual, l.Made = manual, 3 })[0]
			synctest.Wait()
			begun := time.Now()
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took != 20*time.Second {
				t.Errorf("the drain took %v", took)
			}
			if l := m.message(id); l.State != batch.MessageWaiting || l.Made != 3 || l.Manual != manual || l.Due.After(time.Now()) || !l.log[0].Refund || len(l.attempts) != 0 {
				t.Errorf("%s after %d attempts, manual %v, due %v", l.State, l.Made, l.Manual, l.Due)
			}
		})
	}
	bubble(t, "does not lose what was claimed while it began", func(t *testing.T, m *memory) {
		claiming := make(chan struct{}, 1)
		m.onClaim = func(batch.MessageClaim) {
			raise(claiming)
			m.mu.Unlock()
			time.Sleep(time.Second)
			m.mu.Lock()
		}
		_, stop := start(t, m, engine.Options{Sender: &receiver{}})
		<-claiming
		id := m.post(hook, 1)[0]
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if l := m.message(id); l.State != batch.MessageDelivered {
			t.Errorf("%s", l.State)
		}
	})
	bubble(t, "waits for a claim that brings nothing, and no longer", func(t *testing.T, m *memory) {
		m.onClaim = func(batch.MessageClaim) {
			m.mu.Unlock()
			time.Sleep(time.Second)
			m.mu.Lock()
		}
		_, stop := start(t, m, engine.Options{Sender: &receiver{}})
		synctest.Wait()
		begun := time.Now()
		if err := stop(); err != nil || time.Since(begun) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

func TestSlots(t *testing.T) {
	// inFlight posts messages, waits, and returns how many are being sent.
	inFlight := func(m *memory, r *receiver, url string, n int, change ...func(*letter)) int {
		m.post(url, n, change...)
		time.Sleep(time.Second)
		return r.count()
	}
	bubble(t, "retries never take the last from first attempts", func(t *testing.T, m *memory) {
		r := &receiver{answer: hold(time.Hour)}
		start(t, m, engine.Options{Sender: r, InFlight: 16})
		m.prove(hook)
		if n := inFlight(m, r, hook, 100, retried); n != 14 {
			t.Errorf("retries have %d of 16", n)
		}
		if n := inFlight(m, r, hook, 100); n != 16 {
			t.Errorf("first attempts have %d besides", n-14)
		}
	})
	bubble(t, "hosts that are not proven never take the last from those that are", func(t *testing.T, m *memory) {
		r := &receiver{answer: hold(time.Hour)}
		start(t, m, engine.Options{Sender: r, InFlight: 16})
		for i := range 9 {
			m.post(fmt.Sprintf("https://new%d.example/", i), 10)
		}
		if n := inFlight(m, r, "https://new9.example/", 10); n != 8 {
			t.Errorf("trials have %d of 16", n)
		}
		m.prove(hook)
		if n := inFlight(m, r, hook, 100); n != 16 {
			t.Errorf("others have %d besides", n-8)
		}
	})
	bubble(t, "one host has no more than its own", func(t *testing.T, m *memory) {
		r := &receiver{answer: hold(time.Hour)}
		start(t, m, engine.Options{Sender: r, PerHost: 5})
		m.prove(hook)
		if n := inFlight(m, r, hook, 100); n != 5 {
			t.Errorf("%d are being sent", n)
		}
	})
	bubble(t, "are used again at once though no hint comes", func(t *testing.T, m *memory) {
		m.silent = true
		r := &receiver{answer: hold(10 * time.Millisecond)}
		e, _ := start(t, m, engine.Options{Sender: r, InFlight: 8})
		for i := range 20 { // some wait for a slot, some for one of retries, some for one of trials
			url := fmt.Sprintf("https://host%d.example/", i)
			if i%2 == 0 {
				m.prove(url)
			}
			m.post(url, 3)
			m.post(url, 1, retried)
		}
		time.Sleep(400 * time.Millisecond) // 80 messages, 40 of them trials, 4 at a time
		if n := r.count(); n != 80 || e.Sending() != 0 {
			t.Errorf("%d sent, %d being sent", n, e.Sending())
		}
	})
	bubble(t, "of retries are used again at once though no hint comes", func(t *testing.T, m *memory) {
		m.silent = true
		r := &receiver{answer: hold(10 * time.Millisecond)}
		start(t, m, engine.Options{Sender: r, InFlight: 8})
		m.prove(hook)
		m.post(hook, 21, retried)
		time.Sleep(25 * time.Millisecond)
		if n := r.count(); n != 21 {
			t.Errorf("%d sent, 7 at a time", n)
		}
	})
	bubble(t, "come back from a transaction that made no message", func(t *testing.T, m *memory) {
		m.silent = true
		recording := make(chan struct{})
		m.onRecord = func([]batch.Report) error {
			close(recording)
			m.mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			m.mu.Lock()
			return nil
		}
		r := &receiver{answer: hold(time.Hour)}
		o := procs(engine.Processor{Do: echo})
		o.Sender, o.InFlight = r, 2
		start(t, m, o)
		m.prove(hook)
		m.submit(spec(1, batch.Options{}), 1, 1)
		<-recording
		begun := time.Now()
		m.post(hook, 2)
		synctest.Wait()
		if n := r.count(); n != 1 {
			t.Fatalf("%d are being sent while the other slot is offered", n)
		}
		time.Sleep(200 * time.Millisecond)
		if r.count() != 2 || r.at[1].Sub(begun) != 100*time.Millisecond {
			t.Errorf("sent at %v, begun at %v", r.at, begun)
		}
	})
	bubble(t, "are offered to messages in the making while a claim is under way", func(t *testing.T, m *memory) {
		var busy atomic.Bool
		m.onClaim = func(batch.MessageClaim) {
			busy.Store(true)
			m.mu.Unlock()
			time.Sleep(10 * time.Second)
			m.mu.Lock()
		}
		r := &receiver{}
		o := procs(engine.Processor{Do: echo})
		o.Sender = r
		start(t, m, o)
		synctest.Wait()
		if !busy.Load() {
			t.Fatal("no claim is under way")
		}
		m.await(t, m.submit(spec(1, batch.Options{CallbackURL: hook}), 1, 1))
		synctest.Wait()
		if n := r.count(); n != 1 {
			t.Errorf("%d sent", n)
		}
	})
}

func TestBodies(t *testing.T) {
	large := func(l *letter) { l.Refs = []batch.Ref{{To: 1}} }
	mega := func(batch.Message) ([]byte, error) { return make([]byte, batch.MaxPageBytes), nil }
	bubble(t, "of a host that hangs leave room for others", func(t *testing.T, m *memory) {
		m.onBody = mega
		r := &receiver{answer: func(ctx context.Context, msg callback.Message) callback.Result {
			if msg.URL == hook {
				return hold(time.Minute)(ctx, msg)
			}
			return hold(0)(ctx, msg)
		}}
		start(t, m, engine.Options{Sender: r, PerHost: 512})
		m.prove(hook)
		ids := m.post(hook, 100, large)
		time.Sleep(time.Second)
		if n := r.count(); n != 32 {
			t.Errorf("%d MiB of bodies are held for one host", n)
		}
		const other = "https://other.example/"
		m.prove(other)
		m.post(other, 100, large)
		time.Sleep(time.Second)
		if n := r.count(); n != 132 {
			t.Errorf("%d sent to another host", n-32)
		}
		time.Sleep(5 * time.Minute)
		for _, id := range ids {
			if l := m.message(id); l.State != batch.MessageDelivered {
				t.Fatalf("%s", l.State)
			}
		}
	})
	bubble(t, "to hosts that are not proven have half", func(t *testing.T, m *memory) {
		m.onBody = mega
		r := &receiver{answer: hold(time.Minute)}
		start(t, m, engine.Options{Sender: r})
		for i := range 20 {
			m.post(fmt.Sprintf("https://new%d.example/", i), 4, large)
		}
		time.Sleep(time.Second)
		if n := r.count(); n != 32 {
			t.Errorf("%d MiB of bodies are held", n)
		}
	})
	bubble(t, "that wait for room do not hold up the end", func(t *testing.T, m *memory) {
		m.onBody = mega
		_, stop := start(t, m, engine.Options{Sender: &receiver{answer: hold(time.Hour)}, PerHost: 512})
		m.prove(hook)
		ids := m.post(hook, 100, large)
		time.Sleep(time.Second)
		begun := time.Now()
		if err := stop(); err != nil || time.Since(begun) != 20*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
		for _, id := range ids {
			if l := m.message(id); l.State != batch.MessageWaiting || l.Made != 0 || l.Due.After(time.Now()) {
				t.Fatalf("%s after %d attempts, due %v", l.State, l.Made, l.Due)
			}
		}
	})
	bubble(t, "are counted by what they are", func(t *testing.T, m *memory) {
		m.onBody = func(batch.Message) ([]byte, error) { return make([]byte, 96<<10), nil }
		r := &receiver{answer: hold(time.Minute)}
		start(t, m, engine.Options{Sender: r, PerHost: 300})
		m.prove(hook)
		m.post(hook, 300, large)
		time.Sleep(time.Second)
		if n := r.count(); n != 300 {
			t.Errorf("%d of 300 are being sent, of 96 KiB each", n)
		}
	})
}

func TestWhatAnAttemptSaysOfItsHost(t *testing.T) {
	for _, c := range []struct {
		name   string
		r      callback.Result
		manual bool
		want   batch.HostState
	}{
		{"it answers", callback.Result{Verdict: callback.Delivered, Status: 200}, false, batch.HostUp},
		{"it answers no", callback.Result{Verdict: callback.Gone, Status: 410, Category: callback.CategoryStatus}, false, batch.HostUp},
		{"it is in trouble", unavailable, false, batch.HostDown},
		{"it hangs", callback.Result{Verdict: callback.Retry, Category: callback.CategoryTimeout}, false, batch.HostDown},
		{"it is not there", unreachable, false, batch.HostUnreachable},
		{"nothing, when the guard forbids it", forbidden, false, batch.HostUnknown},
		{"nothing good, when its owner asked for the attempt", callback.Result{Verdict: callback.Delivered, Status: 200}, true, batch.HostUnknown},
		{"nothing bad, when its owner asked for the attempt", unreachable, true, batch.HostUnknown},
	} {
		bubble(t, c.name, func(t *testing.T, m *memory) {
			start(t, m, engine.Options{Sender: &receiver{answer: always(c.r)}})
			id := m.post(hook, 1, func(l *letter) { l.Manual = c.manual })[0]
			synctest.Wait()
			if got := m.message(id).log[0].Host; got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
	bubble(t, "so that a host that is down costs no attempts and is left alone", func(t *testing.T, m *memory) {
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
		if n := r.count(); n < 8 || n > 15 { // one or two more by the turns of the claims
			t.Errorf("%d attempts in the first minute, want 5 and a few probes", n)
		}
		up.Store(true)
		time.Sleep(10 * time.Minute)
		for _, id := range ids {
			if l := m.message(id); l.State != batch.MessageDelivered || l.Made != len(l.attempts) {
				t.Errorf("%s, %d made, %d kept", l.State, l.Made, len(l.attempts))
			}
		}
		if n := r.count(); n > 45 {
			t.Errorf("%d attempts for 30 messages", n)
		}
	})
}

func TestSecrets(t *testing.T) {
	bubble(t, "are asked for once a second, however many messages there are", func(t *testing.T, m *memory) {
		start(t, m, engine.Options{Sender: &receiver{}})
		m.prove(hook)
		for range 100 {
			m.post(hook, 10)
			time.Sleep(100 * time.Millisecond)
		}
		if m.asked > 10 {
			t.Errorf("%d times in ten seconds", m.asked)
		}
	})
	bubble(t, "that are new sign within a second, old ones never past their time", func(t *testing.T, m *memory) {
		r := &receiver{}
		start(t, m, engine.Options{Sender: r})
		m.prove(hook)
		secrets := func() []string {
			m.post(hook, 1)
			synctest.Wait()
			var all []string
			for _, s := range r.got[len(r.got)-1].Secrets {
				all = append(all, s.Reveal())
			}
			return all
		}
		first := secrets()
		second := signature.NewSecret().Reveal()
		m.mu.Lock()
		m.secrets[0].Until = time.Now().Add(1500 * time.Millisecond)
		m.secrets = slices.Insert(m.secrets, 0, batch.Secret{Text: second})
		m.mu.Unlock()
		for _, step := range []struct {
			wait time.Duration
			want []string
		}{{time.Second, []string{second, first[0]}}, {499 * time.Millisecond, []string{second, first[0]}}, {time.Millisecond, []string{second}}} {
			time.Sleep(step.wait)
			if d := cmp.Diff(step.want, secrets()); d != "" {
				t.Error(d)
			}
		}
	})
	for name, c := range map[string]struct {
		after time.Duration // secrets that were read before are remembered for a second
		sent  int           // after the rotation
		late  func(m *memory, wait func())
	}{
		"that were rotated sign at once":                      {900 * time.Millisecond, 1, func(*memory, func()) {}},
		"that were rotated while they were read sign at once": {time.Minute, 2, func(m *memory, wait func()) { m.onSecrets = wait }},
		"that were rotated while a body was read do not sign it": {900 * time.Millisecond, 2, func(m *memory, wait func()) {
			m.onBody = func(batch.Message) ([]byte, error) { wait(); return []byte("{}"), nil }
		}},
	} {
		bubble(t, name, func(t *testing.T, m *memory) {
			r := &receiver{}
			e, _ := start(t, m, engine.Options{Sender: r})
			m.prove(hook)
			m.post(hook, 1)
			synctest.Wait()
			time.Sleep(c.after)
			rotated := make(chan struct{})
			c.late(m, func() { <-rotated })
			m.post(hook, 1)
			synctest.Wait()
			second := signature.NewSecret().Reveal()
			m.mu.Lock()
			m.secrets = []batch.Secret{{Text: second}}
			m.mu.Unlock()
			before := r.count()
			e.Rotated(batch.TenantID{})
			close(rotated)
			m.post(hook, 1)
			synctest.Wait()
			late := r.got[before:]
			if len(late) != c.sent {
				t.Errorf("%d attempts after the rotation, want %d", len(late), c.sent)
			}
			for _, got := range late {
				if len(got.Secrets) != 1 || got.Secrets[0].Reveal() != second {
					t.Errorf("an attempt after the rotation has %d secrets, and not the new one alone", len(got.Secrets))
				}
			}
		})
	}
	bubble(t, "that cannot be had put messages off", func(t *testing.T, m *memory) {
		m.secrets = []batch.Secret{{Text: signature.NewSecret().Reveal(), Until: time.Now().Add(-time.Second)}}
		r := &receiver{}
		start(t, m, engine.Options{Sender: r})
		id := m.post(hook, 1)[0]
		synctest.Wait()
		if l := m.message(id); l.State != batch.MessageWaiting || l.Made != 0 || r.count() != 0 {
			t.Errorf("%s after %d attempts", l.State, l.Made)
		}
	})
}
