package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/callbatch/callbatch/batch"
)

func TestABatchLooksAsTheContractSays(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 1000, 0)
	at := time.Date(2026, 11, 23, 12, 0, 0, 5e6, time.FixedZone("", 3600))
	w.store.change(id, func(b *fakeBatch) {
		b.Options.CallbackURL = "https://me:pw@shop.example/hooks?token=secret"
		b.Options.Metadata = map[string]string{"run": "<nightly>"}
		b.Created, b.Started = at, at.Add(time.Second)
		b.Done = batch.Tally{Succeeded: 780, Failed: 4}
		b.InFlight, b.WaitingOn = 16, "retry_backoff"
		b.Messages = batch.Ledger{Waiting: 1, Delivered: 3}
	})
	self := "/v1/batches/" + id.String()
	want := `{"id":"` + id.String() + `","status":"running","reason":null,"round":1,"processor":"price",` +
		`"counts":{"total":1000,"pending":200,"running":16,"succeeded":780,"failed":4,"canceled":0,"expired":0},` +
		`"callback":{"url":"https://shop.example/hooks?token=***","mode":"results","status":"delivering",` +
		`"messages":{"waiting":1,"delivered":3,"exhausted":0,"other":0}},` +
		`"metadata":{"run":"<nightly>"},"priority":"normal","waiting_on":"retry_backoff","rate":null,"eta":null,` +
		`"created_at":"2026-11-23T11:00:00.005Z","started_at":"2026-11-23T11:00:01.005Z","finished_at":null,"expires_at":null,` +
		`"links":{"self":"` + self + `","results":"` + self + `/results","messages":"` + self + `/messages","events":"` + self + `/events","cancel":"` + self + `/cancel"}}` + "\n"
	r := w.get(self).is(200, "")
	if diff := cmp.Diff(want, string(r.body)); diff != "" {
		t.Error(diff)
	}
	if r.header.Get("Retry-After") == "" {
		t.Error("no Retry-After on a batch under way")
	}
	t.Run("and its links lead somewhere", func(t *testing.T) {
		var b struct{ Links map[string]string }
		r.decode(&b)
		for name, link := range b.Links {
			method := "GET"
			switch name {
			case "cancel":
				method = "POST"
			case "events":
				method = "HEAD" // it has no end
			}
			if got := w.do(method, link, w.admin(), ""); got.status >= 300 {
				t.Errorf("%s: %d", name, got.status)
			}
		}
	})
}

func TestARateIsShort(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 1000, 100)
	tag := w.get(pathOf(id)).header.Get("ETag")
	for rate, want := range map[float64]string{
		412.54321: `"rate":412.5,"eta":"`, 1_234_567.8: `"rate":1235000,"eta":"`, 99.999: `"rate":100,"eta":"`, 0.00123456: `"rate":0.001235,"eta":"`,
		1e9: `"rate":1000000000,"eta":"`, 1e-300: `"rate":1e-300,"eta":"`, 0: `"rate":null,"eta":null`,
	} {
		w.store.change(id, func(b *fakeBatch) { b.Rate = rate })
		r := w.get(pathOf(id)).is(200, "")
		if got := string(r.body); !strings.Contains(got, want) {
			t.Errorf("%v is shown in %s", rate, got)
		}
		if got := r.header.Get("ETag"); got != tag {
			t.Errorf("a rate of %v has the tag %s, before it was %s", rate, got, tag)
		}
	}
}

func TestTheTagOfABatch(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 10, 0)
	path := "/v1/batches/" + id.String()
	tag := w.get(path).is(200, "").header.Get("ETag")
	if !strings.HasPrefix(tag, `W/"`) {
		t.Fatalf("the tag is %q", tag)
	}
	for _, match := range []string{tag, strings.TrimPrefix(tag, "W/"), `"x", ` + tag, "*"} {
		r := w.get(path, "If-None-Match", match).is(304, "")
		if len(r.body) > 0 || r.header.Get("ETag") != tag || r.header.Get("Retry-After") == "" {
			t.Errorf("If-None-Match: %s: %v %q", match, r.header, r.body)
		}
	}
	w.get(path, "If-None-Match", `W/"x"`).is(200, "")

	t.Run("changes at the end at once", func(t *testing.T) {
		w.store.change(id, func(b *fakeBatch) {
			for i := range b.items {
				b.finish(i, batch.ItemSucceeded, "1")
			}
		})
		r := w.get(path, "If-None-Match", tag).is(200, "")
		if r.header.Get("ETag") == tag || r.header.Get("Retry-After") != "" {
			t.Errorf("after the end: %v", r.header)
		}
	})
}

