package bolt_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/bolt"
)

// worker does by chance what a server does with its store, one call at a
// time.
type worker struct {
	store *bolt.Store
	rnd   *rand.Rand
	made  []batch.Batch
	open  batch.Batch // being sent in parts; zero: none is
	held  []batch.Work
	sent  []batch.Delivery
	n     int
}

// start makes what every store has: the signing secrets of its tenants.
func (w *worker) start(ctx context.Context) error {
	for _, t := range tenants {
		if _, err := w.store.Secrets(ctx, t, batch.Secret{Text: "whsec_" + t.String(), Created: time.Now()}); err != nil {
			return err
		}
	}
	return nil
}

// step makes one call that changes something, if there is something to do.
func (w *worker) step(ctx context.Context) error {
	w.n++
	if w.rnd.IntN(5) == 0 {
		return w.parts(ctx)
	}
	switch k := w.rnd.IntN(29); {
	case k < 4:
		return w.submit(ctx)
	case k < 12:
		return w.report(ctx)
	case k < 14:
		return w.cancel(ctx)
	case k < 17:
		return w.send(ctx)
	case k < 19:
		return w.attempted(ctx)
	case k < 21:
		return w.redeliver(ctx)
	case k < 22:
		return w.rotate(ctx)
	case k < 25:
		return w.retry(ctx)
	case k < 26:
		return w.remove(ctx)
	case k < 28:
		return w.steer(ctx)
	default:
		return w.store.AddKey(ctx, batch.Key{ID: batch.NewKeyID(time.Now()), Name: "k", Hash: []byte{1}, Created: time.Now()}, false)
	}
}

// sizes are how many items of how many bytes a batch has. The last is more
// than goes to disk in one commit.
var sizes = []struct{ items, bytes int }{{1, 60}, {1, 60}, {1, 900}, {3, 60}, {3, 10}, {20, 60}, {20, 10}, {40, 60}, {100, 30}, {257, 20}, {300, 60}, {600, 20}, {1100, 1000}}

func (w *worker) submit(ctx context.Context) error {
	tenant := tenants[w.rnd.IntN(len(tenants))]
	stage := w.store.Stage(ctx, tenant, batch.NewID(time.Now()))
	defer stage.Discard()
	size := sizes[w.rnd.IntN(len(sizes))]
	for first, left := 0, size.items; left > 0; {
		b := batch.Block{First: first}
		for range min(left, batch.BlockItems) {
			b.Items = append(b.Items, w.item(first+len(b.Items), size.bytes))
		}
		if err := stage.Append(ctx, b); err != nil {
			return fmt.Errorf("append: %w", err)
		}
		first, left = first+len(b.Items), left-len(b.Items)
	}
	if w.rnd.IntN(10) == 0 {
		return nil // the client went away
	}
	o := batch.Options{Processor: "p", Metadata: map[string]string{"n": fmt.Sprint(w.n)}}
	if w.rnd.IntN(4) > 0 {
		o.CallbackURL = fmt.Sprintf("https://receiver-%d.example/", w.rnd.IntN(3))
		o.CallbackMode = []batch.Mode{batch.ModeResults, batch.ModeResults, batch.ModeSummary, batch.ModePull}[w.rnd.IntN(4)]
		o.CallbackEvents = [][]string{nil, {batch.TypeProgress}}[w.rnd.IntN(2)]
	}
	b, err := stage.Create(ctx, batch.Spec{Options: o.WithDefaults(), Created: time.Now()}, w.once("create"))
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	w.made = append(w.made, b)
	return nil
}

func (w *worker) item(i, bytes int) batch.Item {
	raw := fmt.Sprintf(`{"n":%d,"pad":%q}`, w.n, strings.Repeat("x", bytes))
	return batch.Item{ID: fmt.Sprintf("%d-%d", w.n, i), Raw: []byte(raw)}
}

