package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
)

// A trial is one load: it returns what was measured, by name and unit, and the
// same for people.
type trial struct {
	name string
	run  func(*stand, context.Context) (values map[string]float64, shown string, err error)
}

var trials = []trial{
	{"from upload to durable result, a processor that does nothing", (*stand).road},
	{"through an HTTP upstream on loopback, 64 in flight", (*stand).detour},
	{"batches of one item from 64 clients, each ending in a signed webhook", (*stand).singles},
	{"the same at an offered rate, from submit to received webhook", (*stand).offered},
	{"one upload of many items", (*stand).flood},
}

// errNotHere says why a load cannot be measured on the server that there is.
type errNotHere string

func (e errNotHere) Error() string { return string(e) }

// measure runs a load, within bounds of time.
func (s *stand) measure(ctx context.Context, t trial) outcome {
	ctx, cancel := context.WithTimeoutCause(ctx, benchPatience, errors.New("it took longer than "+brief(benchPatience)))
	defer cancel()
	f := outcome{Load: t.name}
	var err error
	if f.Values, f.shown, err = t.run(s, ctx); err != nil {
		f.Values, f.Skipped, f.failed = nil, err.Error(), !errors.As(err, new(errNotHere))
	}
	return f
}

// sized returns how large a load is.
func (s *stand) sized(usual, quick int) int {
	if s.quick {
		return quick
	}
	return usual
}

// median runs a load some times and returns how long it took.
func (s *stand) median(once func() (time.Duration, error)) (time.Duration, error) {
	var all []time.Duration
	for range s.sized(3, 1) {
		took, err := once()
		if err != nil {
			return 0, err
		}
		all = append(all, took)
	}
	return share(all, 0.5), nil
}

// road is items from the upload until each has its durable result.
func (s *stand) road(ctx context.Context) (map[string]float64, string, error) {
	n := s.sized(100_000, 20_000)
	took, err := s.median(func() (time.Duration, error) { return s.through(ctx, n, s.processor) })
	return rate("items", n, took, err)
}

// detour is the same through an upstream.
func (s *stand) detour(ctx context.Context) (map[string]float64, string, error) {
	if s.upstream == "" {
		return nil, "", errNotHere("what its processors ask is the server's own")
	}
	n := s.sized(20_000, 5_000)
	took, err := s.median(func() (time.Duration, error) { return s.through(ctx, n, s.upstream) })
	return rate("items", n, took, err)
}

func rate(what string, n int, took time.Duration, err error) (map[string]float64, string, error) {
	if err != nil {
		return nil, "", err
	}
	v := float64(n) / took.Seconds()
	return map[string]float64{what + "_per_second": v}, thousands(v) + " " + what + "/s", nil
}

// through is how long n items take from the upload to the last result.
func (s *stand) through(ctx context.Context, n int, processor string) (time.Duration, error) {
	begun := time.Now()
	b, err := s.client.Submit(ctx, someItems(n), client.SubmitOptions{Options: batch.Options{Processor: processor}})
	if err != nil {
		return 0, err
	}
	s.note(b)
	const pace = 5 * time.Millisecond
	for !b.Terminal() {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(pace):
		}
		if b, err = s.client.Batch(ctx, b.ID); err != nil {
			return 0, err
		}
	}
	took := time.Since(begun)
	if b.Counts.Succeeded != n && s.own {
		return 0, fmt.Errorf("the batch ended with %s", countsLine(b.Counts))
	}
	return took, nil
}

// singles are batches of one item, as fast as they are taken.
func (s *stand) singles(ctx context.Context) (map[string]float64, string, error) {
	if s.hooks == "" {
		return nil, "", errNotHere("the server is elsewhere, and does not reach a receiver here")
	}
	n := s.sized(10_000, 2_000)
	took, err := s.median(func() (time.Duration, error) {
		s.target.expect(n)
		begun := time.Now()
		err := s.crowd(ctx, n, s.single)
		if err == nil {
			err = s.target.await(ctx)
		}
		return time.Since(begun), err
	})
	return rate("batches", n, took, err)
}

