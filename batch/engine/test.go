package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback"
)

// How many tests are made at once.
const (
	mostTests        = 16
	testsOfOneTenant = 4
)

// tests are those under way.
type tests struct {
	all int
	of  map[batch.TenantID]int
}

// Test sends a message of type callback.test to url now, signed with the
// tenant's secrets and with extra headers for the receiver's gateway, and
// returns what came of the one attempt. It keeps
// nothing, and what it learns of the host is not heard. Where the sender may
// not send, the attempt says so.
//
// More than 4 at once for a tenant, or 16 in all, are Unavailable with reason
// too_many_tests; an engine that stops is Unavailable with reason draining,
// also if that cuts the attempt short. If ctx does, Test returns its error.
func (e *Engine) Test(ctx context.Context, tenant batch.TenantID, url string, headers map[string]string) (id batch.MessageID, a batch.Attempt, err error) {
	c := e.courier
	if err := c.beginTest(tenant); err != nil {
		return id, a, err
	}
	defer c.endTest(tenant)
	secrets, err := c.keys.of(ctx, tenant)
	if err != nil {
		return id, a, fmt.Errorf("secrets: %w", err)
	}
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()

	now := time.Now()
	id = batch.NewMessageID(now)
	r := c.o.Sender.Send(sending, callback.Message{
		ID: id.String(), Attempt: 1, URL: url, Body: testBody(now), Headers: headers, Secrets: secrets,
	})
	c.log.Info("webhook test", "message_id", id, "tenant_id", tenant, "host", clip(batch.CallbackHost(url), maxHost),
		"outcome", outcomeOf(r), "status", r.Status, "remote_addr", r.RemoteAddr, "took", r.Took.Total)
	switch {
	case r.Verdict != callback.Interrupted:
		return id, attempt(1, r), nil
	case ctx.Err() != nil:
		return id, a, fmt.Errorf("test a callback: %w", ctx.Err())
	default:
		return id, a, errDraining()
	}
}

// maxHost is the most bytes of a host in the log: nobody has judged it yet.
const maxHost = 300

// testBody is what a test says.
func testBody(now time.Time) []byte {
	return fmt.Appendf(nil, `{"type":%q,"timestamp":%q,"data":{}}`, batch.TypeTest, batch.FormatTime(now))
}

func (c *courier) beginTest(t batch.TenantID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.halted:
		return errDraining()
	case c.o.Sender == nil:
		return batch.Errorf(batch.Unavailable, "this node sends no messages")
	case c.tests.of[t] >= testsOfOneTenant || c.tests.all >= mostTests:
		return batch.Refuse(batch.Unavailable, "too_many_tests",
			"%d tests are under way, %d of them yours: wait for one to end", c.tests.all, c.tests.of[t])
	}
	c.tests.all++
	c.tests.of[t]++
	c.sends.Add(1)
	return nil
}

func (c *courier) endTest(t batch.TenantID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tests.all--
	if c.tests.of[t]--; c.tests.of[t] == 0 {
		delete(c.tests.of, t)
	}
	c.sends.Done()
	c.outcomes.raise() // the recorder may have waited for this to be the last
}

func errDraining() error {
	return batch.Refuse(batch.Unavailable, "draining", "the server is stopping: try again in a moment")
}
