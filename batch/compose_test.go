package batch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var spec = Spec{
	ID: ID{1}, Items: 4, Blocks: 2, Created: made,
	Options: Options{CallbackURL: "https://shop.example/hooks", Metadata: map[string]string{"run": `<"a"&b>`}}.WithDefaults(),
}

// The beginnings of golden bodies: what all messages of spec have in common.
const (
	inRound1 = `","timestamp":"2026-11-23T12:00:00.000Z","data":{"batch_id":"bat_01000000000000000000000000","round":1,"metadata":{"run":"<\"a\"&b>"},`
	linkAll  = `https://batch.example/v1/batches/bat_01000000000000000000000000/results?link=AgAAAAAAAAAAAAAAAAAAAFcYTEgwUdf4cHhmBwoaksU`
	link1    = `https://batch.example/v1/batches/bat_01000000000000000000000000/items/1/output?link=AgAAAAAAAAAAAAAAAAAAAKeA0NPqQpTyGOvyld05ryw`
)

func failed(i int, f Failure) Result {
	return Result{Index: i, ID: "A-18", Round: 1, Status: ItemFailed, Attempts: 5, Finished: made, Payload: f.JSON()}
}

// results returns those of rs that the refs of a message name.
func (m Message) results(rs []Result) (named []Result) {
	for _, ref := range m.Refs {
		for _, r := range rs {
			if r.Index >= ref.From && r.Index < ref.To && r.Round == ref.Round {
				named = append(named, r)
			}
		}
	}
	return named
}

