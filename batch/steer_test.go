package batch

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSteering(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	const refused = Status(0)
	for _, c := range []struct {
		name                  string
		p                     Progress
		cancel, pause, resume Status // what becomes of it
	}{
		{"open", Progress{Status: Open}, refused, refused, refused},
		{"queued", Progress{Status: Queued}, Canceling, Paused, Queued},
		{"running", Progress{Status: Running, Started: now}, Canceling, Paused, Running},
		{"paused before it began", Progress{Status: Paused}, Canceling, Paused, Queued},
		{"paused while it ran", Progress{Status: Paused, Started: now}, Canceling, Paused, Running},
		{"paused in a round that has not begun", Progress{Status: Paused, Started: now, Accepted: now.Add(1)}, Canceling, Paused, Queued},
		{"past its deadline", Progress{Status: Running, Lapsed: true}, refused, refused, refused},
		{"paused and past its deadline", Progress{Status: Paused, Lapsed: true}, refused, refused, refused},
		{"canceling", Progress{Status: Canceling}, Canceling, refused, refused},
		{"canceled", Progress{Status: Canceled}, Canceled, refused, refused},
		{"completed", Progress{Status: Completed}, refused, refused, refused},
		{"expired", Progress{Status: Expired, Lapsed: true}, refused, refused, refused},
	} {
		for name, step := range map[string]struct {
			do   func(*Progress) (bool, error)
			want Status
		}{"cancel": {(*Progress).Cancel, c.cancel}, "pause": {(*Progress).Pause, c.pause}, "resume": {(*Progress).Resume, c.resume}} {
			t.Run(name+" of what is "+c.name, func(t *testing.T) {
				p := c.p
				changed, err := step.do(&p)
				var e *Error
				switch {
				case step.want == refused:
					if !errors.As(err, &e) || e.Word() != "wrong_state" || changed || p != c.p {
						t.Errorf("got %v, %v and %+v", changed, err, p)
					}
				case err != nil || p.Status != step.want || changed != (p.Status != c.p.Status) || changed != (p.Version > c.p.Version):
					t.Errorf("got %v, %v and %+v", changed, err, p)
				}
				if again, _ := step.do(&p); again {
					t.Error("it is not idempotent")
				}
			})
		}
	}
}

func TestDeadlines(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	t.Run("count from acceptance", func(t *testing.T) {
		p := Progress{Status: Queued, Lapsed: true, Reason: CodeTooManyFailures}
		if p.Accept(Options{ExpiresIn: time.Hour}, now); !p.Expires.Equal(now.Add(time.Hour)) || p.Lapsed || p.Reason != "" {
			t.Errorf("got %+v", p)
		}
		if p.Accept(Options{}, now); !p.Expires.IsZero() {
			t.Errorf("without one it is %v", p.Expires)
		}
	})
	past, future := now, now.Add(time.Millisecond)
	for name, c := range map[string]struct {
		p      Progress
		lapses bool
	}{
		"no deadline":            {Progress{Status: Running}, false},
		"one to come":            {Progress{Status: Running, Expires: future}, false},
		"one that has come":      {Progress{Status: Running, Expires: past}, true},
		"before it began":        {Progress{Status: Queued, Expires: past}, true},
		"while it is paused":     {Progress{Status: Paused, Expires: past}, true},
		"while it is uploaded":   {Progress{Status: Open, Expires: past}, false},
		"after a cancel":         {Progress{Status: Canceling, Expires: past}, false},
		"after the end":          {Progress{Status: Completed, Expires: past}, false},
		"once more":              {Progress{Status: Running, Expires: past, Lapsed: true}, false},
		"long after a cancel":    {Progress{Status: Canceled, Expires: past}, false},
		"when it has done so":    {Progress{Status: Expired, Expires: past, Lapsed: true}, false},
		"with failures too many": {Progress{Status: Canceling, Reason: CodeTooManyFailures, Expires: past}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if p := c.p; p.Lapse(now) != c.lapses || p.Lapsed != (c.p.Lapsed || c.lapses) || p.Status != c.p.Status {
				t.Errorf("got %+v", p)
			}
		})
	}
	for name, c := range map[string]struct {
		p      Progress
		leased int
		as     Status
		over   bool
	}{
		"one in flight":          {Progress{Status: Running, Open: 2, Lapsed: true}, 1, 0, false},
		"none in flight":         {Progress{Status: Running, Open: 2, Lapsed: true}, 0, Expired, true},
		"paused, none in flight": {Progress{Status: Paused, Open: 2, Lapsed: true}, 0, Expired, true},
		"nothing left to expire": {Progress{Status: Running, Lapsed: true}, 1, Completed, true},
	} {
		t.Run("past the deadline, "+name, func(t *testing.T) {
			if as, over := c.p.Over(c.leased); over != c.over || over && as != c.as {
				t.Errorf("got %s, %v", as, over)
			}
		})
	}
	t.Run("what was tried before it expired says so", func(t *testing.T) {
		p := Progress{Status: Running, Lapsed: true}
		if r := EndedResult(3, "", p, 2); r.Status != ItemExpired || r.Attempts != 2 {
			t.Errorf("got %+v", r)
		}
	})
}

