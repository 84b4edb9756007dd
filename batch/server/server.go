// Package server puts the parts together: store, engine, callback and API.
// The serve command calls [Run], and so does a Go program that registers
// functions of its own as processors.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
	"github.com/callbatch/callbatch/batch/api"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/batch/intake"
	"github.com/callbatch/callbatch/batch/metrics"
	"github.com/callbatch/callbatch/batch/schema"
	"github.com/callbatch/callbatch/callback"
	"github.com/callbatch/callbatch/callback/guard"
	"github.com/callbatch/callbatch/storage"
)

// Run serves until ctx ends and then stops gently: no new work is taken,
// what is under way gets o.Drain to finish and is recorded, status answers
// all the while, and the store closes last. It returns nil after such a stop.
//
// It returns early, with an error, if it cannot start or if the store can no
// longer know its own state; the process must then end and start anew.
func Run(ctx context.Context, o Options) error {
	s, err := start(ctx, o.WithDefaults())
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// A server is the running parts.
type server struct {
	o        Options
	store    batch.Store
	disk     *disk
	sender   *callback.Sender
	engine   *engine.Engine
	http     *http.Server
	listener net.Listener
	links    batch.Links
	schemas  map[string]*schema.Schema // by processor
	draining atomic.Bool
	stopping chan struct{} // closed with the first stop signal
}

// start opens what can fail; what it opened it closes again if the rest
// fails.
func start(ctx context.Context, o Options) (_ *server, err error) {
	if o.Dev {
		if err := onlyLoopback(o.Listen); err != nil {
			return nil, err
		}
	}
	if o.DefaultProcessor != "" && o.Processors[o.DefaultProcessor].Do == nil {
		return nil, fmt.Errorf("default_processor: there is no processor %q", o.DefaultProcessor)
	}
	schemas, err := compileSchemas(o.Processors)
	if err != nil {
		return nil, err
	}
	s := &server{o: o, schemas: schemas, stopping: make(chan struct{}), disk: &disk{dir: filepath.Dir(o.Store), minFree: o.Limits.MinFree, minWork: o.Limits.MinWork}}
	if s.store, err = storage.Open(ctx, o.Store, storage.Options{
		Terms: batch.Terms{Hold: o.Callbacks.Hold, Window: o.Callbacks.Window, Retention: o.Retention}, Logger: o.Logger,
	}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.store.Close())
		}
	}()
	keys, err := s.keys(ctx)
	if err != nil {
		return nil, err
	}
	if s.links.Key, err = s.store.LinkKey(ctx); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", o.Listen); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	policy := s.policy()
	m := metrics.New(o.Version)
	s.sender = callback.NewSender(callback.Options{
		Policy: policy, Timeout: o.Callbacks.Timeout, Version: o.Version, MaxIdlePerHost: o.Callbacks.PerHost,
	})
	s.engine = engine.New(s.cautious(), engine.Options{
		Processors: o.Processors, MaxOutput: o.Limits.Output,
		Sender:   s.sender,
		Schedule: callback.Schedule{Steps: o.Callbacks.Schedule, Window: o.Callbacks.Window},
		InFlight: o.Callbacks.InFlight, PerHost: o.Callbacks.PerHost,
		Drain: o.Drain, Logger: o.Logger, Metrics: counted{m},
	})
	giveLogs(o.Processors, o.Logger)
	s.gauges(m)
	s.http = api.HTTPServer(s.handler(keys, policy, m))
	s.http.ErrorLog = slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug)
	return s, nil
}

// keys returns who may ask, after making sure that somebody may.
func (s *server) keys(ctx context.Context) (*access.Keys, error) {
	if s.o.Dev {
		return nil, nil
	}
	key, created, err := access.First(ctx, s.store, s.o.AdminKeyFile)
	if err != nil {
		return nil, err
	}
	if created && s.o.AdminKeyFile == "" && s.o.Announce != nil {
		s.o.Announce(key)
	}
	if foreign, err := access.Foreign(ctx, s.store, s.o.AdminKeyFile); foreign || err != nil {
		s.o.Logger.Warn("the admin key file does not hold a key of this store: its keys stay as they are", "file", s.o.AdminKeyFile, "error", err)
	}
	return access.NewKeys(s.store), nil
}

