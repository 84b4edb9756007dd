package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback"
)

// deliver makes the attempt a message was claimed for.
func (c *courier) deliver(work context.Context, d *batch.Delivery) batch.AttemptOutcome {
	if d.URL == "" {
		return unsent(d, batch.MessageCanceled, "the batch has no callback_url any more")
	}
	m, err := c.message(work, d)
	if err != nil {
		return c.unreadable(work, d, err)
	}
	pass("send")
	r := c.o.Sender.Send(work, m)
	pass("sent")
	c.bodies.give(d, len(m.Body))
	o := c.judge(d, r)
	c.tell(o, r)
	return o
}

// message is what is sent for d. Its body is to be given back.
func (c *courier) message(ctx context.Context, d *batch.Delivery) (callback.Message, error) {
	body, err := c.body(ctx, d)
	if err != nil {
		return callback.Message{}, fmt.Errorf("body: %w", err)
	}
	secrets, err := c.keys.of(ctx, d.Tenant) // last: they may be rotated while a body waits for room
	if err != nil {
		c.bodies.give(d, len(body))
		return callback.Message{}, fmt.Errorf("secrets: %v", err) // whatever it is, it says nothing about the message
	}
	return callback.Message{
		ID: d.ID.String(), Attempt: d.Made, URL: d.URL, Body: body, Headers: d.Headers, Secrets: secrets,
	}, nil
}

// body takes what is to be sent into memory, where there is room for it.
func (c *courier) body(ctx context.Context, d *batch.Delivery) ([]byte, error) {
	body := d.Body
	d.Body = nil // or it stays in memory until the attempt is recorded
	size := len(body)
	if size == 0 {
		if size = d.Size(); len(d.Refs) > 0 {
			size = batch.MaxPageBytes // until it is known
		}
	}
	if err := c.bodies.take(ctx, d, size); err != nil || body != nil {
		return body, err
	}
	body, err := c.store.Body(ctx, d.Message)
	c.bodies.give(d, size-len(body))
	return body, err
}

// unreadable says what becomes of a message that could not be put together.
func (c *courier) unreadable(work context.Context, d *batch.Delivery, err error) batch.AttemptOutcome {
	if work.Err() != nil {
		return refund(d, 0)
	}
	code := batch.CodeOf(err)
	if code != batch.Gone { // somebody deleted the batch: nothing is wrong
		c.log.Error("message cannot be sent", "message_id", d.ID, "batch_id", d.Batch, "error", err)
	}
	switch code {
	case batch.Damaged:
		return unsent(d, batch.MessageExhausted, "what it would carry is damaged in the store")
	case batch.NotFound, batch.Gone:
		return unsent(d, batch.MessageCanceled, "what it would carry is gone")
	default:
		return refund(d, longestBackoff)
	}
}

// unsent settles a message of which nothing was sent: there was no attempt.
func unsent(d *batch.Delivery, as batch.MessageState, reason string) batch.AttemptOutcome {
	return batch.AttemptOutcome{Delivery: *d, State: as, Reason: reason, Refund: true}
}

// refund puts a message off by about wait, as if its attempt had not been.
func refund(d *batch.Delivery, wait time.Duration) batch.AttemptOutcome {
	return batch.AttemptOutcome{
		Delivery: *d, State: batch.MessageWaiting, Refund: true,
		Due: time.Now().Add(wait + time.Duration(rand.Float64()*float64(wait)/4)),
	}
}
