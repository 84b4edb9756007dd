package server

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/batch/intake"
	"github.com/callbatch/callbatch/callback"
)

// A Processor is a named way to work on items. In the simplest case a Go
// program fills in nothing but Do, with a [batch.ProcessorFunc]. A Do with a
// method LogTo(*slog.Logger) is given a logger before it is used, one with a
// method Close() is closed when nothing uses it any more.
type Processor = engine.Processor

// Options say how a server runs. The zero value is a server on
// 127.0.0.1:8080 with its store in ./callbatch.db and no processor.
type Options struct {
	Listen    string // address to listen on; default "127.0.0.1:8080"; port 0 picks a free one
	Store     string // path of the store file; default "callbatch.db"
	PublicURL string // how the world reaches this server: kept with every batch, for links; default none, with Dev the listener's own

	// Dev is for trying things on one's own machine: no key is needed, the
	// listener must be on loopback, callbacks may go to loopback over http,
	// and requests with another Host or from another site's pages are refused.
	Dev bool

	Processors       map[string]Processor
	DefaultProcessor string // used where a client names none; empty: it must name one

	Limits    Limits
	Callbacks Callbacks
	Retention time.Duration // how long a batch is kept after its end, and until its messages are settled; default 30 days
	Drain     time.Duration // most time in-flight work gets to finish at a stop; default 20 s

	// AdminKeyFile holds the first key: read if it exists, else written
	// (0600). Empty: the first key is printed once by Announce.
	AdminKeyFile string
	Announce     func(key string) // called with the first key when it was made and no file is set

	Logger  *slog.Logger        // default: discards
	Ready   func(addr net.Addr) // called once the server answers
	Version string              // shown in user-agent and server info; default "dev"
}

// Limits bound what clients may send and when work is refused. Zero means
// the default of the contract; sizes are bytes, decoded.
type Limits struct {
	Items     int   // in a batch; default 10,000,000
	ItemBytes int   // of one item; default 1 MiB, at most 1 MiB
	Output    int   // of one output; default 1 MiB, at most 1 MiB
	Body      int64 // of a body; default 16 GiB
	Part      int64 // of one part of an open batch; default 64 MiB
	Ratio     int   // decoded to sent bytes beyond 10 MiB; default 100
	MinFree   int64 // bytes free on the store's disk below which new work is refused; default max(1 GiB, 5 %)
	MinWork   int64 // bytes free below which no item is started either; default 256 MiB
}

// Callbacks say how messages are delivered.
type Callbacks struct {
	Schedule  []time.Duration // waits before each attempt; default as in the contract
	Window    time.Duration   // after which a message is exhausted; default 7 days
	Timeout   time.Duration   // of one attempt in all; default 15 s
	AllowHTTP bool            // plain http callbacks
	Allow     []netip.Prefix  // addresses allowed besides the globally routable ones
	Ports     []uint16        // allowed besides 80 and 443
	PageBytes int             // default of callback_page_bytes; 96 KiB
	PageItems int             // default of callback_page_items; 256
	Hold      time.Duration   // longest wait of the terminal message for the others; default 60 s
	PerHost   int             // most attempts in flight to one tenant and host; default 128
	InFlight  int             // most attempts in flight in all, a file descriptor each; default 1024
}

// WithDefaults returns o with what is not set filled in, but for Limits.MinFree,
// whose default depends on the disk.
func (o Options) WithDefaults() Options {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:8080"
	}
	if o.Store == "" {
		o.Store = "callbatch.db"
	}
	o.Retention = cmp.Or(o.Retention, batch.DefaultRetention)
	if o.Drain == 0 {
		o.Drain = 20 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	o.Limits = o.Limits.withDefaults()
	o.Callbacks = o.Callbacks.withDefaults()
	return o
}

func (l Limits) withDefaults() Limits {
	d := intake.Options{Items: l.Items, ItemBytes: l.ItemBytes, Body: l.Body, PartBytes: l.Part, Ratio: l.Ratio}.WithDefaults()
	l.Items, l.ItemBytes, l.Body, l.Part, l.Ratio = d.Items, d.ItemBytes, d.Body, d.PartBytes, d.Ratio
	l.Output = cmp.Or(l.Output, engine.DefaultMaxOutput)
	l.MinWork = cmp.Or(l.MinWork, leastToWork)
	return l
}

func (c Callbacks) withDefaults() Callbacks {
	c.Schedule = callback.Schedule{Steps: c.Schedule}.WithDefaults().Steps
	terms := batch.Terms{Hold: c.Hold, Window: c.Window}.WithDefaults()
	c.Hold, c.Window = terms.Hold, terms.Window
	c.Timeout = cmp.Or(c.Timeout, callback.DefaultTimeout)
	c.PageBytes = cmp.Or(c.PageBytes, batch.DefaultPageBytes)
	c.PageItems = cmp.Or(c.PageItems, batch.DefaultPageItems)
	c.PerHost = cmp.Or(c.PerHost, 128)
	c.InFlight = cmp.Or(c.InFlight, 1024)
	return c
}
