package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
	"github.com/callbatch/callbatch/batch/client"
)

// TestTheClient holds the client against the API it is for.
func TestTheClient(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	c, err := client.New(client.Options{URL: w.server.URL, Key: w.admin()})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := batch.Options{
		Processor: "price", CallbackURL: "https://shop.example/hooks?a=b", CallbackMode: batch.ModeSummary, CallbackPageBytes: 2048,
		CallbackPageItems: 7, IDField: "/sku", Metadata: map[string]string{"run 1": "a=b&c"}, Priority: batch.PriorityLow, MaxAttempts: 3, Concurrency: 9,
	}
	b, err := c.Submit(ctx, strings.NewReader(zipped(`{"sku":"a"}`+"\n"+`{"sku":"b"}`+"\n")), client.SubmitOptions{ContentEncoding: "gzip", Options: want})
	must(err)
	if b.Status != "queued" || b.Counts.Total != 2 || b.Terminal() || b.Callback.URL != "https://shop.example/hooks?a=***" {
		t.Errorf("submitted: %+v", b)
	}
	id, err := batch.ParseID(b.ID)
	must(err)
	w.store.change(id, func(b *fakeBatch) {
		if o := b.Options; o.Metadata["run 1"] != "a=b&c" || o.Priority != want.Priority || o.MaxAttempts != 3 || o.CallbackPageBytes != 2048 {
			t.Errorf("the options arrived as %+v", o)
		}
	})
	var seen []string
	b, err = c.Wait(ctx, b.ID, client.WaitOptions{Progress: func(b client.Batch) {
		seen = append(seen, b.Status)
		w.store.change(id, func(b *fakeBatch) {
			if !b.Status.Terminal() {
				b.finish(0, batch.ItemSucceeded, `{"n": 1.0}`)
				b.finish(1, batch.ItemFailed, `{"code":"upstream_status","message":"no","upstream_status":422}`)
			}
		})
	}})
	must(err)
	if !slices.Equal(seen, []string{"queued", "completed"}) || b.Counts.Failed != 1 || b.Finished.IsZero() {
		t.Errorf("waited for: %q %+v", seen, b)
	}
	after := 0
	rs, err := c.Results(ctx, b.ID, client.ResultOptions{After: &after, Limit: 5, Status: "failed"})
	must(err)
	defer rs.Close()
	for r, err := range rs.All() {
		must(err)
		if r.Index != 1 || r.ID != "b" || r.Error.UpstreamStatus != 422 || rs.Incomplete {
			t.Errorf("a result: %+v", r)
		}
	}
	it, err := c.Item(ctx, b.ID, 0)
	must(err)
	if string(it.Input) != `{"sku":"a"}` || string(it.Result.Output) != `{"n": 1.0}` {
		t.Errorf("an item: %+v", it)
	}
	other := w.store.put(w.tenants[0], 1, 0)
	page, err := c.List(ctx, client.ListOptions{Status: "running", Limit: 1})
	must(err)
	if len(page.Data) != 1 || page.Data[0].ID != other.String() || page.Next != "" {
		t.Errorf("a list: %+v", page)
	}
	canceled, err := c.Cancel(ctx, other.String())
	must(err)
	if canceled.Status != "canceling" {
		t.Errorf("canceled: %+v", canceled)
	}
	sent := w.store.putMessage(w.tenants[0], id)
	messages, err := c.Messages(ctx, b.ID, client.ListOptions{})
	must(err)
	m, err := c.Message(ctx, messages.Data[0].ID)
	must(err)
	if m.ID != sent.String() || len(m.Attempts) != 1 || m.Attempts[0].Response.Status != 503 || !strings.Contains(string(m.Body), "<\\u00e9>") {
		t.Errorf("a message: %+v", m)
	}
	processors, err := c.Processors(ctx)
	must(err)
	secret, err := c.Secret(ctx)
	must(err)
	if len(processors) != 1 || !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("%+v, secret of %d bytes", processors, len(secret))
	}

	reader, err := client.New(client.Options{URL: w.server.URL, Key: w.keys[0][access.Read]})
	must(err)
	for code, ask := range map[string]func() error{
		"not_found":   func() error { _, err := c.Batch(ctx, "bat_00000000000000000000000000"); return err },
		"wrong_state": func() error { _, err := c.Cancel(ctx, b.ID); return err },
		"forbidden":   func() error { _, err := reader.Secret(ctx); return err },
		"unknown_processor": func() error {
			_, err := c.Submit(ctx, strings.NewReader("1\n"), client.SubmitOptions{Options: batch.Options{Processor: "none"}})
			return err
		},
	} {
		var e *client.Error
		if err := ask(); !errors.As(err, &e) || e.Code != code || e.RequestID == "" {
			t.Errorf("%s: %v", code, err)
		}
	}
}
