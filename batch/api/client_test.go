package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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
		CallbackPageItems: 7, CallbackEvents: []string{batch.TypeProgress}, CallbackHeaders: map[string]string{"Authorization": "Bearer a+b&c=%"},
		IDField: "/sku", Metadata: map[string]string{"run 1": "a=b&c"}, Priority: batch.PriorityLow, MaxAttempts: 3, Concurrency: 9,
	}
	b, err := c.Submit(ctx, strings.NewReader(zipped(`{"sku":"a"}`+"\n"+`{"sku":"b"}`+"\n")), client.SubmitOptions{ContentEncoding: "gzip", Options: want})
	must(err)
	if b.Status != "queued" || b.Counts.Total != 2 || b.Terminal() || b.Callback.URL != "https://shop.example/hooks?a=***" || b.Callback.Headers["Authorization"] != "***" {
		t.Errorf("submitted: %+v", b)
	}
	id, err := batch.ParseID(b.ID)
	must(err)
	w.store.change(id, func(b *fakeBatch) {
		if diff := cmp.Diff(want, b.Options); diff != "" {
			t.Errorf("the options arrived otherwise: %s", diff)
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
	messages, err := c.Messages(ctx, client.MessageOptions{Batch: b.ID, Status: "waiting", Host: "shop.example:443", Limit: 1})
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

// TestTheClientAndMessages holds what the client does with messages against
// the API.
func TestTheClientAndMessages(t *testing.T) {
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
	of := w.store.put(w.tenants[0], 1, 1)
	var made []string
	for range 5 {
		id := w.store.putMessage(w.tenants[0], of)
		w.store.changeMessage(id, func(m *fakeMessage) { m.End(batch.MessageExhausted, "410 Gone", time.Now()) })
		made = append(made, id.String())
	}
	var listed []string
	for m, err := range c.AllMessages(ctx, client.MessageOptions{Status: "exhausted", Limit: 2}) {
		must(err)
		if m.Batch != of.String() || m.Reason != "410 Gone" || m.Ended == nil {
			t.Errorf("a message: %+v", m)
		}
		listed = append(listed, m.ID)
	}
	sorted := slices.Sorted(slices.Values(made))
	slices.Reverse(sorted)
	if diff := cmp.Diff(sorted, listed); diff != "" {
		t.Errorf("all messages: %s", diff)
	}
	n, err := c.RedeliverAll(ctx, client.Redelivery{Status: "exhausted", Host: "shop.example:443", Since: time.Now().Add(-time.Hour)})
	must(err)
	if n != 5 || len(w.store.orders) != 1 || w.store.orders[0].Host != "shop.example:443" || w.store.orders[0].Since.IsZero() {
		t.Errorf("redelivered %d: %+v", n, w.store.orders)
	}
	m, err := c.Redeliver(ctx, made[0])
	must(err)
	if m.ID != made[0] || m.Status != "waiting" || m.Next == nil {
		t.Errorf("redelivered: %+v", m)
	}
	var pulled []string
	page, err := c.Feed(ctx, client.FeedOptions{Limit: 2})
	for ; len(page.Data) > 0; page, err = c.Feed(ctx, client.FeedOptions{After: page.Next, Limit: 2}) {
		must(err)
		for _, e := range page.Data {
			if e.Type != "batch.completed" || e.Created.IsZero() || !strings.Contains(string(e.Body), `<\u00e9>`) {
				t.Errorf("an event: %+v", e)
			}
			pulled = append(pulled, e.ID)
		}
	}
	must(err)
	if diff := cmp.Diff(made, pulled); diff != "" || page.Next == "" || page.RetryAfter != 0 {
		t.Errorf("pulled otherwise: %s %+v", diff, page)
	}
	waited := make(chan client.FeedPage)
	go func() {
		page, _ := c.Feed(ctx, client.FeedOptions{After: page.Next, Wait: time.Minute})
		waited <- page
	}()
	late := w.store.putMessage(w.tenants[0], of)
	if page := <-waited; len(page.Data) != 1 || page.Data[0].ID != late.String() {
		t.Errorf("waited for %+v", page)
	}

	test, err := c.TestCallback(ctx, "https://shop.example/", map[string]string{"X-A": "b"})
	must(err)
	if !test.Delivered || !strings.HasPrefix(test.Message, "msg_") || test.Response.Status != 204 || test.Number != 1 || test.Started.IsZero() {
		t.Errorf("tested: %+v", test)
	}
	before, err := c.Secret(ctx)
	must(err)
	rotation, err := c.RotateSecret(ctx, 90*time.Minute)
	must(err)
	now, err := c.Secret(ctx)
	must(err)
	if rotation.Secret == before || rotation.Secret != now || rotation.OldUntil == nil || time.Until(*rotation.OldUntil) > 90*time.Minute {
		t.Errorf("rotated: until %v", rotation.OldUntil)
	}
	w.store.hosts[w.tenants[0]] = []batch.Health{{Host: "shop.example:443", Failures: 5, Since: time.Now(), Pause: time.Minute, Until: time.Now().Add(time.Minute)}}
	hosts, err := c.Hosts(ctx)
	must(err)
	if len(hosts) != 1 || hosts[0].Host != "shop.example:443" || hosts[0].Status != "open" || hosts[0].Failures != 5 || hosts[0].Since == nil || hosts[0].Next == nil {
		t.Errorf("hosts: %+v", hosts)
	}
}

// TestTheClientAndRounds holds what the client does with batches that have
// ended against the API.
func TestTheClientAndRounds(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	c, err := client.New(client.Options{URL: w.server.URL, Key: w.admin()})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := w.over()
	o := client.RetryOptions{FromRound: 1, IDs: []string{"3"}, Indexes: []int{8}, ExpiresIn: time.Hour, IdempotencyKey: "k"}
	for range 2 {
		b, err := c.Retry(ctx, id.String(), o)
		if err != nil || b.Round != 2 || b.Expires == nil {
			t.Fatalf("%+v, %v", b, err)
		}
	}
	if got := w.store.retries; len(got) != 1 || got[0].IDs[0] != "3" || got[0].Indexes[0] != 8 || *got[0].ExpiresIn != time.Hour {
		t.Errorf("it was asked for %+v", got)
	}
	rs, err := c.Results(ctx, id.String(), client.ResultOptions{Round: 1})
	if err != nil || rs.Incomplete {
		t.Fatalf("the first round: %v", err)
	}
	rs.Close()
	var e *client.Error
	if err := c.Delete(ctx, id.String(), true); !errors.As(err, &e) || e.Code != "wrong_state" {
		t.Errorf("of one that is worked on: %v", err)
	}
	id, _ = w.over()
	w.store.change(id, func(b *fakeBatch) { b.Messages.Waiting = 1 })
	if err := c.Delete(ctx, id.String(), false); !errors.As(err, &e) || e.Code != "messages_pending" {
		t.Errorf("of one whose messages are owed: %v", err)
	}
	if err := c.Delete(ctx, id.String(), true); err != nil {
		t.Error(err)
	}
	if _, err := c.Batch(ctx, id.String()); !errors.As(err, &e) || e.Code != "gone" {
		t.Errorf("afterwards: %v", err)
	}
}

func TestTheClientAndParts(t *testing.T) {
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
	var b client.Batch
	for range 2 {
		again, err := c.OpenBatch(ctx, batch.Options{Processor: "price"}, "open")
		must(err)
		if b.ID != "" && again.ID != b.ID || again.Status != "open" {
			t.Errorf("opened %+v and then %+v", b, again)
		}
		b = again
	}
	for n, body := range []string{"1\n2\n", zipped("3\n"), "[4]"} {
		o := client.PartOptions{ContentEncoding: []string{"", "gzip", ""}[n]}
		if n == 2 {
			body, o.ContentType = `{"items":[4]}`, "application/json"
		}
		p, err := c.PutPart(ctx, b.ID, n, strings.NewReader(body), o)
		must(err)
		if p.Part != n || p.Items != []int{2, 1, 1}[n] {
			t.Errorf("part %d is %+v", n, p)
		}
	}
	must(c.DeletePart(ctx, b.ID, 2))
	parts, err := c.Parts(ctx, b.ID)
	must(err)
	if len(parts) != 2 || parts[1].Part != 1 || parts[1].Bytes != 2 {
		t.Errorf("the parts are %+v", parts)
	}
	var refused *client.Error
	if _, err := c.PutPart(ctx, b.ID, 1, strings.NewReader("x\n"), client.PartOptions{}); !errors.As(err, &refused) || len(refused.Errors) != 1 || *refused.Errors[0].Part != 1 {
		t.Errorf("a bad part: %+v", err)
	}
	if _, err := c.Seal(ctx, b.ID, 3, ""); !errors.As(err, &refused) || refused.Code != "missing_parts" {
		t.Errorf("sealed too early: %+v", err)
	}
	for range 2 {
		b, err = c.Seal(ctx, b.ID, 0, "seal")
		must(err)
		if b.Status != "queued" || b.Counts.Total != 3 {
			t.Errorf("sealed: %+v", b)
		}
	}
	it, err := c.FindItem(ctx, b.ID, "2")
	must(err)
	if string(it.Input) != "3" {
		t.Errorf("an item by its id: %+v", it)
	}
	var ids []string
	for range 2 {
		b, err := c.Submit(ctx, strings.NewReader("1\n"), client.SubmitOptions{IdempotencyKey: "k", Options: batch.Options{Processor: "price"}})
		must(err)
		ids = append(ids, b.ID)
	}
	if ids[0] != ids[1] {
		t.Errorf("submitted twice: %v", ids)
	}
}
