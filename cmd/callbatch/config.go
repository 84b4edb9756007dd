package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

// A config is what an operator may set. Its keys are those of the file; every
// key but the processors has an environment twin (callbacks.allow_http is
// CALLBATCH_CALLBACKS_ALLOW_HTTP). What is not set keeps the server's default.
type config struct {
	Listen           string               `koanf:"listen"`
	Store            string               `koanf:"store"`
	PublicURL        string               `koanf:"public_url"`
	Dev              bool                 `koanf:"dev"`
	DefaultProcessor string               `koanf:"default_processor"`
	Processors       map[string]processor `koanf:"processors"`
	Limits           limits               `koanf:"limits"`
	Callbacks        callbacks            `koanf:"callbacks"`
	Retention        span                 `koanf:"retention"`
	Drain            span                 `koanf:"drain"`
	Log              logging              `koanf:"log"`
}

type limits struct {
	Items     int  `koanf:"items"`
	ItemBytes size `koanf:"item_bytes"`
	Output    size `koanf:"output_bytes"`
	Body      size `koanf:"body_bytes"`
	Part      size `koanf:"part_bytes"`
	Ratio     int  `koanf:"ratio"`
	MinFree   size `koanf:"min_free"`
	MinWork   size `koanf:"min_work"`
}

type callbacks struct {
	Schedule  []wait    `koanf:"schedule"`
	Window    span      `koanf:"window"`
	Timeout   span      `koanf:"timeout"`
	AllowHTTP bool      `koanf:"allow_http"`
	Allow     []network `koanf:"allow"`
	Ports     []uint16  `koanf:"ports"`
	PageBytes size      `koanf:"page_bytes"`
	PageItems int       `koanf:"page_items"`
	Hold      span      `koanf:"hold"`
	PerHost   int       `koanf:"per_host"`
	InFlight  int       `koanf:"in_flight"`
}

type logging struct {
	Level  level  `koanf:"level"`
	Format string `koanf:"format"`
}

// options returns the part of the configuration that needs nothing made.
func (c config) options() server.Options {
	return server.Options{
		Listen: c.Listen, Store: c.Store, PublicURL: c.PublicURL, Dev: c.Dev,
		DefaultProcessor: c.DefaultProcessor,
		Limits: server.Limits{
			Items: c.Limits.Items, ItemBytes: int(c.Limits.ItemBytes), Output: int(c.Limits.Output),
			Body: int64(c.Limits.Body), Part: int64(c.Limits.Part), Ratio: c.Limits.Ratio, MinFree: int64(c.Limits.MinFree), MinWork: int64(c.Limits.MinWork),
		},
		Callbacks: server.Callbacks{
			Schedule: convert(c.Callbacks.Schedule, func(w wait) time.Duration { return time.Duration(w) }),
			Window:   time.Duration(c.Callbacks.Window), Timeout: time.Duration(c.Callbacks.Timeout),
			AllowHTTP: c.Callbacks.AllowHTTP, Ports: c.Callbacks.Ports,
			Allow:     convert(c.Callbacks.Allow, func(n network) netip.Prefix { return netip.Prefix(n) }),
			PageBytes: int(c.Callbacks.PageBytes), PageItems: c.Callbacks.PageItems,
			Hold:    time.Duration(c.Callbacks.Hold),
			PerHost: c.Callbacks.PerHost, InFlight: c.Callbacks.InFlight,
		},
		Retention: time.Duration(c.Retention), Drain: time.Duration(c.Drain),
	}
}

func convert[A, B any](from []A, one func(A) B) (to []B) {
	for _, a := range from {
		to = append(to, one(a))
	}
	return to
}

// mostItem is the most that limits may allow of an item or an output.
const mostItem = 1 << 20

// mistakes returns what is wrong with values that have the right form.
func (c config) mistakes() []mistake {
	var all []mistake
	bad := func(key, format string, args ...any) { all = append(all, mistake{key, fmt.Sprintf(format, args...)}) }
	between := func(key string, v, low, high int64) {
		if v != 0 && (v < low || v > high) {
			bad(key, "must be %d to %d, not %d", low, high, v)
		}
	}
	between("limits.item_bytes", int64(c.Limits.ItemBytes), 1, mostItem)
	between("limits.output_bytes", int64(c.Limits.Output), 1, mostItem)
	between("callbacks.page_bytes", int64(c.Callbacks.PageBytes), batch.MinPageBytes, batch.MaxPageBytes)
	between("callbacks.page_items", int64(c.Callbacks.PageItems), 1, batch.BlockItems)
	if c.Callbacks.Schedule != nil && len(c.Callbacks.Schedule) == 0 {
		bad("callbacks.schedule", `needs at least one step, such as "0s"`)
	}
	if c.Listen != "" && !isAddress(c.Listen) {
		bad("listen", `must look like "127.0.0.1:8080", not %q`, c.Listen)
	} else if c.Dev && c.Listen != "" && !isLoopback(c.Listen) {
		bad("listen", "--dev needs no key, so it serves loopback only: %q is not", c.Listen)
	}
	if !slices.Contains([]string{"", "auto", "json", "text"}, c.Log.Format) {
		bad("log.format", `must be "auto", "json" or "text"`)
	}
	if c.PublicURL != "" && !isBase(c.PublicURL) {
		bad("public_url", `must look like "https://batches.example.com"`)
	}
	if _, ok := c.Processors[c.DefaultProcessor]; c.DefaultProcessor != "" && !ok {
		bad("default_processor", "no processor is called %q", c.DefaultProcessor)
	}
	return all
}

// isAddress reports whether raw is an address to listen on.
func isAddress(raw string) bool {
	_, port, err := net.SplitHostPort(raw)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return err == nil && port != ""
}

// isLoopback reports whether only this machine reaches the address.
func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address) // judged before
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// isBase reports whether paths can be put behind raw.
func isBase(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}
