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
func (c *courier) judge(d batch.Delivery, r callback.Result) batch.AttemptOutcome {
	o := batch.AttemptOutcome{Delivery: d, Attempt: attempt(d.Made, r)}
	switch r.Verdict {
	case callback.Interrupted:
		return refund(d, 0)
	case callback.Delivered:
		o.State = batch.MessageDelivered
	case callback.Gone:
		o.State, o.Reason = batch.MessageExhausted, r.Detail
	case callback.Refused:
		o.State, o.Reason = batch.MessageBlocked, r.Detail
	default:
		o.State, o.Due, o.Reason = c.next(d, r.RetryAfter)
	}
	return o
}

// next says when a message is tried again, or why not.
func (c *courier) next(d batch.Delivery, retryAfter time.Duration) (batch.MessageState, time.Time, string) {
	now := time.Now()
	due, spent := c.o.Schedule.Next(d.Made, retryAfter, d.Created, now, rand.Float64)
	if !spent {
		return batch.MessageWaiting, due, ""
	}
	endless := callback.Schedule{Steps: c.o.Schedule.Steps, Window: 100 * 365 * 24 * time.Hour}
	if _, spent = endless.Next(d.Made, 0, now, now, rand.Float64); spent {
		return batch.MessageExhausted, time.Time{}, "the attempts of the schedule are spent"
	}
	return batch.MessageExhausted, time.Time{}, "the time for attempts is spent"
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
	level, outcome := slog.LevelInfo, r.Category
	if r.Verdict == callback.Delivered {
		level, outcome = slog.LevelDebug, "delivered"
	}
	c.o.Metrics.Sent(outcome, r.Took.Total)
	d := o.Delivery
	c.log.LogAttrs(context.Background(), level, "webhook attempt",
		slog.Any("message_id", d.ID), slog.Any("batch_id", d.Batch), slog.Any("tenant_id", d.Tenant),
		slog.String("type", d.Type), slog.String("host", d.Host), slog.Int("attempt", d.Made),
		slog.String("outcome", outcome), slog.Int("status", r.Status), slog.String("remote_addr", r.RemoteAddr),
		slog.Duration("took", r.Took.Total), slog.Any("state", o.State), slog.String("reason", o.Reason), slog.Time("due", o.Due))
}
