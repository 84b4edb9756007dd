// Package api is the HTTP face of the server. routes.go is the table of what
// there is; server.go is the way of every request; respond.go turns errors
// into answers. Handlers return errors and know no statuses of failure.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
	"github.com/callbatch/callbatch/batch/intake"
)

// A Store is what the API needs of one.
type Store interface {
	batch.Intake
	batch.Reader

	// Secrets is that of [batch.Vault].
	Secrets(ctx context.Context, tenant batch.TenantID, fresh batch.Secret) ([]batch.Secret, error)
}

// A Processor is a processor as clients see it.
type Processor struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`   // "jq", "http", "func"
	Health string `json:"health"` // "ok", or why it does not work at the moment
}

// Options say what the API serves and how. Only Store is required; without
// Keys everybody may do everything.
type Options struct {
	Store Store

	// Keys says who may ask for what. Nil is for a server that only its own
	// machine can reach: no key is asked for, and instead requests with a
	// Host that is no loopback name or from other sites' pages are refused.
	Keys *access.Keys

	Processors       func() []Processor        // those there are, by name; default none
	DefaultProcessor string                    // for batches that name none; empty: they must
	CheckCallback    func(rawURL string) error // its error is shown to the client; default: anything goes

	Limits    intake.Options // of submissions; Check and Defaults are set here
	PageBytes int            // default of callback_page_bytes; zero: the domain's
	PageItems int            // default of callback_page_items; zero: the domain's
	BaseURL   string         // how the world reaches this server; kept with every batch

	Accepting func() error // nil while work is taken in, else a *batch.Error with the reason; default always
	Ready     func() bool  // false while starting and from the first stop signal on; default always true

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
	if o.CheckCallback == nil {
		o.CheckCallback = func(string) error { return nil }
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

// New returns the API. It belongs into a server that [HTTPServer] makes.
func New(o Options) http.Handler {
	s := &server{Options: o.withDefaults(), crossOrigin: http.NewCrossOriginProtection()}
	s.Limits.Defaults = batch.Options{
		Processor: o.DefaultProcessor, CallbackPageBytes: o.PageBytes, CallbackPageItems: o.PageItems,
	}
	s.Limits.Check = s.checkOptions
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
