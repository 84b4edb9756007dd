package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/batch"
)

func TestTestingACallback(t *testing.T) {
	const path = "/v1/callbacks/test"
	var asked []string
	id := batch.NewMessageID(time.Now())
	at := time.Date(2026, 11, 23, 12, 0, 0, 5e6, time.FixedZone("", 3600))
	var outcome batch.Attempt
	var failure error
	w := newWorld(t, func(o *Options) {
		o.CheckCallback = func(url string) error {
			if strings.HasPrefix(url, "http://") {
				return errors.New("http is not permitted; use https")
			}
			return nil
		}
		o.Test = func(_ context.Context, tenant batch.TenantID, url string, headers map[string]string) (batch.MessageID, batch.Attempt, error) {
			asked = append(asked, fmt.Sprintf("%v %s %v", tenant == batch.TenantID{}, url, headers))
			return id, outcome, failure
		}
	})
	ask := func(name, body, wantAsked, want string) {
		t.Run(name, func(t *testing.T) {
			asked = nil
			got := string(w.post(path, body).is(200, "").body)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{wantAsked}, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
	outcome = batch.Attempt{
		Number: 1, Started: at, Took: batch.Took{DNS: 1, Connect: 2, TLS: 3, FirstByte: 4, Total: 5}, RemoteAddr: "203.0.113.9:443",
		RequestHeaders: map[string]string{"webhook-signature": "***", "x-a": "***"}, Response: &batch.Response{Status: 204},
	}
	const took = `"number":1,"started_at":"2026-11-23T11:00:00.005Z","took_ms":{"dns":1,"connect":2,"tls":3,"first_byte":4,"total":5}`
	ask("one that is delivered", `{"url":"https://shop.example/","headers":{"X-A":"b"}}`, "true https://shop.example/ map[X-A:b]",
		`{"message_id":"`+id.String()+`","delivered":true,`+took+`,"remote_addr":"203.0.113.9:443",`+
			`"request_headers":{"webhook-signature":"***","x-a":"***"},"response":{"status":204,"headers":{},"body":"","truncated":false},"error":null}`+"\n")
	outcome.RequestHeaders, outcome.RemoteAddr, outcome.Response = nil, "", nil
	outcome.Error = &batch.AttemptError{Category: "dns", Detail: "the name does not resolve"}
	ask("one that is not", `{"headers":{},"url":"https://nowhere.example/"}`, "true https://nowhere.example/ map[]",
		`{"message_id":"`+id.String()+`","delivered":false,`+took+`,"response":null,"error":{"category":"dns","detail":"the name does not resolve"}}`+"\n")

	asked = nil
	for _, c := range []struct {
		body   string
		status int
		places string // pointers and codes; a single code where there are none
	}{
		{``, 400, "empty_body"},
		{`{"url":s3cret}`, 400, "/url invalid_json"},
		{`{"url":"https://shop.example/","headers":{"X-A":"s3cret","X-A":"s3cret"}}`, 400, "/headers/X-A duplicate_member"},
		{`{}`, 422, "/url required"},
		{`{"url":""}`, 422, "/url required"},
		{`{"url":["https://shop.example/"]}`, 422, "/url wrong_type"},
		{`{"url":"http://shop.example/?s3cret"}`, 422, "/url callback_refused"},
		{`{"url":"https://shop.example/","secret":"s3cret"}`, 422, "/secret unknown_member"},
		{
			`{"url":"https://shop.example/","headers":{"Host":"s3cret","a b":"s3cret","X/Y":"s3cret","Ok":"s3cret"}}`, 422,
			"/headers/Host bad_header /headers/X~1Y bad_header /headers/a b bad_header",
		},
		{`{"url":"https://shop.example/","headers":{"Content-Type":"s3cret"}}`, 422, "/headers/Content-Type bad_header"},
		{`{"url":"https://shop.example/","headers":{"X-A":"s3cret\r\nX-B: s3cret"}}`, 422, "/headers/X-A bad_header"},
		{`{"url":"https://shop.example/","headers":{"X-A":"s3cret","x-a":"s3cret"}}`, 422, "/headers bad_header"},
		{`{"url":"http://shop.example/","headers":{"X-A":"\u0000s3cret"}}`, 422, "/url callback_refused /headers/X-A bad_header"},
		{`{"url":"https://shop.example/","headers":{` + headers(17, "X-") + `}}`, 422, "/headers bad_header"},
		{`{"url":"https://shop.example/","headers":{"X-A":"` + strings.Repeat("s3cret", 1000) + `"}}`, 422, "/headers/X-A bad_header"},
		{`{"url":"https://shop.example/","headers":{"` + strings.Repeat("X", 50_000) + `":"s3cret"}}`, 422, "/headers/" + strings.Repeat("X", 80) + " bad_header"},
		{`{"url":"` + strings.Repeat("s3cret", 20_000) + `"}`, 413, "body_too_large"},
	} {
		t.Run(fmt.Sprintf("%.70s is refused", c.body), func(t *testing.T) {
			r := w.post(path, c.body)
			p := r.problem()
			got := []string{p.Code}
			for i, e := range p.Errors {
				got = append(got[:2*i], e.Pointer, e.Code)
			}
			if strings.Join(got, " ") != c.places || r.status != c.status {
				t.Errorf("%d %s, want %d %s", r.status, got, c.status, c.places)
			}
			if strings.Contains(string(r.body), "3cret") {
				t.Errorf("it repeats a value: %s", r.body)
			}
		})
	}
	t.Run("of a thousand bad headers a hundred are listed", func(t *testing.T) {
		p := w.post(path, `{"url":"https://shop.example/","headers":{`+headers(1000, "Webhook-")+`}}`).is(422, "bad_header").problem()
		if len(p.Errors) != 100 || p.More != 900 {
			t.Errorf("%d and %d more", len(p.Errors), p.More)
		}
	})
	if len(asked) > 0 {
		t.Errorf("tests were made: %q", asked)
	}
	t.Run("what keeps a test from being made is told", func(t *testing.T) {
		failure = batch.Refuse(batch.Unavailable, "too_many_tests", "4 tests are under way")
		if r := w.post(path, `{"url":"https://shop.example/"}`).is(503, "too_many_tests"); r.header.Get("Retry-After") == "" {
			t.Errorf("the header is %v", r.header)
		}
		failure = errors.New("the secret of the house")
		if r := w.post(path, `{"url":"https://shop.example/"}`).is(500, "internal"); strings.Contains(string(r.body), "house") {
			t.Errorf("%s", r.body)
		}
	})
	t.Run("there is none where nothing can be sent", func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Test = nil })
		w.post(path, `{"url":"https://shop.example/"}`).is(404, "no_such_path")
	})
}

