package batch

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var (
	made = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	spec = Spec{
		ID: ID{1}, Items: 4, Blocks: 2, Created: made,
		Options: Options{CallbackURL: "https://shop.example/hooks", Metadata: map[string]string{"run": `<"a"&b>`}}.WithDefaults(),
	}
)

func succeeded(i int, output string) Result {
	return Result{Index: i, Round: 1, Status: ItemSucceeded, Attempts: 1, Finished: made, Payload: []byte(output)}
}

func body(t *testing.T, m Message, rs []Result) []byte {
	t.Helper()
	b := AppendBody(nil, m, rs)
	if !json.Valid(b) {
		t.Fatalf("the body is not JSON: %s", b)
	}
	return b
}

func TestAppendResult(t *testing.T) {
	for name, c := range map[string]struct {
		r    Result
		want string
	}{
		"clients' bytes come out byte for byte": {
			succeeded(0, `{"a":"<>&","b":1e400,"c":9007199254740993,"d": [ 1 ]}`),
			`{"index":0,"id":"0","status":"succeeded","output":{"a":"<>&","b":1e400,"c":9007199254740993,"d": [ 1 ]},"attempts":1,"finished_at":"2026-11-23T12:00:00.000Z"}`,
		},
		"an id of its own is quoted": {
			Result{Index: 7, ID: "<é\"\n>", Round: 2, Status: ItemFailed, Attempts: 3, Finished: made, Payload: (&Failure{Code: CodeTimeout, Message: "a < b"}).JSON()},
			`{"index":7,"id":"<é\"\n>","status":"failed","error":{"code":"timeout","message":"a < b"},"attempts":3,"round":2,"finished_at":"2026-11-23T12:00:00.000Z"}`,
		},
		"what never ran says so": {
			EndedResult(3, "x", Progress{Status: Canceled, Round: 1, Finished: made}, 0),
			`{"index":3,"id":"x","status":"canceled","error":{"code":"canceled","message":"the batch was canceled before this item ran"},"attempts":0,"finished_at":"2026-11-23T12:00:00.000Z"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := string(AppendResult(nil, c.r)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestRangeMessages(t *testing.T) {
	p := Progress{Status: Running, Round: 1}
	rs := []Result{succeeded(0, `1`), succeeded(1, `"<>&"`)}

	t.Run("a range that fits is one message", func(t *testing.T) {
		ms := RangeMessages(spec, p, Range{Ordinal: 1, Results: rs}, made)
		if len(ms) != 1 || len(ms[0].Refs) != 1 || ms[0].Refs[0].From != 0 || ms[0].Refs[0].To != 2 {
			t.Fatalf("got %+v", ms)
		}
		want := `{"type":"batch.results","timestamp":"2026-11-23T12:00:00.000Z","data":{"batch_id":"bat_01000000000000000000000000",` +
			`"round":1,"metadata":{"run":"<\"a\"&b>"},"range":1,"ranges":2,"part":0,"parts":1,"first_index":0,"last_index":1,"results":[` +
			string(AppendResult(nil, rs[0])) + `,` + string(AppendResult(nil, rs[1])) + `]}}`
		if got := string(body(t, ms[0], rs)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("a client that wants no results gets none", func(t *testing.T) {
		for _, o := range []Options{{}, {CallbackURL: "https://x.example", CallbackMode: ModeSummary}} {
			s := spec
			s.Options = o.WithDefaults()
			if ms := RangeMessages(s, p, Range{Results: rs}, made); ms != nil {
				t.Errorf("%+v gave %d messages", o, len(ms))
			}
		}
	})
	t.Run("large results are cut into parts, each within its bytes", func(t *testing.T) {
		s := spec
		s.Options.CallbackPageBytes = 4 << 10
		var many []Result
		for i := range 40 {
			many = append(many, succeeded(i, `"`+strings.Repeat("x", 300)+`"`))
		}
		many[17].Payload = []byte(`"` + strings.Repeat("y", 5000) + `"`)
		seen := 0
		ms := RangeMessages(s, p, Range{Results: many}, made)
		for i, m := range ms {
			ref := m.Refs[0]
			b := body(t, m, many[ref.From:ref.To])
			if len(b) > s.Options.CallbackPageBytes {
				t.Errorf("part %d has %d bytes", i, len(b))
			}
			if ref.From != seen {
				t.Errorf("part %d begins at %d, not %d", i, ref.From, seen)
			}
			if ref.Bare != (ref.From == 17) || ref.Bare != bytes.Contains(b, []byte(`"output_url"`)) {
				t.Errorf("part %d, bare %v: %s", i, ref.Bare, b)
			}
			seen = ref.To
		}
		if seen != len(many) || len(ms) < 4 {
			t.Errorf("%d parts cover %d results", len(ms), seen)
		}
	})
	t.Run("a part has at most as many results as were asked for", func(t *testing.T) {
		s := spec
		s.Options.CallbackPageItems = 1
		if ms := RangeMessages(s, p, Range{Results: rs}, made); len(ms) != 2 {
			t.Errorf("got %d parts", len(ms))
		}
	})
}

func TestEndMessages(t *testing.T) {
	one := spec
	one.Blocks, one.Items = 1, 2
	p := Progress{Status: Completed, Round: 1, Started: made, Finished: made.Add(time.Second), Done: Tally{Succeeded: 2}}
	rs := []Result{succeeded(0, `1`), succeeded(1, `2`)}
	hold := time.Minute

	t.Run("a batch of one range carries its results inline", func(t *testing.T) {
		ms := EndMessages(one, p, &Range{Results: rs}, hold, made)
		if len(ms) != 1 || !ms[0].Due.Equal(made) {
			t.Fatalf("got %+v", ms)
		}
		want := `{"type":"batch.completed","timestamp":"2026-11-23T12:00:00.000Z","data":{"batch_id":"bat_01000000000000000000000000","round":1,` +
			`"metadata":{"run":"<\"a\"&b>"},"status":"completed","reason":null,"counts":{"total":2,"pending":0,"running":0,"succeeded":2,"failed":0,"canceled":0,"expired":0},` +
			`"created_at":"2026-11-23T12:00:00.000Z","started_at":"2026-11-23T12:00:00.000Z","finished_at":"2026-11-23T12:00:01.000Z","messages":0,"results":[` +
			string(AppendResult(nil, rs[0])) + `,` + string(AppendResult(nil, rs[1])) + `],"results_url":null}}`
		if got := string(body(t, ms[0], rs)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
	t.Run("a batch in which nothing ran has no results to carry", func(t *testing.T) {
		c := p
		c.Status, c.Done = Canceled, Tally{Canceled: 2}
		ms := EndMessages(one, c, &Range{}, hold, made)
		if b := body(t, ms[0], nil); len(ms) != 1 || !bytes.Contains(b, []byte(`"results":[]`)) {
			t.Errorf("%d messages: %s", len(ms), b)
		}
	})
	t.Run("results that do not fit go before it, and it waits for them", func(t *testing.T) {
		s := one
		s.Options.CallbackPageItems = 1
		ms := EndMessages(s, p, &Range{Results: rs}, hold, made)
		if len(ms) != 3 || ms[0].Type != TypeResults || ms[2].Type != TypeCompleted || !ms[2].Due.Equal(made.Add(hold)) {
			t.Fatalf("got %+v", ms)
		}
		if b := body(t, ms[2], nil); !bytes.Contains(b, []byte(`"messages":2`)) || bytes.Contains(b, []byte(`"results":`)) {
			t.Errorf("got %s", b)
		}
	})
	t.Run("a larger batch's end waits for what is owed", func(t *testing.T) {
		q := p
		q.Messages = Ledger{Round: 2, Owed: 1}
		if ms := EndMessages(spec, q, nil, hold, made); len(ms) != 1 || !ms[0].Due.Equal(made.Add(hold)) {
			t.Errorf("got %+v", ms)
		}
		q.Messages.Owed = 0
		if ms := EndMessages(spec, q, nil, hold, made); len(ms) != 1 || !ms[0].Due.Equal(made) {
			t.Errorf("got %+v", ms)
		}
	})
	t.Run("no callback, no message", func(t *testing.T) {
		s := one
		s.Options.CallbackURL = ""
		if ms := EndMessages(s, p, &Range{Results: rs}, hold, made); ms != nil {
			t.Errorf("got %+v", ms)
		}
	})
}

func TestCallbackHost(t *testing.T) {
	for raw, want := range map[string]string{
		"https://Shop.Example/hooks":    "shop.example:443",
		"http://shop.example":           "shop.example:80",
		"https://shop.example:8443/a?b": "shop.example:8443",
		"https://[2001:DB8::1]/":        "[2001:db8::1]:443",
	} {
		if got := CallbackHost(raw); got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
}

func TestMaskURL(t *testing.T) {
	for raw, want := range map[string]string{
		"https://shop.example/hooks":               "https://shop.example/hooks",
		"https://u:p@shop.example/h?token=s3&x#f":  "https://shop.example/h?token=***&x#f",
		"https://shop.example/h?a=1&a=2;3&b=%zz&=": "https://shop.example/h?a=***&a=***&b=***&=***",
	} {
		if got := MaskURL(raw); got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
}

func TestOptionsValidate(t *testing.T) {
	long := strings.Repeat("x", 600)
	for name, c := range map[string]struct {
		o       Options
		pointer string // of the only problem; "" for none
	}{
		"nothing asked for":  {Options{}, ""},
		"all of it":          {Options{CallbackMode: ModeSummary, Priority: PriorityLow, CallbackPageBytes: 1 << 20, CallbackPageItems: 256, MaxAttempts: 1, Concurrency: 1, IDField: "/a~1b/0"}, ""},
		"an unknown mode":    {Options{CallbackMode: "push"}, "/callback_mode"},
		"an unknown weight":  {Options{Priority: "urgent"}, "/priority"},
		"a page too small":   {Options{CallbackPageBytes: 10}, "/callback_page_bytes"},
		"a page too large":   {Options{CallbackPageItems: 257}, "/callback_page_items"},
		"negative attempts":  {Options{MaxAttempts: -1}, "/max_attempts"},
		"huge concurrency":   {Options{Concurrency: 1e9}, "/concurrency"},
		"no pointer":         {Options{IDField: "order_id"}, "/id_field"},
		"a broken pointer":   {Options{IDField: "/a~2"}, "/id_field"},
		"a long URL":         {Options{CallbackURL: "https://x.example/" + strings.Repeat("a", 8192)}, "/callback_url"},
		"a long value":       {Options{Metadata: map[string]string{"a/b": long}}, "/metadata/a~1b"},
		"an empty key":       {Options{Metadata: map[string]string{"": "x"}}, "/metadata/"},
		"characters, not":    {Options{Metadata: map[string]string{strings.Repeat("é", 64): "x"}}, ""},
		"a value just right": {Options{Metadata: map[string]string{"k": strings.Repeat("é", 512)}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			ps := c.o.Validate()
			switch {
			case c.pointer == "" && len(ps) > 0:
				t.Errorf("got %+v", ps)
			case c.pointer != "" && (len(ps) != 1 || ps[0].Pointer != c.pointer || ps[0].Detail == ""):
				t.Errorf("got %+v, want one at %s", ps, c.pointer)
			}
		})
	}
}
