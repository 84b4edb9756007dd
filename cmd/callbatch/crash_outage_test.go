package main_test

import (
	"context"
	"time"
)

// outage is a time in which the receiver answers 503 to everything, and one
// behind it in which nothing fails, so that its host is trusted again.
type outage struct {
	attempts int       // left to fail
	until    time.Time // when it is over at the latest; zero before the first of them
	grace    int       // left to answer well
}

const (
	outageAttempts = 10                      // a breaker opens after 5
	outageGrace    = 30                      // more than it takes to be trusted
	outageMost     = 1500 * time.Millisecond // less than the first pause of the breaker, or the next would be longer
)

// mood is how the receiver answers.
type mood int

const (
	moody mood = iota // now and then badly
	down
	well
)

func (o *outage) next() mood {
	if o.attempts > 0 && o.until.IsZero() {
		o.until = time.Now().Add(outageMost)
	}
	switch {
	case o.attempts > 0 && time.Now().Before(o.until):
		o.attempts--
		return down
	case o.grace > 0:
		o.attempts = 0
		o.grace--
		return well
	default:
		return moody
	}
}

// hostDoc is a host that failed, as the API shows it.
type hostDoc struct {
	Host   string     `json:"host"`
	Status string     `json:"status"`
	Next   *time.Time `json:"next_attempt_at"`
}

func (a *api) hosts(ctx context.Context) (list []hostDoc, err error) {
	var page struct{ Data []hostDoc }
	err = a.get(ctx, "/v1/callbacks/hosts", &page)
	return page.Data, err
}

// opened returns when the breaker of the receiver lets the next attempt
// through; the zero time if it is not open.
func (tr *trial) opened(ctx context.Context) (time.Time, error) {
	list, err := tr.api.hosts(ctx)
	for _, h := range list {
		if h.Status == "open" && h.Next != nil {
			return *h.Next, nil
		}
	}
	return time.Time{}, err
}

// strikeDark kills the server while the breaker of the receiver is open. The
// next start knows that: until it is time nothing comes but what somebody
// asks for.
func (tr *trial) strikeDark(ctx context.Context) bool {
	before, err := tr.darken(ctx)
	if err != nil {
		tr.ledger.violate("breaker: %v", err)
		return false
	}
	if !tr.strike(ctx) || before.IsZero() {
		return !tr.ledger.broken()
	}
	tr.breakers++
	if err := tr.server.ready(ctx); err != nil {
		tr.ledger.violate("it does not come up: %v", err)
		return false
	}
	after, err := tr.opened(ctx)
	switch {
	case err != nil:
		tr.ledger.violate("breaker: %v", err)
		return false
	case after.Equal(before): // else what was on its way has closed it
		tr.receiver.expectQuiet(after)
	}
	return true
}

// darken has the receiver fail until its breaker opens, if that comes.
func (tr *trial) darken(ctx context.Context) (open time.Time, err error) {
	if err := tr.server.ready(ctx); err != nil {
		return open, err
	}
	tr.receiver.fail()
	for end := time.Now().Add(2 * outageMost); open.IsZero() && time.Now().Before(end); {
		if open, err = tr.opened(ctx); err != nil {
			return open, err
		}
		breathe(ctx, 10*time.Millisecond)
	}
	return open, nil
}