// headers are n members of an object.
func headers(n int, prefix string) string {
	var list []string
	for i := range n {
		list = append(list, `"`+prefix+strconv.Itoa(i)+`":"s3cret"`)
	}
	return strings.Join(list, ",")
}

func TestHosts(t *testing.T) {
	w := newWorld(t)
	if got := string(w.get("/v1/callbacks/hosts").is(200, "").body); got != `{"data":[]}`+"\n" {
		t.Errorf("none are %s", got)
	}
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	next := time.Now().Add(5 * time.Minute).Truncate(time.Millisecond)
	w.store.hosts[w.tenants[0]] = []batch.Health{
		{Host: "a.example:443", Failures: 7, Since: at, Pause: 5 * time.Minute, Until: next, Room: 1},
		{Host: "a.example:8443", Failures: 7, Since: at, Pause: 5 * time.Minute, Until: at.Add(5 * time.Minute), Room: 1},
		{Host: "b.example:443", Pause: 10 * time.Second, Room: 4},
		{Host: "c.example:8443", Failures: 2, Since: at, Room: 4},
		{Host: "d.example:443", Failures: 1, Since: at, Pause: 5 * time.Second, Room: 2},
	}
	w.store.hosts[w.tenants[1]] = []batch.Health{{Host: "other.example:443", Failures: 1}}
	want := `{"data":[` +
		`{"host":"a.example:443","status":"open","failures":7,"since":"2026-11-23T12:00:00.000Z","next_attempt_at":"` + batch.FormatTime(next) + `"},` +
		`{"host":"a.example:8443","status":"open","failures":7,"since":"2026-11-23T12:00:00.000Z","next_attempt_at":null},` +
		`{"host":"b.example:443","status":"recovering","failures":0,"since":null,"next_attempt_at":null},` +
		`{"host":"c.example:8443","status":"failing","failures":2,"since":"2026-11-23T12:00:00.000Z","next_attempt_at":null},` +
		`{"host":"d.example:443","status":"recovering","failures":1,"since":"2026-11-23T12:00:00.000Z","next_attempt_at":null}]}` + "\n"
	if diff := cmp.Diff(want, string(w.get("/v1/callbacks/hosts").is(200, "").body)); diff != "" {
		t.Error(diff)
	}
	w.get("/v1/callbacks/hosts?status=open").is(400, "unknown_parameter")
}

