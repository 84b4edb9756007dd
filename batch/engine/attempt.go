package engine

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback"
)

// judge decides what follows an attempt that came to r.
func (c *courier) judge(d *batch.Delivery, r callback.Result) batch.AttemptOutcome {
	o := batch.AttemptOutcome{Delivery: *d, Attempt: attempt(d.Made, r), Host: hostState(d, r)}
	switch r.Verdict {
	case callback.Interrupted:
		return refund(d, 0)
	case callback.Delivered:
		o.State = batch.MessageDelivered
	case callback.Gone:
		o.State, o.Reason = batch.MessageExhausted, r.Detail
	default:
		o.State, o.Reason, o.Due = c.again(d, r)
	}
	return o
}

// passingRefusals is how many attempts of a schedule may be refused because of
// the addresses of a name, and are made again: a name server's wrong answer
// passes. The next is the last word, as the first is about a URL that is
// refused by itself.
const passingRefusals = 3

// again says when a message is tried again that was not delivered, or why not.
// Of those that are tried just once it knows nothing: [batch.Message.Close]
// ends them.
func (c *courier) again(d *batch.Delivery, r callback.Result) (batch.MessageState, string, time.Time) {
	made := d.Made - d.Spared
	due, spent := c.o.Schedule.Next(made, r.RetryAfter, d.Until, time.Now(), rand.Float64)
	switch {
	case r.Verdict == callback.Refused && (r.Took.DNS == 0 || made > passingRefusals || spent != callback.NotSpent):
		return batch.MessageBlocked, r.Detail, time.Time{}
	case spent == callback.Steps:
		return batch.MessageExhausted, batch.ReasonSteps, time.Time{}
	case spent == callback.Window:
		return batch.MessageExhausted, batch.ReasonWindow, time.Time{}
	default:
		return batch.MessageWaiting, "", due
	}
}

// hostState is what an attempt says about its host. One that its owner asked
// for says nothing: it is made whatever is known.
func hostState(d *batch.Delivery, r callback.Result) batch.HostState {
	if d.Manual {
		return batch.HostUnknown
	}
	switch r.Host() {
	case callback.HostUp:
		return batch.HostUp
	case callback.HostDown:
		return batch.HostDown
	case callback.HostUnreachable:
		return batch.HostUnreachable
	default:
		return batch.HostUnknown
	}
}

// attempt is r as it is kept and shown.
func attempt(number int, r callback.Result) batch.Attempt {
	a := batch.Attempt{
		Number: number, Started: r.Started, RemoteAddr: r.RemoteAddr, RequestHeaders: flat(r.RequestHeaders),
		Took: batch.Took{
			DNS: r.Took.DNS.Milliseconds(), Connect: r.Took.Connect.Milliseconds(), TLS: r.Took.TLS.Milliseconds(),
			FirstByte: r.Took.FirstByte.Milliseconds(), Total: r.Took.Total.Milliseconds(),
		},
	}
	if r.Status != 0 {
		a.Response = &batch.Response{
			Status: r.Status, Headers: flat(r.ResponseHeaders), Body: string(r.ResponseBody), Truncated: r.Truncated,
		}
	}
	if r.Category != "" {
		a.Error = &batch.AttemptError{Category: r.Category, Detail: r.Detail}
	}
	return a
}

// flat joins the values of each header. What comes in is bounded already.
func flat(h map[string][]string) map[string]string {
	if len(h) == 0 {
		return nil
	}
	m := make(map[string]string, len(h))
	for k, v := range h {
		m[strings.ToLower(k)] = strings.Join(v, ", ")
	}
	return m
}

// tell writes the one line of an attempt, without what is secret, and counts
// it.
func (c *courier) tell(o batch.AttemptOutcome, r callback.Result) {
	level := slog.LevelInfo
	if r.Verdict == callback.Delivered {
		level = slog.LevelDebug
	}
	outcome := outcomeOf(r)
	c.o.Metrics.Sent(outcome, r.Took.Total)
	if !c.log.Enabled(context.Background(), level) {
		return
	}
	d, after := &o.Delivery, o.Delivery.Message
	after.Close(o, time.Now(), batch.Terms{})
	attrs := []slog.Attr{
		slog.Any("message_id", d.ID), slog.Any("batch_id", d.Batch), slog.Any("tenant_id", d.Tenant),
		slog.String("type", d.Type), slog.String("host", d.Host), slog.Int("attempt", d.Made),
		slog.Bool("retry", d.Retry()), slog.Bool("manual", d.Manual),
		slog.String("outcome", outcome), slog.Int("status", r.Status), slog.String("remote_addr", r.RemoteAddr),
		slog.Duration("took", r.Took.Total), slog.Any("state", after.State),
	}
	if after.Reason != "" {
		attrs = append(attrs, slog.String("reason", after.Reason))
	}
	if !after.Due.IsZero() {
		attrs = append(attrs, slog.Time("due", after.Due))
	}
	c.log.LogAttrs(context.Background(), level, "webhook attempt", attrs...)
}

// outcomeOf is how an attempt is counted: in a word of a closed list.
func outcomeOf(r callback.Result) string {
	if r.Verdict == callback.Delivered {
		return "delivered"
	}
	switch r.Category {
	case callback.CategoryDNS, callback.CategoryConnect, callback.CategoryTLS, callback.CategoryTimeout,
		callback.CategoryBlocked, callback.CategoryRedirect, callback.CategoryStatus,
		callback.CategoryTooLarge, callback.CategoryInterrupted:
		return r.Category
	default:
		return "other"
	}
}
