// Package api is the HTTP face of the server. routes.go is the table of what
// there is; server.go is the way of every request; respond.go turns errors
// into answers. Handlers return errors and know no statuses of failure.
package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
	"github.com/callbatch/callbatch/batch/intake"
)

// A Store is what the API needs of one.
type Store interface {
	batch.Intake
	batch.Reader

	// Redeliver and RedeliverAll are those of [batch.Outbox].
	Redeliver(ctx context.Context, tenant batch.TenantID, id batch.MessageID, once batch.Once) (batch.Message, error)
	RedeliverAll(ctx context.Context, r batch.Redelivery, once batch.Once) (wanted int, err error)

	// Secrets and Rotate are those of [batch.Vault].
	Secrets(ctx context.Context, tenant batch.TenantID, fresh batch.Secret) ([]batch.Secret, error)
	Rotate(ctx context.Context, tenant batch.TenantID, fresh batch.Secret, keep time.Duration) ([]batch.Secret, error)
}

// A Processor is a processor as clients see it.
type Processor struct {
	Name   string          `json:"name"`
	Kind   string          `json:"kind"`   // "jq", "http", "exec", "func"
	Health string          `json:"health"` // "ok", or why it does not work at the moment
	Schema json.RawMessage `json:"schema"` // what its items have to fit; null: anything
}

// Options say what the API serves and how. Only Store is required; without
// Keys everybody may do everything.
type Options struct {
	Store Store

	// Keys says who may ask for what. Nil is for a server that only its own
	// machine can reach: no key is asked for, and instead requests with a
	// Host that is no loopback name or from other sites' pages are refused.
	Keys *access.Keys

	Links batch.Links // opens what the links in messages name; default: no link opens anything

	Processors       func() []Processor     // those there are, by name; default none
	HasProcessor     func(name string) bool // whether there is one; default: asks Processors
	DefaultProcessor string                 // for batches that name none; empty: they must

	// Surroundings says how things stand for the batches of a processor, which
	// the store does not know. Default: as they should.
	Surroundings func(processor string) batch.Surroundings

	// CheckCallback and CheckHeaders say what is wrong with where a callback is
	// to go and with the extra headers it is to bear. The client is shown their
	// errors, which repeat no value. Default: anything goes.
	CheckCallback func(rawURL string) error
	CheckHeaders  func(headers map[string]string) error

	// Test sends one signed callback.test and returns what came of it; an error
	// says why there is nothing to show. Nil: there is no POST
	// /v1/callbacks/test.
	Test func(ctx context.Context, tenant batch.TenantID, url string, headers map[string]string) (batch.MessageID, batch.Attempt, error)

	Limits    intake.Options // of submissions; Check and Defaults are set here; Budget is 256 MiB and 1,024 bodies by default
	PageBytes int            // default of callback_page_bytes; zero: the domain's
	PageItems int            // default of callback_page_items; zero: the domain's
	BaseURL   string         // how the world reaches this server; kept with every batch

	Accepting func() error // nil while work is taken in, else a *batch.Error with the reason; default always
	Ready     func() bool  // false while starting and from the first stop signal on; default always true

	// Stopping is closed with the first stop signal: who waits for something to
	// happen is answered at once. Nil: never.
	Stopping <-chan struct{}

	Metrics http.Handler // answers GET /metrics; nil: there is no such path

	// Observe is told of every answered request: the template of its path
	// ("none" if there is no such path), its method ("other" if it is none of
	// ours) and the status, 499 if the connection was given up.
	Observe func(route, method string, status int, took time.Duration)

	Logger *slog.Logger // failures of ours, and at level debug every request; default: discards

	// Patience is how long a client may let us wait in the middle of a body
	// or of reading an answer; default 30 s. A body must besides keep up
	// 256 bytes a second.
	Patience time.Duration
}

func (o Options) withDefaults() Options {
	if o.Store == nil {
		panic("api: Options.Store is required")
	}
	if o.Processors == nil {
		o.Processors = func() []Processor { return nil }
	}
	if o.HasProcessor == nil {
		o.HasProcessor = func(name string) bool {
			return slices.ContainsFunc(o.Processors(), func(p Processor) bool { return p.Name == name })
		}
	}
	if o.Surroundings == nil {
		o.Surroundings = func(string) batch.Surroundings { return batch.Surroundings{} }
	}
	if o.CheckCallback == nil {
		o.CheckCallback = func(string) error { return nil }
	}
	if o.CheckHeaders == nil {
		o.CheckHeaders = func(map[string]string) error { return nil }
	}
	if o.Accepting == nil {
		o.Accepting = func() error { return nil }
	}
	if o.Ready == nil {
		o.Ready = func() bool { return true }
	}
	if o.Observe == nil {
		o.Observe = func(string, string, int, time.Duration) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	return o
}

// What all bodies that are being received hold in memory, in bytes: more if that
// is less than one of the largest items may need. How many bodies that may be.
const (
	bodiesBytes = 256 << 20
	mostBodies  = 1024
)

// New returns the API. It belongs into a server that [HTTPServer] makes.
func New(o Options) http.Handler {
	s := &server{Options: o.withDefaults(), crossOrigin: http.NewCrossOriginProtection()}
	s.Limits.Defaults = batch.Options{
		Processor: o.DefaultProcessor, CallbackPageBytes: o.PageBytes, CallbackPageItems: o.PageItems,
	}
	s.Limits.Check = s.checkOptions
	s.Limits = s.Limits.WithDefaults()
	if s.Limits.Budget == nil {
		s.Limits.Budget = intake.NewBudget(max(bodiesBytes, 32*int64(s.Limits.ItemBytes)), mostBodies)
	}
	s.route()
	return s
}

// HTTPServer returns a server for h that no slow or talkative client can
// hold up. Bodies and answers have no fixed deadline, since they may be huge:
// the API moves one along with what gets through.
func HTTPServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32<<10 - 4096, // net/http allows 4096 more than it is told
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100},

		DisableGeneralOptionsHandler: true, // "OPTIONS *" is no path of ours
	}
}