func TestTooManyFailures(t *testing.T) {
	for _, c := range []struct {
		status Status
		lapsed bool
		failed int
		allows Tolerance
		stops  bool
	}{
		{Running, false, 10, "", false},
		{Running, false, 0, "0", false},
		{Running, false, 1, "0", true},
		{Running, false, 5, "5", false},
		{Running, false, 6, "5", true},
		{Running, false, 5, "50%", false},
		{Running, false, 6, "50%", true},
		{Paused, false, 6, "50%", true},
		{Running, true, 6, "5", false}, // the deadline came first
		{Canceling, false, 6, "5", false},
		{Completed, false, 6, "5", false},
	} {
		t.Run(fmt.Sprintf("%d of 10 when %q may, %s", c.failed, c.allows, c.status), func(t *testing.T) {
			p := Progress{Status: c.status, Lapsed: c.lapsed, Done: Tally{Failed: c.failed}}
			stops := p.Strain(Spec{Items: 10, Options: Options{MaxFailures: c.allows}})
			if stops != c.stops || stops && (p.Status != Canceling || p.Reason != CodeTooManyFailures) {
				t.Errorf("got %v and %+v", stops, p)
			}
		})
	}
}

func TestGate(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	soon := now.Add(time.Second)
	for name, c := range map[string]struct {
		g     Gate
		open  bool
		until time.Time
		waits string
	}{
		"queued":                 {Gate{Status: Queued}, true, time.Time{}, ""},
		"before its time":        {Gate{Status: Queued, NotBefore: soon}, false, soon, "not_before"},
		"at its time":            {Gate{Status: Queued, NotBefore: now}, true, time.Time{}, ""},
		"paused":                 {Gate{Status: Paused}, false, time.Time{}, "paused"},
		"paused before its time": {Gate{Status: Paused, NotBefore: soon}, false, time.Time{}, "paused"},
		"before its deadline":    {Gate{Status: Running, Expires: soon}, true, time.Time{}, ""},
		"at its deadline":        {Gate{Status: Running, Expires: now}, false, time.Time{}, ""},
		"lapsed":                 {Gate{Status: Paused, Lapsed: true}, false, time.Time{}, ""},
		"canceling":              {Gate{Status: Canceling}, false, time.Time{}, ""},
		"uploaded":               {Gate{Status: Open}, false, time.Time{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			open, until := c.g.Open(now)
			if open != c.open || !until.Equal(c.until) || c.g.WaitingOn(now) != c.waits {
				t.Errorf("got %v, %v, %q", open, until, c.g.WaitingOn(now))
			}
		})
	}
}