// crowd does something n times, in order, as many at a time as there are
// clients.
func (s *stand) crowd(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range standFlight {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// single submits the i-th batch of one item.
func (s *stand) single(ctx context.Context, i int) error {
	b, err := s.client.Submit(ctx, bytes.NewReader(itemLine(i)), client.SubmitOptions{
		Options: batch.Options{Processor: s.processor, CallbackURL: s.hooks + s.target.path(i)},
	})
	if err == nil {
		s.note(b)
	}
	return err
}

// offered are batches of one item at a rate: how late each webhook comes after
// its batch was due to be submitted.
func (s *stand) offered(ctx context.Context) (map[string]float64, string, error) {
	if s.hooks == "" {
		return nil, "", errNotHere("the server is elsewhere, and does not reach a receiver here")
	}
	perSecond, seconds := 500, s.sized(10, 3)
	n := perSecond * seconds
	s.target.expect(n)
	begun := time.Now()
	due := func(i int) time.Time { return begun.Add(time.Duration(i) * time.Second / time.Duration(perSecond)) }
	err := s.crowd(ctx, n, func(ctx context.Context, i int) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Until(due(i))):
			return s.single(ctx, i)
		}
	})
	if err == nil {
		err = s.target.await(ctx)
	}
	if err != nil {
		return nil, "", err
	}
	late := make([]time.Duration, n)
	for i, at := range s.target.at {
		late[i] = at.Sub(due(i))
	}
	p50, p99 := milliseconds(share(late, 0.5)), milliseconds(share(late, 0.99))
	return map[string]float64{"batches_per_second": float64(perSecond), "p50_ms": p50, "p99_ms": p99},
		fmt.Sprintf("p50 %.1f ms, p99 %.1f ms at %d batches/s", p50, p99, perSecond), nil
}

// flood is one large upload, of which nothing is worked on, with the most
// memory that this process had meanwhile.
func (s *stand) flood(ctx context.Context) (map[string]float64, string, error) {
	n := s.sized(1_000_000, 100_000)
	stop, peak := make(chan struct{}), make(chan int64, 1)
	go func() { peak <- mostMemory(stop) }()
	begun := time.Now()
	b, err := s.client.Submit(ctx, someItems(n), client.SubmitOptions{
		Options: batch.Options{Processor: s.processor, NotBefore: begun.Add(24 * time.Hour).UTC()},
	})
	took := time.Since(begun)
	close(stop)
	memory := <-peak
	if err != nil {
		return nil, "", err
	}
	s.note(b)
	if _, err := s.client.Cancel(ctx, b.ID); err != nil {
		return nil, "", err
	}
	speed, bytes := float64(n)/took.Seconds(), float64(n*len(itemLine(0)))
	values := map[string]float64{"items": float64(n), "items_per_second": speed, "megabytes_per_second": bytes / 1e6 / took.Seconds()}
	shown := fmt.Sprintf("%s items: %s items/s, %.0f MB/s", thousands(float64(n)), thousands(speed), bytes/1e6/took.Seconds())
	switch {
	case !s.own:
		shown += "; memory not measured: it is another process's"
	case memory == 0:
		shown += "; memory not measured: this system does not tell"
	default:
		values["peak_memory_bytes"] = float64(memory)
		shown += fmt.Sprintf(", at most %d MiB of memory, client included", memory>>20)
	}
	return values, shown, nil
}

// itemLine is the i-th item, each of the same 200 bytes or so.
func itemLine(i int) []byte {
	return fmt.Appendf(nil, `{"sku":"A-%07d","qty":%d,"price":%d.25,"note":"%s"}`+"\n", i, i%9+1, 100+i%400, strings.Repeat("lorem ipsum ", 12))
}

// someItems returns n items as they are read.
func someItems(n int) io.Reader {
	const some = 1000
	var chunk []byte
	for i := range some {
		chunk = append(chunk, itemLine(i)...)
	}
	var all []io.Reader
	for ; n >= some; n -= some {
		all = append(all, bytes.NewReader(chunk))
	}
	return io.MultiReader(all...)
}

// mostMemory is the most anonymous memory this process has until stop, in
// bytes; 0 if the system does not tell.
func mostMemory(stop <-chan struct{}) (most int64) {
	const pace = 20 * time.Millisecond
	for {
		most = max(most, anonymous())
		select {
		case <-stop:
			return most
		case <-time.After(pace):
		}
	}
}

func anonymous() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	field, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kib, _ := strconv.ParseInt(field, 10, 64) // 0 where it does not stand
	return kib << 10
}

// share returns the duration that a share of all are not longer than.
func share(all []time.Duration, part float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(float64(len(sorted)-1)*part)]
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
