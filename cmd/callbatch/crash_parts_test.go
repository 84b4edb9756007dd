package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// submitParts sends the batch in parts, and each step again until it is
// answered: whatever crashes, an upload goes on where it was. Once it has begun
// it comes to its end, or the batch would be open for good.
func (c *client) submitParts(ctx context.Context, s *submission) error {
	ctx = context.WithoutCancel(ctx)
	query := s.query(c.trial.receiver.url())
	query.Set("open", "true")
	ans, ok := c.insist(ctx, http.StatusCreated, http.MethodPost, "/v1/batches?"+query.Encode(), "", nil, "Idempotency-Key", s.token)
	if !ok {
		return errUnanswered
	}
	var b batchDoc
	if err := json.Unmarshal(ans.body, &b); err != nil {
		c.trial.ledger.violate("201 with %q: %v", ans.body, err)
		return err
	}
	for _, n := range c.rnd.Perm(s.parts) {
		path := fmt.Sprintf("/v1/batches/%s/parts/%d", b.ID, n)
		if _, ok := c.insist(ctx, http.StatusOK, http.MethodPut, path, "application/x-ndjson", s.part(n)); !ok {
			return errUnanswered
		}
	}
	body := fmt.Appendf(nil, `{"parts":%d}`, s.parts)
	path := "/v1/batches/" + b.ID + "/seal"
	if _, ok := c.insist(ctx, http.StatusAccepted, http.MethodPost, path, "application/json", body, "Idempotency-Key", s.token+"-seal"); !ok {
		return errUnanswered
	}
	c.trial.ledger.exists(s, b.ID, true)
	c.trial.trigger.hit("accepted")
	return nil
}

// errUnanswered says that the trial is over.
var errUnanswered = fmt.Errorf("not answered")

// insist sends a request again and again until it is answered as it should be.
func (c *client) insist(ctx context.Context, status int, method, path, contentType string, body []byte, headers ...string) (answer, bool) {
	for ; !c.trial.ledger.broken(); breathe(ctx, 10*time.Millisecond) {
		var r io.Reader
		if body != nil {
			r = bytes.NewReader(body)
		}
		if body != nil && c.rnd.IntN(3) == 0 {
			r = &dripping{ctx: ctx, rest: r}
		}
		ans, err := c.trial.api.do(ctx, method, path, contentType, r, headers...)
		switch {
		case err != nil || ans.status == http.StatusServiceUnavailable || ans.is(http.StatusConflict, "idempotency_in_progress"):
			continue
		case ans.status != status:
			c.trial.ledger.violate("%s %s is answered with %d %s", method, path, ans.status, ans.body)
			return ans, false
		}
		if ans.header.Get("Idempotent-Replayed") != "" {
			c.trial.replayed.Add(1)
		}
		c.trial.trigger.hit("answered")
		return ans, true
	}
	return answer{}, false
}

// part returns the lines of a part.
func (s *submission) part(n int) []byte {
	var b bytes.Buffer
	for i := n * s.items / s.parts; i < (n+1)*s.items/s.parts; i++ {
		b.Write(s.item(i))
		b.WriteByte('\n')
	}
	return b.Bytes()
}