func TestTagsAdvanceAtMostFourTimesASecond(t *testing.T) {
	id, start := batch.NewID(time.Now()), time.Now()
	var under tags
	at := func(ms int, body string, over bool) string {
		tag, _ := under.tag(id, []byte(body), over, start.Add(time.Duration(ms)*time.Millisecond))
		return tag
	}
	first := at(0, "a", false)
	if got := at(249, "b", false); got != first {
		t.Error("it advanced within a quarter of a second")
	}
	second := at(250, "c", false)
	if second == first {
		t.Error("it did not advance after a quarter of a second")
	}
	if got := at(900, "c", false); got != second {
		t.Error("it advanced without a change")
	}
	if got := at(901, "a", false); got == first {
		t.Error("content came back under a tag that stood for other content in between")
	}
	last := at(2000, "d", false)
	if got := at(2001, "e", true); got == last {
		t.Error("the end did not show at once")
	}
	young := at(3000, "f", false)
	under.expire(id)
	if got := at(3001, "g", false); got == young {
		t.Error("what its owner changed did not show at once")
	}
	t.Run("the same content has the same tag after a restart", func(t *testing.T) {
		var again tags
		if got, _ := again.tag(id, []byte("a"), false, start); got != first {
			t.Errorf("%s, before it was %s", got, first)
		}
	})
	t.Run("what is remembered is bounded", func(t *testing.T) {
		for i := range 5 * manyTags {
			under.tag(batch.ID{1, byte(i), byte(i >> 8)}, nil, false, start)
		}
		if n := len(under.young) + len(under.old); n > 2*manyTags {
			t.Errorf("%d tags are held", n)
		}
	})
}

