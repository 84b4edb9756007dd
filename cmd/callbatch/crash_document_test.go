package main_test

import (
	"encoding/json"
	"fmt"
)

// The documents of the API, as far as promises are held against them.
type (
	batchDoc struct {
		ID         string            `json:"id"`
		Status     string            `json:"status"`
		Reason     *string           `json:"reason"`
		Round      int               `json:"round"`
		Processor  string            `json:"processor"`
		Counts     countsDoc         `json:"counts"`
		Callback   callbackDoc       `json:"callback"`
		Metadata   map[string]string `json:"metadata"`
		CreatedAt  string            `json:"created_at"`
		StartedAt  *string           `json:"started_at"`
		FinishedAt *string           `json:"finished_at"`
	}
	countsDoc struct {
		Total     int `json:"total"`
		Pending   int `json:"pending"`
		Running   int `json:"running"`
		Succeeded int `json:"succeeded"`
		Failed    int `json:"failed"`
		Canceled  int `json:"canceled"`
		Expired   int `json:"expired"`
	}
	callbackDoc struct {
		Status   string `json:"status"`
		Messages struct {
			Waiting   int `json:"waiting"`
			Delivered int `json:"delivered"`
			Exhausted int `json:"exhausted"`
		} `json:"messages"`
	}
	resultLine struct {
		Index    int             `json:"index"`
		ID       string          `json:"id"`
		Status   string          `json:"status"`
		Output   json.RawMessage `json:"output"`
		Error    errorDoc        `json:"error"`
		Attempts int             `json:"attempts"`
		Finished string          `json:"finished_at"`
	}
	errorDoc struct {
		Code           string `json:"code"`
		Message        string `json:"message"`
		UpstreamStatus int    `json:"upstream_status"`
	}
	itemDoc struct {
		Index  int             `json:"index"`
		ID     string          `json:"id"`
		Status string          `json:"status"`
		Input  json.RawMessage `json:"input"`
		Result json.RawMessage `json:"result"`
	}
	messageDoc struct {
		ID        string `json:"id"`
		BatchID   string `json:"batch_id"`
		Type      string `json:"type"`
		Status    string `json:"status"`
		Host      string `json:"host"`
		CreatedAt string `json:"created_at"`
		Made      int    `json:"attempts_made"`
	}
	webhookDoc struct {
		Type string `json:"type"`
		Data struct {
			BatchID    string            `json:"batch_id"`
			Round      int               `json:"round"`
			Metadata   map[string]string `json:"metadata"`
			Status     string            `json:"status"`
			Counts     countsDoc         `json:"counts"`
			FinishedAt *string           `json:"finished_at"`
			Messages   int               `json:"messages"`
			Range      int               `json:"range"`
			Ranges     int               `json:"ranges"`
			Results    []json.RawMessage `json:"results"`
		} `json:"data"`
	}
)

func (r resultLine) String() string {
	return fmt.Sprintf("%s %s %+v after %d attempts", r.Status, r.Output, r.Error, r.Attempts)
}

func (c countsDoc) finished() int { return c.Succeeded + c.Failed + c.Canceled + c.Expired }

func (b *batchDoc) terminal() bool {
	return b.Status == "completed" || b.Status == "canceled" || b.Status == "expired"
}

// sound says what is wrong with the batch as such.
func (b *batchDoc) sound(s *submission) error {
	c := b.Counts
	switch {
	case c.Total != s.items:
		return fmt.Errorf("total is %d, but %d items were sent", c.Total, s.items)
	case c.Pending+c.Running+c.finished() != c.Total || min(c.Pending, c.Running, c.Succeeded, c.Failed, c.Canceled, c.Expired) < 0:
		return fmt.Errorf("the counts do not sum to the total: %+v", c)
	case b.terminal() != (c.finished() == c.Total && b.FinishedAt != nil):
		return fmt.Errorf("%s with %+v, finished_at %s", b.Status, c, text(b.FinishedAt))
	case b.Metadata["token"] != s.token || b.Processor != s.processor || b.Round != 1:
		return fmt.Errorf("it is not what was sent: processor %s, metadata %v, round %d", b.Processor, b.Metadata, b.Round)
	}
	return nil
}

// after says how b goes back behind what was shown before. What is delivered
// may be to be delivered again.
func (b *batchDoc) after(was *batchDoc, again bool) error {
	c, w := b.Counts, was.Counts
	m, n := b.Callback.Messages, was.Callback.Messages
	switch {
	case c.Succeeded < w.Succeeded || c.Failed < w.Failed || c.Canceled < w.Canceled || c.Expired < w.Expired:
		return fmt.Errorf("finished counts fell from %+v to %+v", w, c)
	case m.Delivered < n.Delivered && !again || m.Waiting+m.Delivered+m.Exhausted < n.Waiting+n.Delivered+n.Exhausted:
		return fmt.Errorf("messages fell from %+v to %+v", n, m)
	case b.CreatedAt != was.CreatedAt:
		return fmt.Errorf("created_at went from %s to %s", was.CreatedAt, b.CreatedAt)
	case w.Succeeded+w.Failed > 0 && !equal(b.StartedAt, was.StartedAt): // before the first result it is a hint
		return fmt.Errorf("started_at went from %s to %s", text(was.StartedAt), text(b.StartedAt))
	case was.Status == "canceling" && !(b.Status == "canceling" || b.Status == "canceled"):
		return fmt.Errorf("a batch that was canceling is %s", b.Status)
	case was.terminal() && (b.Status != was.Status || !equal(b.FinishedAt, was.FinishedAt) || c != w):
		return fmt.Errorf("an ended batch changed from %s %+v to %s %+v", was.Status, w, b.Status, c)
	}
	return nil
}

func equal(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

func text(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}