func (s *server) cautious() cautious { return cautious{s.store, s.disk} }

// surroundings says how things stand for the batches of a processor.
func (s *server) surroundings(processor string) batch.Surroundings {
	health := s.engine.Health(processor)
	return batch.Surroundings{
		Missing: !s.hasProcessor(processor), DiskFull: !s.disk.working(), Down: health == "open", Held: health == "paused",
	}
}

// policy says where callbacks may go, and never to ourselves.
func (s *server) policy() *guard.Policy {
	c := s.o.Callbacks
	p := &guard.Policy{AllowHTTP: c.AllowHTTP, Allow: slices.Clone(c.Allow), Ports: c.Ports}
	if s.o.Dev {
		p.AllowHTTP, p.AnyPort = true, true
		p.Allow = append(p.Allow, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	}
	if a, err := netip.ParseAddrPort(s.listener.Addr().String()); err == nil {
		p.SetSelf(a)
	}
	return p
}

func (s *server) handler(keys *access.Keys, policy *guard.Policy, m *metrics.Metrics) http.Handler {
	o := s.o
	return api.New(api.Options{
		Store: rotating{s.cautious(), s.engine}, Keys: keys, Processors: s.processors, HasProcessor: s.hasProcessor, DefaultProcessor: o.DefaultProcessor,
		Surroundings: s.surroundings, CheckCallback: func(raw string) error { _, err := policy.CheckURL(raw); return err }, CheckHeaders: callback.CheckHeaders,
		Test: s.engine.Test, Links: s.links, Stopping: s.stopping,
		Limits: intake.Options{
			Items: o.Limits.Items, ItemBytes: o.Limits.ItemBytes, Body: o.Limits.Body, PartBytes: o.Limits.Part, Ratio: o.Limits.Ratio,
			Dir: filepath.Dir(o.Store), CheckItems: s.itemChecks(),
		},
		PageBytes: o.Callbacks.PageBytes, PageItems: o.Callbacks.PageItems, BaseURL: s.publicURL(),
		Accepting: s.accepting, Ready: func() bool { return !s.draining.Load() },
		Metrics: m.Handler(), Observe: m.Request, Logger: o.Logger,
	})
}

// publicURL returns how the world reaches this server, if that is known.
func (s *server) publicURL() string {
	if s.o.PublicURL == "" && s.o.Dev { // the world is this machine
		return "http://" + s.listener.Addr().String()
	}
	return s.o.PublicURL
}

// accepting says why no work is taken in, if none is.
func (s *server) accepting() error {
	if s.draining.Load() {
		return batch.Refuse(batch.Unavailable, "draining", "the server is stopping: try again in a moment")
	}
	return s.disk.accepting()
}

// run serves until ctx ends or something that cannot be mended fails.
func (s *server) run(ctx context.Context) error {
	// The engine stops by its own context: it drains while the API still
	// answers.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	engineDone, httpDone := make(chan error, 1), make(chan error, 1)
	go func() { engineDone <- s.engine.Run(working) }()
	go func() { httpDone <- s.http.Serve(s.listener) }()
	if s.o.Ready != nil {
		s.o.Ready(s.listener.Addr())
	}

	var failure error
	select {
	case <-ctx.Done():
		s.o.Logger.Info("stopping", "drain", s.o.Drain)
	case err := <-engineDone:
		failure = fmt.Errorf("engine: %w", err)
		engineDone <- nil
	case err := <-httpDone:
		failure = fmt.Errorf("listener: %w", err)
	}
	s.draining.Store(true)
	close(s.stopping)
	stop()
	failure = errors.Join(failure, <-engineDone)
	s.sender.Close()
	closeAll(s.o.Processors)
	return errors.Join(failure, s.hangUp(), s.store.Close())
}

// goodbye is how long clients get to read their answers at the end.
const goodbye = 5 * time.Second

// hangUp ends the API. Clients that are still reading then lose their
// connection, and know by it that the answer was not whole.
func (s *server) hangUp() error {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

// onlyLoopback refuses an address that others could reach.
func onlyLoopback(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if a, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !a.IsLoopback()) {
		return fmt.Errorf("listen: --dev needs no key, so it serves loopback only: %q is not", listen)
	}
	return nil
}