func TestCallbackOptionsAreTakenAndShown(t *testing.T) {
	w := newWorld(t)
	const url = "callback_url=https://shop.example/"
	const events, extra = "callback_events=%5B%22batch.progress%22%5D", "callback_headers=%7B%22Authorization%22:%22Bearer%20s3cret%22,%22X-B%22:%22%22%7D"
	for name, r := range map[string]reply{
		"in a query": w.submit("?processor=price&callback_mode=pull&"+strings.Join([]string{url, events, extra}, "&"), "1\n"),
		"in a document": w.post("/v1/batches", `{"items":[1],"processor":"price","callback_mode":"pull","callback_url":"https://shop.example/",
			"callback_events":["batch.progress"],"callback_headers":{"Authorization":"Bearer s3cret","X-B":""}}`),
	} {
		t.Run(name, func(t *testing.T) {
			id := r.is(202, "").id()
			w.store.change(id, func(b *fakeBatch) {
				o := b.Options
				if o.CallbackMode != batch.ModePull || !o.Wants(batch.TypeProgress) ||
					!cmp.Equal(o.CallbackHeaders, map[string]string{"Authorization": "Bearer s3cret", "X-B": ""}) {
					t.Errorf("the options are %+v", o)
				}
			})
			const want = `"callback":{"url":"https://shop.example/","headers":{"Authorization":"***","X-B":"***"},"mode":"pull",`
			for _, shown := range []reply{r, w.get("/v1/batches/" + id.String()), w.get("/v1/batches")} {
				if !strings.Contains(string(shown.body), want) {
					t.Errorf("no %s in %s", want, shown.body)
				}
			}
		})
	}
	t.Run("to be pulled a batch needs no URL", func(t *testing.T) {
		if r := w.submit("?processor=price&callback_mode=pull", "1\n").is(202, ""); strings.Contains(string(r.body), `"headers"`) {
			t.Errorf("%s", r.body)
		}
	})
	for query, place := range map[string]string{
		url + "&callback_headers=%7B%22Webhook-Id%22:%22s3cret%22%7D":                 "/callback_headers/Webhook-Id bad_header",
		url + "&callback_headers=%7B%22X-A%22:%22s3cret%0D%0AX-B:s3cret%22%7D":        "/callback_headers invalid_json",
		url + "&callback_headers=%7B%22X-A%22:%22s3cret%5Cr%5CnX-B:s3cret%22%7D":      "/callback_headers/X-A bad_header",
		url + "&callback_headers=%7B%22X-A%22:%22s3cret%22,%22x-a%22:%22s3cret%22%7D": "/callback_headers bad_header",
		url + "&callback_headers.X-A=s3cret":                                          "/callback_headers.X-A unknown_option",
		url + "&callback_headers=s3cret":                                              "/callback_headers invalid_json",
		"callback_headers=%7B%22X-A%22:%22s3cret%22%7D":                               "/callback_headers needs_callback_url",
		"callback_url=":                  "/callback_url empty",
		"callback_events=batch.progress": "/callback_events invalid_json",
		"callback_events=%5B%22batch.progress%22,%22batch.progress%22%5D": "/callback_events/1 repeated",
		"callback_events=%5B%22batch.started%22%5D":                       "/callback_events/0 unknown_value",
		"callback_mode=push": "/callback_mode unknown_value",
	} {
		t.Run(query+" is refused", func(t *testing.T) {
			r := w.submit("?processor=price&"+query, "1\n")
			p := r.problem()
			if len(p.Errors) != 1 || p.Errors[0].Pointer+" "+p.Errors[0].Code != place || r.status/100 != 4 {
				t.Errorf("%d %+v, want %s", r.status, p.Errors, place)
			}
			if strings.Contains(string(r.body), "3cret") {
				t.Errorf("it repeats a value: %s", r.body)
			}
		})
	}
}

// TestSecretsAreShownNowhere asks everything there is of a tenant with secrets
// in every place that may have one.
func TestSecretsAreShownNowhere(t *testing.T) {
	const canary = "canary"
	var log lockedBuffer
	w := newWorld(t, func(o *Options) {
		o.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	w.store.secrets[w.tenants[0]] = []batch.Secret{{Text: "whsec_" + canary}}
	var seen []string
	keep := func(r reply) reply {
		seen = append(seen, fmt.Sprint(r.header, string(r.body)))
		return r
	}
	of := keep(w.post("/v1/batches", `{"items":[1],"processor":"price","callback_url":"https://u:`+canary+`@shop.example/?k=`+canary+`",
		"callback_headers":{"Authorization":"`+canary+`"}}`)).is(202, "").id()
	w.store.change(of, func(b *fakeBatch) { b.finish(0, batch.ItemSucceeded, "1") })
	m := w.store.putMessage(w.tenants[0], of)
	keep(w.post("/v1/batches", `{"items":[1],"callback_url":"https://shop.example/?`+canary+`","callback_headers":{"Host":"`+canary+`"},"colour":"`+canary+`"}`))
	keep(w.post("/v1/callbacks/test", `{"url":"https://shop.example/?`+canary+`","headers":{"Authorization":"`+canary+`"}}`).is(200, ""))
	keep(w.post("/v1/callbacks/test", `{"url":"https://shop.example/?`+canary+`","headers":{"Host":"`+canary+`"}}`).is(422, "bad_header"))
	for _, rt := range routes() {
		path := strings.NewReplacer("{index}", "0", "/messages/{id}", "/messages/"+m.String(), "{id}", of.String()).Replace(rt.path)
		if path == "/v1/callbacks/secret" || path == "/v1/events" { // whose answer it is; which has no end and shows what one batch's shows
			continue
		}
		keep(w.do(rt.method, path, w.admin(), ""))
	}
	w.store.createErr, w.store.resultsErr = errors.New("disk"), errors.New("disk")
	keep(w.get("/v1/batches/" + of.String() + "/results?after=0&link=" + canary))
	for _, s := range append(seen, log.String(), w.log.String()) {
		if strings.Contains(s, canary) {
			t.Errorf("a secret is in %s", s)
		}
	}
	if len(seen) < len(routes()) || log.String() == "" {
		t.Errorf("only %d answers were looked at, and a log of %d bytes", len(seen), len(log.String()))
	}
}
