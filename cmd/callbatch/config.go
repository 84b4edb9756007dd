package main

import (
	"fmt"
	"log/slog"
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
	Drain            span                 `koanf:"drain"`
	Log              logging              `koanf:"log"`
}

type limits struct {
	Items     int  `koanf:"items"`
	ItemBytes size `koanf:"item_bytes"`
	Output    size `koanf:"output_bytes"`
	Body      size `koanf:"body_bytes"`
	Ratio     int  `koanf:"ratio"`
	MinFree   size `koanf:"min_free"`
}

type callbacks struct {
	Schedule  []wait         `koanf:"schedule"`
	Window    span           `koanf:"window"`
	Timeout   span           `koanf:"timeout"`
	AllowHTTP bool           `koanf:"allow_http"`
	Allow     []netip.Prefix `koanf:"allow"`
	Ports     []uint16       `koanf:"ports"`
	PageBytes size           `koanf:"page_bytes"`
	PageItems int            `koanf:"page_items"`
	Hold      span           `koanf:"hold"`
	PerHost   int            `koanf:"per_host"`
	InFlight  int            `koanf:"in_flight"`
}

type logging struct {
	Level  slog.Level `koanf:"level"`
	Format string     `koanf:"format"`
}

// options returns the part of the configuration that needs nothing made.
func (c config) options() server.Options {
	return server.Options{
		Listen: c.Listen, Store: c.Store, PublicURL: c.PublicURL, Dev: c.Dev,
		DefaultProcessor: c.DefaultProcessor,
		Limits: server.Limits{
			Items: c.Limits.Items, ItemBytes: int(c.Limits.ItemBytes), Output: int(c.Limits.Output),
			Body: int64(c.Limits.Body), Ratio: c.Limits.Ratio, MinFree: int64(c.Limits.MinFree),
		},
		Callbacks: server.Callbacks{
			Schedule: durations(c.Callbacks.Schedule),
			Window:   time.Duration(c.Callbacks.Window), Timeout: time.Duration(c.Callbacks.Timeout),
			AllowHTTP: c.Callbacks.AllowHTTP, Allow: c.Callbacks.Allow, Ports: c.Callbacks.Ports,
			PageBytes: int(c.Callbacks.PageBytes), PageItems: c.Callbacks.PageItems,
			Hold:    time.Duration(c.Callbacks.Hold),
			PerHost: c.Callbacks.PerHost, InFlight: c.Callbacks.InFlight,
		},
		Drain: time.Duration(c.Drain),
	}
}

func durations(ws []wait) []time.Duration {
	var ds []time.Duration
	for _, w := range ws {
		ds = append(ds, time.Duration(w))
	}
	return ds
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

// isBase reports whether paths can be put behind raw.
func isBase(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil && u.RawQuery == "" && u.Fragment == ""
}