func TestListingBatches(t *testing.T) {
	w := newWorld(t)
	var want []string
	for i := range 7 {
		id := w.store.put(w.tenants[0], 1, i%2)
		// Ids of one millisecond are in random order.
		w.store.change(id, func(b *fakeBatch) {
			delete(w.store.batches, id)
			b.ID = batch.ID{byte(i)}
			w.store.batches[b.ID] = b
			want = append([]string{b.ID.String()}, want...)
		})
	}
	w.store.put(w.tenants[1], 1, 0)

	type page struct {
		Data []struct{ ID string }
		Next *string
	}
	walk := func(path string) (got []string) {
		for path != "" {
			var p page
			r := w.get(path).is(200, "")
			r.decode(&p)
			for _, b := range p.Data {
				got = append(got, b.ID)
			}
			link := r.header.Get("Link")
			if (p.Next == nil) != (link == "") {
				t.Fatalf("next is %v and Link %q", p.Next, link)
			}
			path, _, _ = strings.Cut(strings.TrimPrefix(link, "<"), ">")
			if link != "" && !strings.HasSuffix(link, `>; rel="next"`) {
				t.Fatalf("Link is %q", link)
			}
		}
		return got
	}
	t.Run("newest first, page by page, each once", func(t *testing.T) {
		if diff := cmp.Diff(want, walk("/v1/batches?limit=3")); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("by status", func(t *testing.T) {
		if diff := cmp.Diff([]string{want[1], want[3], want[5]}, walk("/v1/batches?limit=2&status=completed")); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("by processor, and by metadata", func(t *testing.T) {
		for i, text := range want[:4] {
			id, _ := batch.ParseID(text)
			w.store.change(id, func(b *fakeBatch) {
				b.Options.Processor = []string{"price", "size"}[i%2]
				b.Options.Metadata = map[string]string{"run": "nightly", "a&b=": []string{"ü", ""}[i/2]}
			})
		}
		for query, ids := range map[string][]string{
			"processor=size":                                           {want[1], want[3]},
			"metadata.run=nightly&processor=price":                     {want[0], want[2]},
			"metadata.run=nightly&metadata.a%26b%3D=%C3%BC":            want[:2],
			"metadata.a%26b%3D=":                                       want[2:4],
			"metadata.run=daily":                                       nil,
			"metadata.run=nightly&status=running&limit=1":              {want[0], want[2]},
			"metadata.run=nightly&created_before=3000-01-01T00:00:00Z": want[:4],
			"metadata.run=nightly&created_after=3000-01-01T00:00:00Z":  nil,
		} {
			if diff := cmp.Diff(ids, walk("/v1/batches?"+query)); diff != "" {
				t.Errorf("%s: %s", query, diff)
			}
		}
	})
	t.Run("by when they were submitted", func(t *testing.T) {
		w := newWorld(t)
		at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		var made []string
		for i := range 4 {
			id := w.store.put(w.tenants[0], 1, 0)
			w.store.change(id, func(b *fakeBatch) {
				delete(w.store.batches, id)
				b.ID = batch.NewID(at.Add(time.Duration(i) * time.Millisecond))
				w.store.batches[b.ID] = b
				made = append(made, b.ID.String())
			})
		}
		for query, from := range map[string][2]int{
			"created_after=2026-11-23T12:00:00Z":                                                {1, 4},
			"created_after=2026-11-23T12:00:00.0015Z":                                           {2, 4},
			"created_before=2026-11-23T12:00:00.002Z":                                           {0, 2},
			"created_before=2026-11-23T13:00:00.0021%2B01:00":                                   {0, 3},
			"created_after=2026-11-23T12:00:00Z&created_before=2026-11-23T12:00:00.003Z":        {1, 3},
			"created_after=1999-11-23T12:00:00Z&created_before=2026-11-23T12:00:00Z":            {0, 0},
			"created_after=2026-11-23T12:00:00.003Z&created_before=2026-11-23T12:00:00.003Z":    {0, 0},
			"created_before=2026-11-23T12:00:00.003Z&cursor=" + cursorAt(batchList, batch.ID{}): {0, 0},
		} {
			var p page
			w.get("/v1/batches?"+query).is(200, "").decode(&p)
			var got []string
			for _, b := range p.Data {
				got = append([]string{b.ID}, got...)
			}
			if diff := cmp.Diff(made[from[0]:from[1]], got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: %s", query, diff)
			}
		}
	})
	t.Run("an empty list is a list", func(t *testing.T) {
		if got := string(w.get("/v1/batches?status=paused").is(200, "").body); got != `{"data":[],"next":null}`+"\n" {
			t.Errorf("it is %s", got)
		}
	})
	t.Run("a huge limit is cut to 200", func(t *testing.T) {
		for range 201 {
			w.store.put(w.tenants[0], 1, 0)
		}
		for _, limit := range []string{"201", "9223372036854775807"} {
			var p page
			w.get("/v1/batches?limit="+limit).is(200, "").decode(&p)
			if len(p.Data) != 200 {
				t.Errorf("limit=%s gave %d", limit, len(p.Data))
			}
		}
	})
	t.Run("even one beyond any number", func(t *testing.T) {
		if n, err := pageLimit(map[string][]string{"limit": {"99999999999999999999999"}}); n != 200 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
	own := cursorAt(batchList, batch.ID{3})
	for query, code := range map[string]string{
		"limit=0": "bad_limit", "limit=-1": "bad_limit", "limit=": "bad_limit", "limit=x": "bad_limit", "limit=1.5": "bad_limit",
		"limit=-99999999999999999999999": "bad_limit",
		"status=":                        "bad_status", "status=done": "bad_status",
		"cursor=": "bad_cursor", "cursor=!": "bad_cursor", "cursor=" + own[:20]: "bad_cursor", "cursor=" + own + "A": "bad_cursor", "cursor=" + own + "%0A": "bad_cursor",
		"cursor=" + strings.ToLower(own):                     "bad_cursor",
		"cursor=" + cursorAt(messageList, batch.MessageID{}): "bad_cursor",
		"Limit=3": "unknown_parameter", "metadata=x": "unknown_parameter", "metadata.": "bad_metadata", "metadata.k=v&metadata.k=v": "repeated_parameter",
		"processor=": "bad_processor", "created_after=": "bad_created_after", "created_after=2026-11-23": "bad_created_after",
		"created_before=soon": "bad_created_before", "created_before=0001-01-01T00:00:00Z": "bad_created_before",
		"limit=3&limit=3": "repeated_parameter", "limit=3;status=open": "bad_query", "limit=%zz": "bad_query", "status=%ff": "bad_query",
	} {
		t.Run(query+" is refused", func(t *testing.T) {
			w.get("/v1/batches?"+query).is(400, code)
		})
	}
	t.Run("another tenant's cursor is only a place in one's own list", func(t *testing.T) {
		var p page
		w.get("/v1/batches?cursor="+cursorAt(batchList, batch.ID{3})).is(200, "").decode(&p)
		if len(p.Data) != 3 || p.Data[0].ID != (batch.ID{2}).String() {
			t.Errorf("it is %+v", p)
		}
	})
}

func FuzzCursor(f *testing.F) {
	f.Add(cursorAt(batchList, batch.NewID(time.Now())))
	f.Add(cursorAt(batchList, batch.ID{}) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := cursor(map[string][]string{"cursor": {text}}, "cursor", batchList)
		if err == nil && cursorAt(batchList, *id) != text {
			t.Errorf("%q is read as %x, which is written %q", text, *id, cursorAt(batchList, *id))
		}
	})
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	id := w.store.put(w.tenants[0], 2, 1)
	path := fmt.Sprintf("/v1/batches/%s/cancel", id)
	for _, body := range []string{"", "{}", " {}\n"} {
		var b struct{ Status string }
		w.do(http.MethodPost, path, w.admin(), body).is(202, "").decode(&b)
		if b.Status != "canceling" {
			t.Errorf("the batch is %s", b.Status)
		}
	}
	w.do(http.MethodPost, path, w.admin(), `{"force":true}`).is(422, "unexpected_body")
	w.do(http.MethodPost, path+"?force=true", w.admin(), "").is(400, "unknown_parameter")
	t.Run("of a finished batch is a conflict", func(t *testing.T) {
		id := w.store.put(w.tenants[0], 2, 2)
		w.do(http.MethodPost, "/v1/batches/"+id.String()+"/cancel", w.admin(), "").is(409, "wrong_state")
	})
}
