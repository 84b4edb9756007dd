package batch

import (
	"strings"
	"testing"
)

func TestMaskURL(t *testing.T) {
	for raw, want := range map[string]string{
		"https://shop.example/hooks":               "https://shop.example/hooks",
		"https://u:p@shop.example/h?token=s3&x#f":  "https://shop.example/h?token=***&***#f",
		"https://shop.example/h?s3cret":            "https://shop.example/h?***",
		"https://shop.example/h?a%3Ds3cret":        "https://shop.example/h?***",
		"https://shop.example/h?a=1&a=2;3&b=%zz&=": "https://shop.example/h?a=***&a=***&b=***&=***",
	} {
		if got := MaskURL(raw); got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
}

// pairs returns n pairs of metadata.
func pairs(n int, value string) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[strings.Repeat("k", i+1)] = value
	}
	return m
}

func TestOptionsValidate(t *testing.T) {
	long := strings.Repeat("x", 600)
	for name, c := range map[string]struct {
		o       Options
		pointer string // of the only problem; "" for none
	}{
		"nothing asked for":  {Options{}, ""},
		"all of it":          {Options{CallbackMode: ModeSummary, Priority: PriorityLow, CallbackPageBytes: 1 << 20, CallbackPageItems: 256, MaxAttempts: 1, Concurrency: 1, IDField: "/a~1b/0"}, ""},
		"results pulled":     {Options{CallbackMode: ModePull}, ""},
		"and sent elsewhere": {Options{CallbackMode: ModePull, CallbackURL: "https://shop.example/hooks"}, ""},
		"an unknown mode":    {Options{CallbackMode: "push"}, "/callback_mode"},
		"word of progress":   {Options{CallbackEvents: []string{TypeProgress}}, ""},
		"asked for twice":    {Options{CallbackEvents: []string{TypeProgress, TypeProgress}}, ""},
		"what comes anyway":  {Options{CallbackEvents: []string{TypeProgress, TypeCompleted}}, "/callback_events/1"},
		"no event":           {Options{CallbackEvents: []string{"", long}}, "/callback_events/0"},
		"the smallest page":  {Options{CallbackPageBytes: MinPageBytes}, ""},
		"too small for all":  {Options{CallbackPageBytes: MinPageBytes - 1, Metadata: map[string]string{"k": "v"}}, "/callback_page_bytes"},
		"room for metadata":  {Options{CallbackPageBytes: MinPageBytes + 8, Metadata: map[string]string{"k": "v"}}, ""},
		"no such room":       {Options{CallbackPageBytes: MinPageBytes + 7, Metadata: map[string]string{"k": "v"}}, "/callback_page_bytes"},
		"nor when escaped":   {Options{CallbackPageBytes: MinPageBytes + 600, Metadata: map[string]string{"k": strings.Repeat("\x00", 512)}}, "/callback_page_bytes"},
		"many pairs":         {Options{Metadata: pairs(17, "v")}, "/metadata"},
		"the most there is":  {Options{CallbackPageBytes: DefaultPageBytes, Metadata: pairs(16, strings.Repeat("\x00", 512))}, ""},
		"a long key":         {Options{Metadata: map[string]string{strings.Repeat("k", 65): "x"}}, "/metadata/" + strings.Repeat("k", 65)},
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

func TestOptionsMessages(t *testing.T) {
	const hook = "https://shop.example/hooks"
	for name, c := range map[string]struct {
		o    Options
		want bool
	}{
		"a batch that is polled has none":         {Options{}, false},
		"nor a summary that nobody is sent":       {Options{CallbackMode: ModeSummary}, false},
		"one with a callback has some":            {Options{CallbackURL: hook}, true},
		"a summary is one":                        {Options{CallbackURL: hook, CallbackMode: ModeSummary}, true},
		"they are made to be pulled":              {Options{CallbackMode: ModePull}, true},
		"with a callback or without":              {Options{CallbackMode: ModePull, CallbackURL: hook}, true},
		"word of progress needs a way to be told": {Options{CallbackEvents: []string{TypeProgress}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.o.WithDefaults().Messages(); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestCallbackStatus(t *testing.T) {
	results := Options{CallbackURL: "https://shop.example/hooks"}
	pull, both := Options{CallbackMode: ModePull}, Options{CallbackMode: ModePull, CallbackURL: "https://shop.example/hooks"}
	for name, c := range map[string]struct {
		o      Options
		status Status
		m      Ledger
		want   string
	}{
		"without a callback there is nothing":           {Options{}, Completed, Ledger{}, "none"},
		"nothing was made yet":                          {results, Queued, Ledger{}, "waiting"},
		"the first message is to be sent":               {results, Running, Ledger{Waiting: 1}, "waiting"},
		"some were delivered, one is to be sent":        {results, Running, Ledger{Waiting: 1, Delivered: 3}, "delivering"},
		"all so far were delivered, more will come":     {results, Running, Ledger{Delivered: 3}, "waiting"},
		"the batch is over, and nothing delivered yet":  {results, Completed, Ledger{Waiting: 2}, "delivering"},
		"all were delivered":                            {results, Completed, Ledger{Delivered: 4}, "delivered"},
		"one was given up":                              {results, Completed, Ledger{Delivered: 3, Exhausted: 1}, "exhausted"},
		"one was given up, others are to be sent":       {results, Completed, Ledger{Waiting: 1, Delivered: 3, Exhausted: 1}, "delivering"},
		"one was refused by policy":                     {results, Canceled, Ledger{Delivered: 3, Other: 1}, "exhausted"},
		"all were refused by policy":                    {results, Expired, Ledger{Other: 1}, "exhausted"},
		"one is sent again":                             {results, Completed, Ledger{Waiting: 1, Delivered: 3}, "delivering"},
		"what is pulled is not delivered":               {pull, Running, Ledger{Other: 3}, "none"},
		"nor when the batch is over":                    {both, Completed, Ledger{Other: 4}, "none"},
		"one that could be pulled is sent":              {both, Completed, Ledger{Waiting: 1, Other: 3}, "delivering"},
		"and while the batch runs":                      {both, Running, Ledger{Waiting: 1, Other: 3}, "delivering"},
		"it was delivered":                              {both, Completed, Ledger{Delivered: 1, Other: 3}, "delivered"},
		"and while the batch runs, nothing is waiting":  {both, Running, Ledger{Delivered: 1, Other: 3}, "delivered"},
		"it was given up":                               {both, Completed, Ledger{Delivered: 1, Exhausted: 1, Other: 3}, "exhausted"},
		"it was refused by policy, which pulling heals": {both, Completed, Ledger{Other: 4}, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			b := Batch{Spec: Spec{Options: c.o.WithDefaults()}, Progress: Progress{Status: c.status, Messages: c.m}}
			if got := b.CallbackStatus(); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
