package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
	"github.com/callbatch/callbatch/batch/process/upstream"
	"github.com/callbatch/callbatch/batch/server"
	"github.com/callbatch/callbatch/callback/signature"
)

// A stand is a server to be measured, with what belongs around it.
type stand struct {
	url       string // of the server
	client    *client.Client
	processor string // that does nothing, of a server of our own; empty: the server's default
	upstream  string // processor that asks the upstream; empty: there is none
	hooks     string // where our receiver is, with its own addresses below; empty: the server does not reach us
	target    *target
	own       bool // the server is in this process
	quick     bool
	undo      []func() error

	mu   sync.Mutex
	made []string // batches, of a server that is not ours
}

// The processors of a stand with a server of its own, and how many items or
// clients are under way at a time.
const (
	standNothing  = "bench-nothing"
	standUpstream = "bench-upstream"
	standFlight   = 64
)

// close undoes all that was done, the last first.
func (s *stand) close() (err error) {
	for _, undo := range slices.Backward(s.undo) {
		err = errors.Join(err, undo())
	}
	return err
}

// reach measures a server that runs.
func (b *bench) reach(ctx context.Context, w *world) (_ *stand, err error) {
	s := &stand{processor: b.processor, quick: b.quick}
	if err = s.connect(b.url, w.getenv(envPrefix+"KEY")); err != nil {
		return nil, usagef("--url: %w", err)
	}
	if _, err := s.client.Processors(ctx); err != nil { // one that is not there is told at once
		return nil, errors.Join(err, s.close())
	}
	s.undo = append(s.undo, s.forget)
	if isHere(b.url) {
		if err := s.receive(); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// embed starts a server with the settings that serve would take.
func (b *bench) embed(ctx context.Context, w *world, f *pflag.FlagSet, r *report) (_ *stand, err error) {
	set, err := loadSettings(w, f)
	if err != nil {
		return nil, err
	}
	s := &stand{processor: standNothing, upstream: standUpstream, own: true, quick: b.quick}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	o := set.options()
	dir, err := os.MkdirTemp(filepath.Dir(o.WithDefaults().Store), "callbatch-bench-")
	if err != nil {
		return nil, fmt.Errorf("a folder beside the store: %w", err)
	}
	s.undo = append(s.undo, func() error { return os.RemoveAll(dir) })
	if r.Store, err = filepath.Abs(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if r.SyncMS, err = syncTime(dir); err != nil {
		return nil, err
	}
	if err := s.receive(); err != nil {
		return nil, err
	}
	up, err := listen("127.0.0.1:0", http.HandlerFunc(answerUpstream))
	if err != nil {
		return nil, err
	}
	s.undo = append(s.undo, up.stop)
	ask, err := upstream.New(upstream.Options{URL: up.url(), Concurrency: standFlight, Version: readBuild().Version})
	if err != nil {
		return nil, err
	}
	o.Listen, o.Store, o.Dev, o.PublicURL, o.DefaultProcessor = "127.0.0.1:0", filepath.Join(dir, "bench.db"), true, "", ""
	o.Version, o.Drain = readBuild().Version, time.Second
	o.Processors = map[string]server.Processor{
		standNothing: {
			Do:      batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) { return c.Item, nil }),
			Trusted: true,
		},
		standUpstream: {Do: ask, Kind: "http", Concurrency: standFlight, Trusted: true},
	}
	w.trade()
	return s, s.serve(ctx, o)
}

// serve starts the server of a stand.
func (s *stand) serve(ctx context.Context, o server.Options) error {
	ctx, cancel := context.WithCancel(ctx)
	ready, down := make(chan net.Addr, 1), make(chan error, 1)
	o.Ready = func(a net.Addr) { ready <- a }
	go func() { down <- server.Run(ctx, o) }()
	s.undo = append(s.undo, func() error { cancel(); return <-down })
	select {
	case a := <-ready:
		return s.connect("http://"+a.String(), "")
	case err := <-down:
		down <- nil
		return fmt.Errorf("start the server: %w", err)
	}
}

// connect makes the client, which keeps a connection for each caller.
func (s *stand) connect(url, key string) (err error) {
	s.url = url
	transport := &http.Transport{MaxIdleConnsPerHost: standFlight}
	s.client, err = client.New(client.Options{
		URL: url, Key: key, UserAgent: "callbatch/" + readBuild().Version, HTTP: &http.Client{Transport: transport},
	})
	s.undo = append(s.undo, func() error { transport.CloseIdleConnections(); return nil })
	return err
}

// receive starts the receiver.
func (s *stand) receive() error {
	s.target = &target{}
	l, err := listen("127.0.0.1:0", s.target)
	if err != nil {
		return err
	}
	s.hooks = l.url()
	s.undo = append(s.undo, l.stop)
	return nil
}

// note takes note of a batch that is to be deleted at the end.
func (s *stand) note(b client.Batch) {
	if s.own {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = append(s.made, b.ID)
}

// forget deletes what was made on a server that is not ours.
func (s *stand) forget() error {
	ctx, cancel := context.WithTimeout(context.Background(), benchPatience)
	defer cancel()
	var gone atomic.Int64
	err := s.crowd(ctx, len(s.made), func(ctx context.Context, i int) error {
		_, _ = s.client.Cancel(ctx, s.made[i]) // most have ended
		if s.client.Delete(ctx, s.made[i], true) == nil {
			gone.Add(1)
		}
		return nil
	})
	if left := len(s.made) - int(gone.Load()); left > 0 {
		err = errors.Join(err, fmt.Errorf("%d batches are left on the server: it did not delete them", left))
	}
	return err
}

func answerUpstream(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // the client's trouble
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"ok":true}`)
}

// A target receives webhooks, each at an address of its own, and takes the
// time of each. expect makes it ready for another run.
type target struct {
	mu       sync.Mutex
	run      int
	at       []time.Time
	left     int
	unsigned int
	done     chan struct{} // closed when all have come
}

// expect readies t for n webhooks, which come at path(0) and so on.
func (t *target) expect(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run++
	t.at, t.left, t.unsigned, t.done = make([]time.Time, n), n, 0, make(chan struct{})
}

// path is where the i-th webhook of this run comes, below the receiver's own.
func (t *target) path(i int) string { return fmt.Sprintf("/%d/%d", t.run, i) }

func (t *target) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	_, _ = io.Copy(io.Discard, r.Body) // what is in it was made elsewhere
	w.WriteHeader(http.StatusNoContent)
	t.mu.Lock()
	defer t.mu.Unlock()
	rest, ours := strings.CutPrefix(r.URL.Path, fmt.Sprintf("/hooks/%d/", t.run))
	n, err := strconv.Atoi(rest)
	if !ours || err != nil || n < 0 || n >= len(t.at) || !t.at[n].IsZero() {
		return // of a run that was given up, or here again
	}
	if r.Header.Get(signature.HeaderSignature) == "" {
		t.unsigned++
	}
	t.at[n] = now
	if t.left--; t.left == 0 {
		close(t.done)
	}
}

// await waits for all that is expected.
func (t *target) await(ctx context.Context) error {
	select {
	case <-t.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unsigned > 0 {
		return fmt.Errorf("%d webhooks were not signed", t.unsigned)
	}
	return nil
}

// syncTime is how long, in milliseconds, a small write takes to be on the disk
// that dir is on: the median of some.
func syncTime(dir string) (float64, error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	const times, bytes = 50, 4096
	var all []time.Duration
	for range times {
		begun := time.Now()
		if _, err := f.Write(make([]byte, bytes)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(begun))
	}
	return milliseconds(share(all, 0.5)), nil
}
