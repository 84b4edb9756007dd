package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
	"github.com/callbatch/callbatch/batch/process/jq"
	"github.com/callbatch/callbatch/batch/server"
	"github.com/callbatch/callbatch/callback/signature"
	"github.com/callbatch/callbatch/testdata"
)

func newDemo(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See all of it work, in one command",
		Long: `Start a server, with a store of its own in a temporary folder, and a receiver
that fails at first. Submit 312 time zones, show how they are worked on, how the
signed webhooks arrive and what is in them. The server then goes on for you to
try, until Ctrl-C.`,
		Args: exactly(),
	}
	exit := cmd.Flags().Bool("exit", false, "end when all has arrived; exit 1 if anything was not as it should be")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runDemo(cmd.Context(), w, *exit)
	}
	return cmd
}

// A demo is the stage and its actors.
type demo struct {
	screen   *screen
	url      string // of the server
	hooks    string // of the receiver
	client   *client.Client
	receiver *receiver
	audience *audience
	down     chan error    // gets what the server ended with
	ended    chan struct{} // closed when the batch's last word was acknowledged
}

// Of a demo: how long it waits for what takes a few seconds, how fast its
// processor may be so that there is something to see, and how many results a
// message has so that there are several.
const (
	demoPatience = time.Minute
	demoRate     = 150
	demoPage     = 64
)

func runDemo(ctx context.Context, w *world, exit bool) (err error) {
	dir, err := os.MkdirTemp("", "callbatch-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	d := &demo{screen: newScreen(w), down: make(chan error, 1), ended: make(chan struct{})}
	d.audience = &audience{seen: d.arrived}
	d.receiver = &receiver{answer: d.audience.answer}
	hooks, err := d.receiver.listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hooks.stop()) }()
	d.hooks = hooks.url()
	stop, err := d.serve(ctx, filepath.Join(dir, "demo.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	id, err := d.play(ctx)
	if err != nil || exit {
		return err
	}
	d.screen.encore(d.url, d.hooks, id)
	select {
	case <-ctx.Done():
	case err := <-d.down:
		d.down <- err // for stop
	}
	return nil
}

// serve starts a server as `callbatch serve --dev` would. It returns how to
// stop it, which waits.
func (d *demo) serve(ctx context.Context, store string) (stop func() error, err error) {
	degrees, err := jq.New(testdata.Degrees, jq.Options{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ready := make(chan net.Addr, 1)
	go func() {
		d.down <- server.Run(ctx, server.Options{
			Listen: "127.0.0.1:0", Store: store, Dev: true, Version: readBuild().Version,
			Processors:       map[string]server.Processor{"degrees": {Do: degrees, Kind: "jq", Rate: demoRate}},
			DefaultProcessor: "degrees",
			Limits:           server.Limits{MinFree: 16 << 20, MinWork: 16 << 20},
			Callbacks:        server.Callbacks{Schedule: []time.Duration{0, time.Second, 2 * time.Second}},
			Ready:            func(a net.Addr) { ready <- a },
		})
	}()
	stop = func() error { cancel(); return <-d.down }
	select {
	case a := <-ready:
		d.url = "http://" + a.String()
	case err := <-d.down:
		cancel()
		return nil, fmt.Errorf("start the server: %w", err)
	}
	if d.client, err = dial(d.url, ""); err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// play is the demo itself, from the submission to the judgement.
func (d *demo) play(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, demoPatience, errWaited)
	defer cancel()
	if err := d.shareSecret(ctx); err != nil {
		return "", err
	}
	d.screen.open(d.url, d.hooks)
	b, err := d.client.Submit(ctx, bytes.NewReader(testdata.Timezones), client.SubmitOptions{
		Options: batch.Options{CallbackURL: d.hooks, CallbackPageItems: demoPage, IDField: "/tz"},
	})
	if err != nil {
		return "", fmt.Errorf("submit: %w", err)
	}
	d.screen.accepted(b)
	if b, err = d.poll(ctx, b.ID, client.Batch.Terminal); err != nil {
		return "", fmt.Errorf("follow the batch: %w", err)
	}
	select {
	case <-d.ended:
	case <-ctx.Done():
		return b.ID, fmt.Errorf("wait for the webhooks: %w", context.Cause(ctx))
	}
	return b.ID, d.judge(ctx, b.ID)
}

// judge reads everything from the API and holds it against what arrived.
func (d *demo) judge(ctx context.Context, id string) error {
	b, err := d.poll(ctx, id, func(b client.Batch) bool { return b.Callback.Status != "delivering" })
	if err != nil {
		return fmt.Errorf("read the batch: %w", err)
	}
	results, err := d.results(ctx, id)
	if err != nil {
		return fmt.Errorf("read the results: %w", err)
	}
	d.screen.results(results)
	a := audit{arrivals: d.audience.all(), batch: b, results: results}
	wrong := a.run()
	d.screen.judgement(a, wrong)
	if len(wrong) > 0 {
		return quiet{errors.New("not everything arrived as it should")}
	}
	return nil
}

// shareSecret gives the receiver what it verifies signatures with.
func (d *demo) shareSecret(ctx context.Context) error {
	text, err := d.client.Secret(ctx)
	if err != nil {
		return fmt.Errorf("read the signing secret: %w", err)
	}
	secret, err := signature.ParseSecret(text)
	d.receiver.secrets = []signature.Secret{secret}
	return err
}

// arrived shows a webhook and waits for the last.
func (d *demo) arrived(a arrival) {
	d.screen.webhook(a)
	last := a.Bad == nil && a.acknowledged() && a.Event.Type != batch.TypeResults
	select {
	case <-d.ended:
	default:
		if last {
			close(d.ended)
		}
	}
}

// poll shows how far the batch is until it is as wanted. It asks more often
// than a client should: there is a person watching.
func (d *demo) poll(ctx context.Context, id string, wanted func(client.Batch) bool) (client.Batch, error) {
	const pace = 50 * time.Millisecond
	for {
		b, err := d.client.Batch(ctx, id)
		if err != nil {
			return b, err
		}
		d.screen.progress(b)
		if wanted(b) {
			return b, nil
		}
		select {
		case <-ctx.Done():
			return b, context.Cause(ctx)
		case <-time.After(pace):
		}
	}
}

// results reads all results from the API.
func (d *demo) results(ctx context.Context, id string) ([]client.Result, error) {
	stream, err := d.client.Results(ctx, id, client.ResultOptions{})
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var all []client.Result
	for r, err := range stream.All() {
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}