// report claims a block if none is held, and records what became of some or
// all of its items.
func (w *worker) report(ctx context.Context) (err error) {
	if len(w.held) == 0 {
		w.held, err = w.store.Claim(ctx, batch.Claim{Owner: "o", Processors: []string{"p"}, Blocks: 2, PerBatch: 2})
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
	}
	var reports []batch.Report
	var keep []batch.Work
	for _, held := range w.held {
		r := w.outcomes(&held)
		if r.Release = len(held.Items) == 0 || w.rnd.IntN(3) == 0; !r.Release {
			keep = append(keep, held)
		}
		reports = append(reports, r)
	}
	w.held = keep
	if len(reports) == 0 {
		return nil
	}
	done, err := w.store.Record(ctx, reports, batch.MessageClaim{Owner: "o", Max: w.rnd.IntN(3), Trials: 2, PerHost: 4})
	w.sent = append(w.sent, done.Deliveries...)
	if err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// outcomes decides what becomes of items of a block, and takes these out of it.
func (w *worker) outcomes(held *batch.Work) batch.Report {
	r := batch.Report{Lease: held.Lease, Started: time.Now()}
	some := len(held.Items)
	if w.rnd.IntN(2) == 0 {
		some = w.rnd.IntN(some + 1)
	}
	for _, it := range held.Items[:some] {
		res := batch.Result{Index: it.Index, ID: it.ID, Status: batch.ItemSucceeded, Attempts: it.Attempts + 1, Finished: time.Now(), Payload: []byte(`{"ok":true}`)}
		switch w.rnd.IntN(20) {
		case 0:
			r.Again = append(r.Again, batch.Again{Index: it.Index, Attempts: it.Attempts + 1, Due: time.Now()})
			continue
		case 1:
			res.Status, res.Payload = batch.ItemFailed, []byte(`{"code":"timeout","message":"too slow"}`)
		}
		r.Results = append(r.Results, res)
	}
	held.Items = held.Items[some:]
	return r
}

func (w *worker) cancel(ctx context.Context) error {
	if len(w.made) == 0 {
		return nil
	}
	b := w.made[len(w.made)-1]
	if _, err := w.store.Cancel(ctx, b.Tenant, b.ID); err != nil && !refusal(err) {
		return fmt.Errorf("cancel: %w", err)
	}
	return nil
}

// refusal reports whether err is what a batch answers that is over or gone.
func refusal(err error) bool {
	code := batch.CodeOf(err)
	return code == batch.Conflict || code == batch.Gone
}

// retry opens the next round of some batch, for all of it or for one item.
func (w *worker) retry(ctx context.Context) error {
	if len(w.made) == 0 {
		return nil
	}
	made := w.made[w.rnd.IntN(len(w.made))]
	b, err := w.store.Batch(ctx, made.Tenant, made.ID)
	if err == nil {
		r := batch.Retry{From: b.Round}
		if w.rnd.IntN(2) == 0 {
			r.Indexes = []int{w.rnd.IntN(b.Items)}
		}
		_, err = w.store.Retry(ctx, b.Tenant, b.ID, r, batch.Once{})
	}
	if err != nil && !refusal(err) && batch.CodeOf(err) != batch.Invalid {
		return fmt.Errorf("retry: %w", err)
	}
	return nil
}

func (w *worker) remove(ctx context.Context) error {
	if len(w.made) == 0 {
		return nil
	}
	b := w.made[w.rnd.IntN(len(w.made))]
	if err := w.store.Delete(ctx, b.Tenant, b.ID, w.rnd.IntN(2) == 0); err != nil && !refusal(err) {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// steer pauses, resumes or amends a batch that was made lately.
func (w *worker) steer(ctx context.Context) (err error) {
	if len(w.made) == 0 {
		return nil
	}
	b := w.made[max(0, len(w.made)-1-w.rnd.IntN(4))]
	var a batch.Amendment
	switch w.rnd.IntN(6) {
	case 0:
		_, err = w.store.Pause(ctx, b.Tenant, b.ID)
	case 1:
		_, err = w.store.Resume(ctx, b.Tenant, b.ID)
	case 2:
		a.CallbackURL = new(fmt.Sprintf("https://receiver-%d.example/", w.rnd.IntN(3)))
	case 3:
		a.Metadata = map[string]*string{"amended": new(fmt.Sprint(w.n))}
	case 4:
		a.MaxFailures = new(batch.Tolerance("1%"))
	default:
		a.ExpiresIn = new([]time.Duration{time.Millisecond, time.Hour}[w.rnd.IntN(2)])
	}
	if err == nil {
		_, err = w.store.Amend(ctx, b.Tenant, b.ID, a)
	}
	if err != nil && !refusal(err) {
		return fmt.Errorf("steer: %w", err)
	}
	return nil
}

func (w *worker) send(ctx context.Context) error {
	ds, err := w.store.ClaimMessages(ctx, batch.MessageClaim{Owner: "o", Max: 4, Retries: 2, Trials: 4, PerHost: 8})
	w.sent = append(w.sent, ds...)
	if err != nil {
		return fmt.Errorf("claim messages: %w", err)
	}
	return nil
}

func (w *worker) attempted(ctx context.Context) error {
	var outs []batch.AttemptOutcome
	for len(w.sent) > 0 && len(outs) < 3 {
		o := batch.AttemptOutcome{Delivery: w.sent[0], Attempt: batch.Attempt{Started: time.Now()}, State: batch.MessageDelivered, Host: batch.HostUp}
		switch w.rnd.IntN(6) {
		case 0:
			o.State, o.Due, o.Host = batch.MessageWaiting, time.Now(), batch.HostUnreachable
		case 1:
			o.State, o.Due, o.Host = batch.MessageWaiting, time.Now(), batch.HostDown
		case 2:
			o.State, o.Reason, o.Host = batch.MessageExhausted, "the receiver is gone", batch.HostUnknown
		}
		outs, w.sent = append(outs, o), w.sent[1:]
	}
	if len(outs) == 0 {
		return nil
	}
	if err := w.store.Attempted(ctx, outs); err != nil {
		return fmt.Errorf("attempted: %w", err)
	}
	return nil
}

// redeliver has some message sent again, whatever became of it.
func (w *worker) redeliver(ctx context.Context) error {
	tenant := tenants[w.rnd.IntN(len(tenants))]
	list, _, err := w.store.Messages(ctx, batch.MessageQuery{Tenant: tenant, Limit: 20})
	if err != nil || len(list) == 0 {
		return err
	}
	if _, err := w.store.Redeliver(ctx, tenant, list[w.rnd.IntN(len(list))].ID, batch.Once{}); err != nil {
		return fmt.Errorf("redeliver: %w", err)
	}
	return nil
}

func (w *worker) rotate(ctx context.Context) error {
	fresh := batch.Secret{Text: fmt.Sprint("whsec_", w.n), Created: time.Now()}
	if _, err := w.store.Rotate(ctx, tenants[w.rnd.IntN(len(tenants))], fresh, time.Duration(w.rnd.IntN(2))*time.Hour); err != nil && batch.CodeOf(err) != batch.Conflict {
		return fmt.Errorf("rotate: %w", err)
	}
	return nil
}