func TestRangeMessages(t *testing.T) {
	p := Progress{Status: Running, Round: 1}
	rs := []Result{succeeded(0, `1`), succeeded(1, `"<>&"`)}
	linked, links := linked()
	linking := terms
	linking.Links = links

	t.Run("a range that fits is one message", func(t *testing.T) {
		ms := RangeMessages(spec, p, Range{Key: BlockKey{Part: 3, Number: 5}, Ordinal: 1, Results: rs}, terms, made)
		if len(ms) != 1 {
			t.Fatalf("got %+v", ms)
		}
		want := Message{
			ID: ms[0].ID, Batch: spec.ID, Type: TypeResults, Round: 1, Host: "shop.example:443", State: MessageWaiting,
			Created: made, Due: made, Until: made.Add(terms.Window), Head: ms[0].Head, Tail: ms[0].Tail,
			Refs: []Ref{{Part: 3, Number: 5, Round: 1, From: 0, To: 2}}, Carried: rs,
		}
		if diff := cmp.Diff(want, ms[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		golden(t, ms[0], rs, `{"type":"batch.results`+inRound1+`"range":1,"ranges":2,"part":0,"parts":1,"first_index":0,"last_index":1,"results":[`+
			`{"index":0,"id":"0","status":"succeeded","output":1,"attempts":1,"finished_at":"2026-11-23T12:00:00.000Z"},`+
			`{"index":1,"id":"1","status":"succeeded","output":"<>&","attempts":1,"finished_at":"2026-11-23T12:00:00.000Z"}]}}`)
	})
	t.Run("a client that wants no results gets none", func(t *testing.T) {
		for _, o := range []Options{{}, {CallbackURL: "https://x.example", CallbackMode: ModeSummary}, {CallbackMode: ModeSummary}} {
			s := spec
			s.Options = o.WithDefaults()
			if ms := RangeMessages(s, p, Range{Results: rs}, terms, made); ms != nil {
				t.Errorf("%+v gave %d messages", o, len(ms))
			}
		}
	})
	t.Run("a range in which nothing ran has none", func(t *testing.T) {
		if ms := RangeMessages(spec, p, Range{}, terms, made); ms != nil {
			t.Errorf("got %+v", ms)
		}
	})
	t.Run("messages to be pulled are the same, settled from the start", func(t *testing.T) {
		s := spec
		s.Options.CallbackMode, s.Options.CallbackURL = ModePull, ""
		ms := RangeMessages(s, p, Range{Ordinal: 1, Results: rs}, terms, made)
		if len(ms) != 1 {
			t.Fatalf("got %+v", ms)
		}
		want := Message{
			ID: ms[0].ID, Batch: s.ID, Type: TypeResults, Round: 1, State: MessagePulled, Settled: true, Created: made, Ended: made,
			Head: ms[0].Head, Tail: ms[0].Tail, Refs: []Ref{{Round: 1, To: 2}}, Carried: rs,
		}
		if diff := cmp.Diff(want, ms[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		sent := RangeMessages(spec, p, Range{Ordinal: 1, Results: rs}, terms, made)
		golden(t, ms[0], rs, string(body(t, sent[0], rs)))
	})
	t.Run("a result too large for any message is there without its output", func(t *testing.T) {
		s := linked
		s.Options.CallbackPageBytes = MinPageBytes
		large := []Result{succeeded(0, `1`), succeeded(1, `"`+strings.Repeat("x", MinPageBytes)+`"`), succeeded(2, `3`)}
		ms := RangeMessages(s, p, Range{Results: large}, linking, made)
		if len(ms) != 1 {
			t.Fatalf("got %d messages", len(ms))
		}
		result := func(n, output string) string {
			return `{"index":` + n + `,"id":"` + n + `","status":"succeeded",` + output + `,"attempts":1,"finished_at":"2026-11-23T12:00:00.000Z"}`
		}
		const head = `{"type":"batch.results` + inRound1 + `"range":0,"ranges":2,"part":0,"parts":1,"first_index":0,"last_index":2,"results":[`
		want := func(url string) string {
			return head + result("0", `"output":1`) + "," + result("1", `"output_url":`+url) + "," + result("2", `"output":3`) + "]}}"
		}
		golden(t, ms[0], large, want(`"`+link1+`"`))
		if ms[0].Refs != nil {
			t.Errorf("what is frozen is named as well: %+v", ms[0].Refs)
		}

		ms = RangeMessages(s, p, Range{Results: large}, terms, made)
		golden(t, ms[0], large, want(`null`))
	})
	t.Run("a failure too large for any message is there without what the upstream said", func(t *testing.T) {
		s := spec
		s.Options.CallbackPageBytes = MinPageBytes
		large := []Result{failed(1, Failure{
			Code: CodeUpstreamStatus, Message: strings.Repeat("é", 512), UpstreamStatus: 422, Body: strings.Repeat("<", 4<<10),
		})}
		ms := RangeMessages(s, p, Range{Results: large}, terms, made)
		if len(ms) != 1 {
			t.Fatalf("got %d messages", len(ms))
		}
		golden(t, ms[0], large, `{"type":"batch.results`+inRound1+`"range":0,"ranges":2,"part":0,"parts":1,"first_index":1,"last_index":1,"results":[`+
			`{"index":1,"id":"A-18","status":"failed","error":{"code":"upstream_status","message":"`+strings.Repeat("é", 40)+`…","upstream_status":422,"truncated":true},`+
			`"attempts":5,"finished_at":"2026-11-23T12:00:00.000Z"}]}}`)
	})
	t.Run("the results of a later round are those it was about", func(t *testing.T) {
		later := Progress{Status: Running, Round: 2}
		rs := []Result{succeeded(1, `1`), succeeded(3, `3`)}
		for i := range rs {
			rs[i].Round = 2
		}
		ms := RangeMessages(spec, later, Range{Results: rs}, terms, made)
		if len(ms) != 1 || ms[0].Round != 2 {
			t.Fatalf("got %+v", ms)
		}
		golden(t, ms[0], append([]Result{succeeded(2, `0`)}, rs...), `{"type":"batch.results","timestamp":"2026-11-23T12:00:00.000Z","data":{"batch_id":"bat_01000000000000000000000000",`+
			`"round":2,"metadata":{"run":"<\"a\"&b>"},"range":0,"ranges":2,"part":0,"parts":1,"first_index":1,"last_index":3,"results":[`+
			`{"index":1,"id":"1","status":"succeeded","output":1,"attempts":1,"round":2,"finished_at":"2026-11-23T12:00:00.000Z"},`+
			`{"index":3,"id":"3","status":"succeeded","output":3,"attempts":1,"round":2,"finished_at":"2026-11-23T12:00:00.000Z"}]}}`)
	})
	t.Run("a part has at most as many results as were asked for", func(t *testing.T) {
		s := spec
		s.Options.CallbackPageItems = 1
		if ms := RangeMessages(s, p, Range{Results: rs}, terms, made); len(ms) != 2 {
			t.Errorf("got %d parts", len(ms))
		}
	})
}

// golden compares the body of a message, whose results are among rs.
func golden(t *testing.T, m Message, rs []Result, want string) {
	t.Helper()
	if diff := cmp.Diff(want, string(body(t, m, m.results(rs)))); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
}

func TestEndMessages(t *testing.T) {
	one, links := linked()
	one.Blocks, one.Items = 1, 2
	linking := terms
	linking.Links = links
	p := Progress{Status: Completed, Round: 1, Started: made, Finished: made.Add(time.Second), Done: Tally{Succeeded: 2}}
	rs := []Result{succeeded(0, `1`), succeeded(1, `2`)}
	const (
		ended = `"status":"completed","reason":null,"counts":{"total":2,"pending":0,"running":0,"succeeded":2,"failed":0,"canceled":0,"expired":0},` +
			`"created_at":"2026-11-23T12:00:00.000Z","started_at":"2026-11-23T12:00:00.000Z","finished_at":"2026-11-23T12:00:01.000Z",`
		inline = `"messages":0,"results":[` +
			`{"index":0,"id":"0","status":"succeeded","output":1,"attempts":1,"finished_at":"2026-11-23T12:00:00.000Z"},` +
			`{"index":1,"id":"1","status":"succeeded","output":2,"attempts":1,"finished_at":"2026-11-23T12:00:00.000Z"}],`
	)

	t.Run("a batch of one range carries its results inline", func(t *testing.T) {
		ms := EndMessages(one, p, &Range{Results: rs}, linking, made)
		if len(ms) != 1 {
			t.Fatalf("got %+v", ms)
		}
		want := Message{
			ID: ms[0].ID, Tenant: TenantID{2}, Batch: one.ID, Type: TypeCompleted, Round: 1, Host: "shop.example:443", State: MessageWaiting,
			Created: made, Due: made, Until: made.Add(terms.Window), Head: ms[0].Head, Tail: ms[0].Tail, Refs: []Ref{{Round: 1, To: 2}}, Carried: rs,
		}
		if diff := cmp.Diff(want, ms[0]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		golden(t, ms[0], rs, `{"type":"batch.completed`+inRound1+ended+inline+`"results_url":"`+linkAll+`"}}`)
	})
	t.Run("a server that does not know how the world reaches it links nothing", func(t *testing.T) {
		s := one
		s.BaseURL = ""
		ms := EndMessages(s, p, &Range{Results: rs}, linking, made)
		golden(t, ms[0], rs, `{"type":"batch.completed`+inRound1+ended+inline+`"results_url":null}}`)
	})
	t.Run("a batch in which nothing ran has no results to carry", func(t *testing.T) {
		c := p
		c.Status, c.Reason, c.Started, c.Done = Canceled, CodeTooManyFailures, time.Time{}, Tally{Canceled: 2}
		ms := EndMessages(one, c, &Range{}, terms, made)
		if len(ms) != 1 || ms[0].Type != TypeCanceled || ms[0].Refs != nil {
			t.Fatalf("got %+v", ms)
		}
		golden(t, ms[0], nil, `{"type":"batch.canceled`+inRound1+`"status":"canceled","reason":"too_many_failures",`+
			`"counts":{"total":2,"pending":0,"running":0,"succeeded":0,"failed":0,"canceled":2,"expired":0},"created_at":"2026-11-23T12:00:00.000Z",`+
			`"started_at":null,"finished_at":"2026-11-23T12:00:01.000Z","messages":0,"results":[],"results_url":null}}`)
	})
	t.Run("a body may be as large as was asked for, and not a byte more", func(t *testing.T) {
		s := one
		s.Options.CallbackPageBytes = 2 * MinPageBytes
		result := succeeded(0, `""`)
		room := s.Options.CallbackPageBytes - len(AppendBody(nil, EndMessages(s, p, &Range{Results: []Result{result}}, linking, made)[0], []Result{result}))
		for more, want := range map[int]int{0: 1, 1: 2} {
			r := result
			r.Payload = []byte(`"` + strings.Repeat("x", room+more) + `"`)
			ms := EndMessages(s, p, &Range{Results: []Result{r}}, linking, made)
			if len(ms) != want {
				t.Fatalf("with %d bytes more than fit there are %d messages", more, len(ms))
			}
			if b := body(t, ms[0], []Result{r}); more == 0 && len(b) != s.Options.CallbackPageBytes {
				t.Errorf("the body has %d bytes", len(b))
			}
		}
	})
	t.Run("results that do not fit go before it, and it waits for them", func(t *testing.T) {
		s := one
		s.Options.CallbackPageItems = 1
		ms := EndMessages(s, p, &Range{Results: rs}, linking, made)
		if len(ms) != 3 || ms[0].Type != TypeResults || ms[2].Type != TypeCompleted || !ms[0].Due.Equal(made) || !ms[2].Due.Equal(made.Add(terms.Hold)) {
			t.Fatalf("got %+v", ms)
		}
		golden(t, ms[2], rs, `{"type":"batch.completed`+inRound1+ended+`"messages":2,"results_url":"`+linkAll+`"}}`)
	})
	t.Run("one result that is too large by itself is in it without its output", func(t *testing.T) {
		s := one
		s.Options.CallbackPageBytes = MinPageBytes
		large := []Result{rs[0], succeeded(1, `"`+strings.Repeat("x", MinPageBytes)+`"`)}
		for _, rs := range [][]Result{large, large[1:]} {
			ms := EndMessages(s, p, &Range{Results: rs}, linking, made)
			if len(ms) != 1 || ms[0].Type != TypeCompleted {
				t.Fatalf("got %+v", ms)
			}
			if b := body(t, ms[0], nil); !bytes.Contains(b, []byte(`"output_url":"`+link1+`"`)) || bytes.Contains(b, []byte("xxx")) {
				t.Errorf("got %s", b)
			}
		}
	})
	t.Run("a result that has room only in a message of its own has one", func(t *testing.T) {
		s := one
		room := MinPageBytes - resultsEnvelope(s, p, section{ranges: s.Blocks, part: 999, parts: 999, first: s.Items, last: s.Items}, made).size()
		s.Options.CallbackPageBytes = MinPageBytes
		fits := succeeded(0, `""`)
		fits.Payload = []byte(`"` + strings.Repeat("x", room-3-len(AppendResult(nil, fits))) + `"`)
		ms := EndMessages(s, p, &Range{Results: []Result{fits}}, linking, made)
		if len(ms) != 2 || ms[0].Type != TypeResults || ms[0].Refs == nil {
			t.Fatalf("got %d messages", len(ms))
		}
	})
	t.Run("a summary is one message, whatever the results", func(t *testing.T) {
		s := one
		s.Options.CallbackMode = ModeSummary
		for _, only := range []*Range{{Results: rs}, nil} {
			ms := EndMessages(s, p, only, linking, made)
			if len(ms) != 1 || ms[0].Refs != nil || !ms[0].Due.Equal(made) {
				t.Fatalf("got %+v", ms)
			}
			golden(t, ms[0], nil, `{"type":"batch.completed`+inRound1+ended+`"messages":0,"results_url":"`+linkAll+`"}}`)
		}
	})
	t.Run("a larger batch's end waits for what is owed", func(t *testing.T) {
		for owed, due := range map[int]time.Time{1: made.Add(terms.Hold), 0: made} {
			q := p
			q.Messages = Ledger{Round: 2, Owed: owed}
			ms := EndMessages(one, q, nil, linking, made)
			if len(ms) != 1 || !ms[0].Due.Equal(due) || !ms[0].Until.Equal(due.Add(terms.Window)) {
				t.Fatalf("with %d owed: %+v", owed, ms)
			}
			golden(t, ms[0], nil, `{"type":"batch.completed`+inRound1+ended+`"messages":2,"results_url":"`+linkAll+`"}}`)
		}
	})
	t.Run("a round whose range was sent before carries it no more", func(t *testing.T) {
		q := p
		q.Messages = Ledger{Round: 1, Waiting: 1}
		if ms := EndMessages(one, q, &Range{Results: rs}, terms, made); len(ms) != 1 || ms[0].Refs != nil {
			t.Errorf("got %+v", ms)
		}
	})
	t.Run("by default it waits a minute, and then has 7 days", func(t *testing.T) {
		q := p
		q.Messages = Ledger{Round: 2, Owed: 1}
		if ms := EndMessages(one, q, nil, Terms{}, made); !ms[0].Due.Equal(made.Add(time.Minute)) || !ms[0].Until.Equal(made.Add(time.Minute+7*24*time.Hour)) {
			t.Errorf("got %+v", ms)
		}
	})
	t.Run("messages to be pulled wait for nothing", func(t *testing.T) {
		s := one
		s.Options.CallbackMode, s.Options.CallbackURL, s.Options.CallbackPageItems = ModePull, "", 1
		ms := EndMessages(s, p, &Range{Results: rs}, linking, made)
		if len(ms) != 3 {
			t.Fatalf("got %+v", ms)
		}
		for _, m := range ms {
			if m.State != MessagePulled || !m.Due.IsZero() || !m.Until.IsZero() || !m.Ended.Equal(made) || !m.Settled {
				t.Errorf("got %+v", m)
			}
		}
		golden(t, ms[2], nil, `{"type":"batch.completed`+inRound1+ended+`"messages":2,"results_url":"`+linkAll+`"}}`)
	})
	t.Run("no callback, no message", func(t *testing.T) {
		s := one
		s.Options.CallbackURL = ""
		for _, mode := range []Mode{ModeResults, ModeSummary} {
			s.Options.CallbackMode = mode
			if ms := EndMessages(s, p, &Range{Results: rs}, terms, made); ms != nil {
				t.Errorf("%s: %+v", mode, ms)
			}
		}
	})
}

// Whatever the options and the results: each result travels once, in order,
// and no body is longer than was asked for.
func TestMessagesKeepToTheirPages(t *testing.T) {
	_, links := linked()
	linking := Terms{Links: links}
	rapid.Check(t, func(t *rapid.T) {
		s := Spec{
			ID: NewID(made), Items: 9_999_999, Blocks: 39_063, Created: made,
			BaseURL: rapid.SampledFrom([]string{"", "https://batch.example", "https://batches.internal.shop.example:8443/callbatch"}).Draw(t, "base"),
			Options: Options{
				CallbackURL:       "https://shop.example/hooks",
				CallbackMode:      rapid.SampledFrom([]Mode{ModeResults, ModePull}).Draw(t, "mode"),
				CallbackPageItems: rapid.IntRange(1, 30).Draw(t, "page items"),
				Metadata:          rapid.MapOfN(text(64), text(MaxMetadataValue), 0, MaxMetadata).Draw(t, "metadata"),
			},
		}
		delete(s.Options.Metadata, "")
		s.Options.CallbackPageBytes = MinPageBytes + s.Options.metadataBytes() + rapid.IntRange(0, 5000).Draw(t, "room")
		if ps := s.Options.Validate(); len(ps) > 0 {
			t.Fatalf("got %+v", ps)
		}
		p := Progress{Status: Completed, Round: 1, Started: made, Finished: made, Done: Tally{Succeeded: s.Items}}
		first := s.Items - BlockItems
		var rs []Result
		for i := range rapid.IntRange(1, 40).Draw(t, "results") {
			rs = append(rs, anyResult(t, first+i))
		}
		only := Range{Ordinal: s.Blocks - 1, Results: rs}

		ms := RangeMessages(s, p, only, linking, made)
		if rapid.Bool().Draw(t, "at the end") {
			ms = EndMessages(s, p, &only, linking, made)
		}
		seen := 0
		for i, m := range ms {
			b := body(t, m, m.results(rs))
			if len(b) > s.Options.CallbackPageBytes {
				t.Fatalf("%d bytes, of %d: %s", len(b), s.Options.CallbackPageBytes, b)
			}
			seen += checkPage(t, b, i, len(ms), first+seen, s.Options.CallbackPageItems)
		}
		if seen != len(rs) {
			t.Fatalf("%d of %d results travel", seen, len(rs))
		}
	})
}

// The same to the byte, whether a page has many results or a range many pages.
func TestPagesAreFilledToTheByte(t *testing.T) {
	s := spec
	s.Items, s.Blocks = 9_999_999, 39_063
	for least, output := range map[int]string{4096: `1`, 1024: `"` + strings.Repeat("x", 300) + `"`} {
		var rs []Result
		for i := range BlockItems {
			rs = append(rs, succeeded(s.Items-BlockItems+i, output))
		}
		fullest := least
		for room := range len(AppendResult(nil, rs[0])) + 1 {
			s.Options.CallbackPageBytes = least + room
			for _, m := range RangeMessages(s, Progress{Status: Running, Round: 1}, Range{Results: rs}, terms, made) {
				left := s.Options.CallbackPageBytes - len(AppendBody(nil, m, rs[:m.Refs[0].To-m.Refs[0].From]))
				if left < 0 {
					t.Fatalf("a body has %d bytes more than %d", -left, s.Options.CallbackPageBytes)
				}
				fullest = min(fullest, left)
			}
		}
		if fullest > 32 {
			t.Errorf("no page of %d results is fuller than %d bytes less than allowed", len(rs), fullest)
		}
	}
}

// checkPage reads one of several bodies and returns how many results it has,
// the first of which is next.
func checkPage(t *rapid.T, b []byte, i, of, next, most int) int {
	var m struct {
		Type string
		Data struct {
			Part, Parts, Messages int
			First                 int `json:"first_index"`
			Last                  int `json:"last_index"`
			Results               []struct{ Index int }
		}
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	d, n := m.Data, len(m.Data.Results)
	for j, r := range d.Results {
		if r.Index != next+j {
			t.Fatalf("result %d comes where %d should: %s", r.Index, next+j, b)
		}
	}
	switch {
	case n > most:
		t.Fatalf("%d results, though %d were asked for", n, most)
	case m.Type == TypeResults && (n == 0 || d.Part != i || d.Parts < i || d.First != next || d.Last != next+n-1):
		t.Fatalf("got %s", b)
	case m.Type != TypeResults && (i != of-1 || d.Messages != i || n > 0 && i > 0):
		t.Fatalf("got %s", b)
	}
	return n
}

// text is any text of up to so many characters, hard ones among them.
func text(most int) *rapid.Generator[string] {
	return rapid.StringOfN(rapid.SampledFrom([]rune("ab\"\\\n\x00<&é€\u2028😀")), 0, most, -1)
}

func anyResult(t *rapid.T, index int) Result {
	id := rapid.SampledFrom([]string{"", "A-17", strings.Repeat("é", 64), strings.Repeat("i", MaxItemID), strings.Repeat("\"", MaxItemID/2)}).Draw(t, "id")
	size := rapid.SampledFrom([]int{1, 10, 300, 900, 4 << 10}).Draw(t, "size")
	if rapid.Bool().Draw(t, "succeeded") {
		r := succeeded(index, `"`+strings.Repeat("x", size)+`"`)
		r.ID = id
		return r
	}
	r := failed(index, Failure{
		Code: CodeUpstreamStatus, UpstreamStatus: 500, Message: strings.Repeat("m", min(size, 1<<10)), Body: strings.Repeat("<", size),
	})
	r.ID = id
	return r
}

func TestProgressMessage(t *testing.T) {
	s := spec
	s.Items, s.Options.CallbackEvents = 1000, []string{TypeProgress}
	running := func(done int) Progress {
		return Progress{Status: Running, Round: 1, Started: made, Done: Tally{Succeeded: done - 1, Failed: 1}}
	}

	t.Run("says where the batch is", func(t *testing.T) {
		m, told, ok := ProgressMessage(s, running(257), terms, made)
		if !ok || told != (Told{Message: m.ID, Tenth: 2, At: made}) {
			t.Fatalf("got %+v, %v", told, ok)
		}
		want := Message{
			ID: m.ID, Batch: s.ID, Type: TypeProgress, Round: 1, Host: "shop.example:443", State: MessageWaiting,
			Created: made, Due: made, Until: made.Add(terms.Window), Head: m.Head,
		}
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		golden(t, m, nil, `{"type":"batch.progress`+inRound1+`"status":"running",`+
			`"counts":{"total":1000,"pending":743,"running":0,"succeeded":256,"failed":1,"canceled":0,"expired":0},"percent":20}}`)
	})
	t.Run("is made to be pulled, and for a summary", func(t *testing.T) {
		for mode, state := range map[Mode]MessageState{ModePull: MessagePulled, ModeSummary: MessageWaiting} {
			s := s
			s.Options.CallbackMode = mode
			if m, _, ok := ProgressMessage(s, running(257), terms, made); !ok || m.State != state {
				t.Errorf("%s: %+v, %v", mode, m, ok)
			}
		}
	})
	for name, c := range map[string]struct {
		done int
		told Told
		at   time.Duration // since then
		ok   bool
	}{
		"before the first tenth there is nothing to say": {99, Told{}, time.Hour, false},
		"the first tenth":            {100, Told{}, 0, true},
		"a tenth is told once":       {199, Told{Tenth: 1, At: made}, time.Hour, false},
		"the next":                   {200, Told{Tenth: 1, At: made}, time.Hour, true},
		"several at once are one":    {899, Told{Tenth: 1, At: made}, time.Hour, true},
		"never within 10 s":          {899, Told{Tenth: 1, At: made}, 10*time.Second - 1, false},
		"but then":                   {899, Told{Tenth: 1, At: made}, 10 * time.Second, true},
		"nor while a clock set back": {899, Told{Tenth: 1, At: made}, -time.Hour, false},
		"the last":                   {999, Told{Tenth: 8, At: made}, time.Hour, true},
		"the end is another message": {1000, Told{Tenth: 8, At: made}, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := running(c.done)
			p.Told = c.told
			_, told, ok := ProgressMessage(s, p, terms, made.Add(c.at))
			if ok != c.ok || !ok && told != c.told {
				t.Errorf("got %+v, %v", told, ok)
			}
		})
	}
	for name, change := range map[string]func(*Spec, *Progress){
		"not if nobody asked for it":      func(s *Spec, _ *Progress) { s.Options.CallbackEvents = nil },
		"not if there is no callback":     func(s *Spec, _ *Progress) { s.Options.CallbackURL = "" },
		"not when the batch is completed": func(_ *Spec, p *Progress) { p.Status = Completed },
		"not when it is canceled":         func(_ *Spec, p *Progress) { p.Status = Canceled },
		"not when it has expired":         func(_ *Spec, p *Progress) { p.Status = Expired },
		"not of a batch without items":    func(s *Spec, p *Progress) { s.Items, p.Done = 0, Tally{} },
	} {
		t.Run(name, func(t *testing.T) {
			s, p := s, running(500)
			change(&s, &p)
			if m, told, ok := ProgressMessage(s, p, terms, made); ok || told != p.Told {
				t.Errorf("got %+v, %+v", m, told)
			}
		})
	}
}

// However a batch goes on: each tenth is told at most once, in order, never
// within 10 s, and whatever is due is told.
func TestProgressIsToldAtEachTenth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := spec
		s.Options.CallbackEvents = []string{TypeProgress}
		s.Items = rapid.IntRange(1, 300).Draw(t, "items")
		p, now := Progress{Status: Running, Round: 1}, made
		var last time.Time
		tenth := 0
		for !p.Status.Terminal() {
			done := rapid.IntRange(0, s.Items-p.Done.Sum()).Draw(t, "done")
			now = now.Add(time.Duration(rapid.IntRange(0, 15).Draw(t, "seconds")) * time.Second)
			p.Absorb(Tally{Succeeded: done}, 0, 0)
			if p.Done.Sum() == s.Items {
				p.End(Completed, s.Items, now)
			}
			reached := 10 * p.Done.Sum() / s.Items
			due := !p.Status.Terminal() && reached > tenth && (last.IsZero() || now.Sub(last) >= tellEvery)
			m, told, ok := ProgressMessage(s, p, terms, now)
			if ok != due {
				t.Fatalf("told: %v, with %d of %d done, %d told %s ago", ok, p.Done.Sum(), s.Items, tenth, now.Sub(last))
			}
			if !ok {
				continue
			}
			if want := fmt.Appendf(nil, `"percent":%d}}`, 10*reached); !bytes.HasSuffix(body(t, m, nil), want) {
				t.Fatalf("got %s, want %s", m.Head, want)
			}
			p.Told = told
			p.Post(m)
			if p.Told != (Told{Message: m.ID, Tenth: reached, At: now}) {
				t.Fatalf("got %+v", p.Told)
			}
			last, tenth = now, reached
		}
	})
}

func TestCallbackHost(t *testing.T) {
	for raw, want := range map[string]string{
		"https://Shop.Example/hooks":    "shop.example:443",
		"http://shop.example":           "shop.example:80",
		"https://shop.example:8443/a?b": "shop.example:8443",
		"https://[2001:DB8::1]/":        "[2001:db8::1]:443",
		"":                              "",
		"https://shop.example:x/":       "",
	} {
		if got := CallbackHost(raw); got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
}