func TestAmend(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	p := func(v string) *string { return &v }
	ptr := func(n int) *int { return &n }
	span := func(d time.Duration) *time.Duration { return &d }
	most := func(t Tolerance) *Tolerance { return &t }
	low := PriorityLow
	before := Options{
		Processor: "price", CallbackURL: "https://a.example/", CallbackHeaders: map[string]string{"X-Key": "1", "x-b": "2"},
		Metadata: map[string]string{"a": "1", "b": "2"}, Priority: PriorityHigh, Concurrency: 7, MaxFailures: "9", ExpiresIn: 2 * time.Hour,
	}.WithDefaults()
	running := Progress{Status: Running, Accepted: now.Add(-time.Hour), Expires: now.Add(time.Hour), Done: Tally{Failed: 3}, Open: 1}
	change := func(f func(*Options)) Options { o := before; f(&o); return o }

	for name, c := range map[string]struct {
		a    Amendment
		want Options
		p    func(*Progress) // what becomes of the progress
	}{
		"nothing":          {Amendment{}, before, nil},
		"what it is":       {Amendment{Concurrency: ptr(7), CallbackURL: &before.CallbackURL}, before, nil},
		"another callback": {Amendment{CallbackURL: p("https://b.example/")}, change(func(o *Options) { o.CallbackURL = "https://b.example/" }), nil},
		"a header of another spelling": {Amendment{CallbackHeaders: map[string]*string{"x_key": p("3")}}, change(func(o *Options) {
			o.CallbackHeaders = map[string]string{"x_key": "3", "x-b": "2"}
		}), nil},
		"no headers":           {Amendment{BareCallback: true}, change(func(o *Options) { o.CallbackHeaders = nil }), nil},
		"a pair, and one less": {Amendment{Metadata: map[string]*string{"c": p("3"), "a": nil, "z": nil}}, change(func(o *Options) { o.Metadata = map[string]string{"b": "2", "c": "3"} }), nil},
		"no metadata":          {Amendment{BareMetadata: true}, change(func(o *Options) { o.Metadata = nil }), nil},
		"how work goes on":     {Amendment{Priority: &low, Concurrency: ptr(0)}, change(func(o *Options) { o.Priority, o.Concurrency = low, 0 }), nil},
		"a later deadline":     {Amendment{ExpiresIn: span(3 * time.Hour)}, change(func(o *Options) { o.ExpiresIn = 3 * time.Hour }), func(p *Progress) { p.Expires = now.Add(2 * time.Hour) }},
		"none":                 {Amendment{ExpiresIn: span(0)}, change(func(o *Options) { o.ExpiresIn = 0 }), func(p *Progress) { p.Expires = time.Time{} }},
		"one that has passed":  {Amendment{ExpiresIn: span(time.Minute)}, change(func(o *Options) { o.ExpiresIn = time.Minute }), func(p *Progress) { p.Expires, p.Lapsed = now.Add(-59*time.Minute), true }},
		"as many failures":     {Amendment{MaxFailures: most("3")}, change(func(o *Options) { o.MaxFailures = "3" }), nil},
		"fewer failures":       {Amendment{MaxFailures: most("20%")}, change(func(o *Options) { o.MaxFailures = "20%" }), func(p *Progress) { p.Status, p.Reason = Canceling, CodeTooManyFailures }},
		"any number of them":   {Amendment{MaxFailures: most("")}, change(func(o *Options) { o.MaxFailures = "" }), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, want := running, running
			s, changed, err := got.Amend(Spec{Options: before, Items: 10}, c.a, now)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, s.Options); d != "" {
				t.Error(d)
			}
			if c.p != nil {
				c.p(&want)
			}
			if got.Version, want.Version = 0, 0; got != want {
				t.Errorf("the progress is %+v, want %+v", got, want)
			}
			if other := !cmp.Equal(c.want, before); changed != other || (s.Edition > 0) != other {
				t.Errorf("changed: %v, edition %d", changed, s.Edition)
			}
		})
	}
	many := map[string]*string{}
	for k := range pairs(17, "v") {
		many[k] = p("v")
	}
	polled := Options{}.WithDefaults()
	for _, p := range []Progress{{Status: Open, Round: 1}, {Status: Queued, Round: 1}, {Status: Paused, Round: 1, Started: now}} {
		to := "https://b.example/"
		s, changed, err := p.Amend(Spec{Options: polled, Items: 10}, Amendment{CallbackURL: &to}, now)
		if err != nil || !changed || s.Options.CallbackURL != to {
			t.Errorf("a callback of a batch of which nothing has finished, %s: %v, %v", p.Status, changed, err)
		}
	}
	for name, c := range map[string]struct {
		o    Options
		p    Progress
		a    Amendment
		word string
	}{
		"work of what has ended":          {before, Progress{Status: Completed}, Amendment{Concurrency: ptr(1)}, "wrong_state"},
		"work of what is ending":          {before, Progress{Status: Canceling}, Amendment{Priority: &low}, "wrong_state"},
		"a deadline that has passed":      {before, Progress{Status: Running, Lapsed: true}, Amendment{ExpiresIn: span(time.Hour)}, "wrong_state"},
		"a callback where there was none": {polled, running, Amendment{CallbackURL: p("https://b.example/")}, "no_callback_url"},
		"headers for nothing":             {polled, running, Amendment{CallbackHeaders: map[string]*string{"x": p("1")}}, "needs_callback_url"},
		"too many headers":                {before, running, Amendment{CallbackHeaders: many}, "too_many"},
		"too many pairs":                  {before, running, Amendment{Metadata: many}, "too_many"},
	} {
		t.Run("not "+name, func(t *testing.T) {
			was := c.p
			s, changed, err := c.p.Amend(Spec{Options: c.o, Items: 10}, c.a, now)
			var e *Error
			if !errors.As(err, &e) || e.Word() != c.word || changed || c.p != was || !cmp.Equal(s.Options, c.o) {
				t.Errorf("got %v, %v", changed, err)
			}
		})
	}
	for _, s := range []Status{Completed, Canceled, Expired, Canceling} {
		t.Run("where messages go, when it is "+s.String(), func(t *testing.T) {
			p := Progress{Status: s}
			url := "https://b.example/"
			if s, changed, err := p.Amend(Spec{Options: before}, Amendment{CallbackURL: &url, BareMetadata: true}, now); err != nil || !changed || s.Options.CallbackURL != url {
				t.Errorf("got %v, %v", changed, err)
			}
		})
	}
}

func TestBatchQueryWants(t *testing.T) {
	b := Batch{Spec: Spec{Options: Options{Processor: "price", Metadata: map[string]string{"run": "nightly", "x": ""}}}, Progress: Progress{Status: Running}}
	for name, c := range map[string]struct {
		q    BatchQuery
		want bool
	}{
		"any":               {BatchQuery{}, true},
		"its status":        {BatchQuery{Status: Running}, true},
		"another status":    {BatchQuery{Status: Queued}, false},
		"its processor":     {BatchQuery{Processor: "price"}, true},
		"another":           {BatchQuery{Processor: "pric"}, false},
		"all its pairs":     {BatchQuery{Metadata: map[string]string{"run": "nightly", "x": ""}}, true},
		"one that is other": {BatchQuery{Metadata: map[string]string{"run": "nightly", "x": "y"}}, false},
		"one it has not":    {BatchQuery{Metadata: map[string]string{"y": ""}}, false},
	} {
		if c.q.Wants(b) != c.want {
			t.Errorf("%s: got %v", name, !c.want)
		}
	}
}
