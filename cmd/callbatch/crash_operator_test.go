package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"syscall"
	"time"
)

// operator asks for what nobody has to ask for: that messages come once more,
// and for new secrets. What was answered holds, whatever crashes.
type operator struct {
	trial *trial
	rnd   *rand.Rand
	lost  *resend // was sent, and not answered: whether it is kept is unknown
	asked struct{ single, many, counted, rotations, cut int }
}

// resend is the order to send many messages once more.
type resend struct {
	since, host string
	known       []messageDoc // that it is for, among others
}

// run gives orders, some of which the server does not live to answer. Once
// begun, only its death cuts a request off: so what is not answered has
// happened before the next start, or never does.
func (o *operator) run(ctx context.Context) {
	for ctx.Err() == nil && !o.trial.ledger.broken() {
		breathe(ctx, time.Duration(3+o.rnd.IntN(30))*time.Millisecond)
		whole := context.WithoutCancel(ctx)
		var err error
		switch n := o.rnd.IntN(16); {
		case o.lost != nil:
			err = o.send(whole, o.lost)
		case n < 2:
			err = o.redeliverAll(whole)
		case n == 2:
			err = o.rotate(whole, false)
		case n == 3:
			err = o.trial.trust(whole)
		default:
			err = o.redeliver(whole)
		}
		if excuse(err) != nil {
			o.trial.ledger.violate("operator: %v", err)
		}
	}
}

// redeliver has one message sent once more.
func (o *operator) redeliver(ctx context.Context) error {
	m := o.trial.follower.pick(o.rnd)
	switch {
	case m == nil || m.doc.Type == typeProgress:
		return nil
	case o.trial.receiver.owes(m.id) && o.rnd.IntN(8) > 0: // it could make up for what was lost
		return nil
	}
	o.trial.ledger.reopen(m.about)
	o.trial.receiver.reopen(m.id, true)
	path := "/v1/messages/" + m.id + "/redeliver"
	ans, err := o.ask(ctx, path, "")
	switch {
	case err != nil:
		return err
	case ans.status == http.StatusConflict && !m.about.callback:
		return nil // there is nowhere to send it
	case ans.status != http.StatusAccepted || !m.about.callback:
		return unexpected{path, ans}
	}
	var doc messageDoc
	if err := json.Unmarshal(ans.body, &doc); err != nil || doc.ID != m.id {
		return unexpected{path, ans}
	}
	o.asked.single++
	o.trial.receiver.want(m.id, doc.Made)
	return nil
}

// redeliverAll has the last of the messages that are delivered sent once more,
// if none is owed from before: it could make up for what was lost.
func (o *operator) redeliverAll(ctx context.Context) error {
	const most = 30
	if len(o.trial.receiver.owed()) > 0 {
		return nil
	}
	list, err := o.trial.api.delivered(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	first := list[o.rnd.IntN(min(most, len(list)))]
	ord := &resend{since: first.CreatedAt}
	if o.rnd.IntN(2) == 0 {
		ord.host = first.Host
	}
	for _, m := range list {
		if m.CreatedAt >= ord.since && m.Type != typeProgress {
			ord.known = append(ord.known, m)
		}
	}
	return o.send(ctx, ord)
}

// send gives an order, the first time or again.
func (o *operator) send(ctx context.Context, ord *resend) error {
	what := map[string]string{"status": "delivered", "since": ord.since}
	if ord.host != "" {
		what["host"] = ord.host
	}
	o.trial.ledger.reopenAll() // it may reach what is delivered meanwhile
	for _, m := range ord.known {
		if s := o.trial.ledger.batch(m.BatchID); s != nil {
			o.trial.ledger.reopen(s)
		}
		o.trial.receiver.reopen(m.ID, false)
	}
	again := o.lost == ord
	o.lost = ord
	const path = "/v1/messages/redeliver"
	ans, err := o.ask(ctx, path, string(plain(what)))
	switch {
	case err != nil:
		return err
	case ans.status != http.StatusAccepted:
		return unexpected{path, ans}
	}
	o.lost = nil
	var of struct{ Count int }
	if err := json.Unmarshal(ans.body, &of); err != nil {
		return unexpected{path, ans}
	}
	if !again && of.Count < len(ord.known) {
		return violation{fmt.Errorf("%d messages since %s were delivered, %s counts %d", len(ord.known), ord.since, path, of.Count)}
	}
	for _, m := range ord.known {
		o.trial.receiver.want(m.ID, m.Made)
	}
	o.asked.many++
	o.asked.counted += of.Count
	return nil
}

// finish gives an order again that was not answered: when that is carried out,
// the first was as well, if it was kept.
func (o *operator) finish(ctx context.Context) error {
	if o.lost == nil {
		return nil
	}
	return o.send(ctx, o.lost)
}

// rotate has messages signed with a new secret, alone or beside those before.
func (o *operator) rotate(ctx context.Context, alone bool) error {
	keys := o.trial.receiver.keys
	if !keys.rotate(alone) {
		return nil
	}
	const path = "/v1/callbacks/secret/rotate"
	keep := `{"keep_old_for":"1h"}`
	if alone {
		keep = `{"keep_old_for":"0s"}`
	}
	ans, err := o.ask(ctx, path, keep)
	switch {
	case err != nil:
		return err
	case ans.status != http.StatusOK:
		return unexpected{path, ans}
	}
	var made struct{ Secret string }
	if err := json.Unmarshal(ans.body, &made); err != nil {
		return unexpected{path, ans}
	}
	o.asked.rotations++
	if err := keys.rotated(made.Secret, alone); err != nil {
		return violation{fmt.Errorf("the new secret: %w", err)}
	}
	return nil
}

// retire ends the older secrets if there are many. Nothing may be on its way,
// and nobody kill the server: an attempt could bear a secret not shown yet.
func (o *operator) retire(ctx context.Context) error {
	if !o.trial.receiver.keys.crowded() {
		return nil
	}
	return o.rotate(ctx, true)
}

// ask posts what is asked for and returns the complete answer.
func (o *operator) ask(ctx context.Context, path, body string) (answer, error) {
	ans, err := o.trial.api.post(ctx, path, body)
	switch {
	case err == nil:
		o.trial.trigger.hit("asked")
	case !errors.Is(err, syscall.ECONNREFUSED):
		o.asked.cut++
	}
	return ans, err
}

func (o *operator) summary() string {
	a := o.asked
	return fmt.Sprintf("%d called for by themselves and %d by %d orders, %d rotations, %d answers cut off",
		a.single, a.counted, a.many, a.rotations, a.cut)
}
