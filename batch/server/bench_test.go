package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/process/upstream"
	"github.com/callbatch/callbatch/batch/server"
)

// The five loads. Each prints what it did beside its ceiling, measured in the
// same run:
//
//	GOGC=400 go test ./batch/server -run '^$' -bench "[A-E]$" -benchtime 1x -count 5
//
// GOGC is as the serve command sets it. A ratio says more than a rate: machines differ, and drift.

// noop gives an item back as it is.
var noop = batch.ProcessorFunc(func(_ context.Context, c batch.Call) ([]byte, error) { return c.Item, nil })

// items returns n items of about 200 bytes as NDJSON.
func items(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"sku":"A-%07d","qty":%d,"price":%d.25,"note":"%s"}`+"\n", i, i%9+1, i%500, strings.Repeat("lorem ipsum ", 12))
	}
	return b.Bytes()
}

// start runs a server for the length of a benchmark and returns its address.
func start(tb testing.TB, o server.Options) string {
	tb.Helper()
	o.Store = filepath.Join(tb.TempDir(), "callbatch.db")
	base, _ := launch(tb, o)
	return base
}

// launch runs a server over o.Store and returns its address and what stops it,
// which returns when all that was under way is on the disk. It is stopped with
// the benchmark at the latest.
func launch(tb testing.TB, o server.Options) (base string, stop func()) {
	tb.Helper()
	o.Dev = true
	return run(tb, o)
}

// run is launch for a server whose clients need keys, unless o says otherwise.
func run(tb testing.TB, o server.Options) (base string, stop func()) {
	tb.Helper()
	o.Listen = "127.0.0.1:0"
	o.Limits.MinFree, o.Limits.MinWork = 64<<20, 16<<20
	ready := make(chan net.Addr, 1)
	o.Ready = func(a net.Addr) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
	tb.Cleanup(stop)
	select {
	case a := <-ready:
		return "http://" + a.String(), stop
	case err := <-done:
		done <- nil
		tb.Fatal(err)
		return "", nil
	}
}

// submit uploads NDJSON and returns the batch's id.
func submit(tb testing.TB, c *http.Client, base, query string, body io.Reader) string {
	resp, err := c.Post(base+"/v1/batches?"+query, "application/x-ndjson", body)
	if err != nil {
		tb.Error(err)
		return ""
	}
	defer resp.Body.Close()
	var b struct{ ID, Detail string }
	if err := json.NewDecoder(resp.Body).Decode(&b); err != nil || resp.StatusCode != http.StatusAccepted {
		tb.Errorf("submit: %s, %v %s", resp.Status, err, b.Detail)
	}
	io.Copy(io.Discard, resp.Body)
	return b.ID
}

// finish waits until a batch has ended.
func finish(tb testing.TB, base, id string, items int) {
	for {
		resp, err := http.Get(base + "/v1/batches/" + id)
		if err != nil {
			tb.Error(err)
			return
		}
		var b struct {
			Status string
			Counts batch.Counts
		}
		err = json.NewDecoder(resp.Body).Decode(&b)
		resp.Body.Close()
		if err != nil || b.Status == "completed" {
			if err != nil || b.Counts.Succeeded != items {
				tb.Errorf("%v, %+v", err, b)
			}
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// BenchmarkA is 100,000 items from HTTP upload to durable result with a
// processor that does nothing. The ceiling is the same items written as raw
// blocks, read, and written as results, by bbolt alone.
func BenchmarkA(b *testing.B) {
	const n = 100_000
	body := items(n)
	base := start(b, server.Options{Processors: map[string]server.Processor{"noop": {Do: noop, Trusted: true}}})
	var road, raw time.Duration
	for range b.N {
		began := time.Now()
		finish(b, base, submit(b, http.DefaultClient, base, "processor=noop", bytes.NewReader(body)), n)
		road += time.Since(began)
		raw += rawBlocks(b, body)
	}
	b.ReportMetric(float64(n*b.N)/road.Seconds(), "items/s")
	b.ReportMetric(float64(n*b.N)/raw.Seconds(), "raw-items/s")
	b.ReportMetric(100*raw.Seconds()/road.Seconds(), "%-of-raw")
	b.ReportMetric(0, "ns/op")
}

// rawBlocks is what the disk and bbolt take for the same bytes in and out.
func rawBlocks(tb testing.TB, body []byte) time.Duration {
	db, err := bbolt.Open(filepath.Join(tb.TempDir(), "raw.db"), 0o600, &bbolt.Options{
		FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, InitialMmapSize: 1 << 30,
	})
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	began := time.Now()
	var blocks [][]byte
	for lines := bytes.SplitAfter(body, []byte("\n")); len(lines) > 0; {
		n := min(batch.BlockItems, len(lines))
		blocks = append(blocks, bytes.Join(lines[:n], nil))
		lines = lines[n:]
	}
	for _, name := range []string{"in", "out"} {
		for at := 0; at < len(blocks); {
			err := db.Update(func(tx *bbolt.Tx) error {
				bk, err := tx.CreateBucketIfNotExists([]byte(name))
				if err != nil {
					return err
				}
				bk.FillPercent = 1
				for size := 0; at < len(blocks) && size < 4<<20; at++ {
					size += len(blocks[at])
					if err := bk.Put([]byte(fmt.Sprintf("%08d", at)), blocks[at]); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				tb.Fatal(err)
			}
		}
	}
	return time.Since(began)
}

// BenchmarkB is items through a local HTTP upstream with 64 in flight. The
// ceiling is a bare client with 64 connections to the same upstream.
func BenchmarkB(b *testing.B) {
	const n, flight = 20_000, 64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"ok":true}`)
	}))
	defer up.Close()
	p, err := upstream.New(upstream.Options{URL: up.URL, Concurrency: flight})
	if err != nil {
		b.Fatal(err)
	}
	body := items(n)
	base := start(b, server.Options{Processors: map[string]server.Processor{"up": {Do: p, Kind: "http", Concurrency: flight, Trusted: true}}})
	var road, bare time.Duration
	for range b.N {
		began := time.Now()
		finish(b, base, submit(b, http.DefaultClient, base, "processor=up", bytes.NewReader(body)), n)
		road += time.Since(began)
		bare += bareLoop(b, up.URL, body, flight)
	}
	b.ReportMetric(float64(n*b.N)/road.Seconds(), "items/s")
	b.ReportMetric(float64(n*b.N)/bare.Seconds(), "bare-items/s")
	b.ReportMetric(100*bare.Seconds()/road.Seconds(), "%-of-bare")
	b.ReportMetric(0, "ns/op")
}

func bareLoop(tb testing.TB, url string, body []byte, flight int) time.Duration {
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: flight}}
	defer c.CloseIdleConnections()
	lines := make(chan []byte)
	var wg sync.WaitGroup
	began := time.Now()
	for range flight {
		wg.Go(func() {
			for line := range lines {
				resp, err := c.Post(url, "application/json", bytes.NewReader(line))
				if err != nil {
					tb.Error(err)
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	for line := range bytes.Lines(body) {
		lines <- line
	}
	close(lines)
	wg.Wait()
	return time.Since(began)
}

// BenchmarkC is one-item batches from 64 submitters, each ending in a signed
// webhook. The ceiling is a bare pair of requests a batch: a post to a server
// that only answers, and a post to the same receiver.
func BenchmarkC(b *testing.B) {
	const n, callers = 10_000, 64
	var got atomic.Int64
	arrived := make(chan struct{}, n)
	rc := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		got.Add(1)
		arrived <- struct{}{}
	}))
	defer rc.Close()
	base := start(b, server.Options{Processors: map[string]server.Processor{"noop": {Do: noop, Trusted: true}}})
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	defer c.CloseIdleConnections()
	item := items(1)
	query := "processor=noop&callback_url=" + rc.URL
	each := func(f func()) time.Duration {
		var wg sync.WaitGroup
		var left atomic.Int64
		left.Store(n)
		began := time.Now()
		for range callers {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					f()
				}
			})
		}
		for range n {
			<-arrived
		}
		wg.Wait()
		return time.Since(began)
	}
	var road, bare time.Duration
	for range b.N {
		road += each(func() { submit(b, c, base, query, bytes.NewReader(item)) })
		bare += each(func() {
			for _, url := range []string{base + "/livez", rc.URL} {
				resp, err := c.Post(url, "application/x-ndjson", bytes.NewReader(item))
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	if int(got.Load()) != 2*n*b.N {
		b.Errorf("%d webhooks for %d batches", got.Load()/2, n*b.N)
	}
	b.ReportMetric(float64(n*b.N)/road.Seconds(), "batches/s")
	b.ReportMetric(float64(n*b.N)/bare.Seconds(), "bare-pairs/s")
	b.ReportMetric(100*bare.Seconds()/road.Seconds(), "%-of-bare")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkD is one million items of 200 bytes in one upload, with the most
// anonymous memory this process had meanwhile, client included.
func BenchmarkD(b *testing.B) {
	const n = 1_000_000
	chunk := items(1000)
	idle := batch.ProcessorFunc(func(ctx context.Context, _ batch.Call) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	base := start(b, server.Options{
		Processors: map[string]server.Processor{"idle": {Do: idle, Concurrency: 1, Timeout: time.Hour}}, Drain: time.Nanosecond,
	})
	stop, peak := make(chan struct{}), make(chan int64)
	go func() { peak <- watchMemory(stop) }()
	var took time.Duration
	for range b.N {
		var parts []io.Reader
		for range n / 1000 {
			parts = append(parts, bytes.NewReader(chunk))
		}
		began := time.Now()
		submit(b, http.DefaultClient, base, "processor=idle", io.MultiReader(parts...))
		took += time.Since(began)
	}
	close(stop)
	b.ReportMetric(float64(n/1000*len(chunk)*b.N)/1e6/took.Seconds(), "MB/s")
	b.ReportMetric(float64(n*b.N)/took.Seconds(), "items/s")
	b.ReportMetric(float64(<-peak)/(1<<20), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}

// watchMemory returns the most anonymous memory seen, in bytes.
func watchMemory(stop chan struct{}) (most int64) {
	for {
		most = max(most, anonymous())
		select {
		case <-stop:
			return most
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func anonymous() int64 {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(b), "RssAnon:")
	field, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	kb, _ := strconv.ParseInt(field, 10, 64)
	return kb << 10
}

// BenchmarkE is the status of a batch, asked by one client without pause,
// while 100,000 items go the road of BenchmarkA.
func BenchmarkE(b *testing.B) {
	const n = 100_000
	body := items(n)
	base := start(b, server.Options{Processors: map[string]server.Processor{"noop": {Do: noop, Trusted: true}}})
	var all []time.Duration
	for range b.N {
		id := submit(b, http.DefaultClient, base, "processor=noop", bytes.NewReader(items(1)))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				resp, err := http.Get(base + "/v1/batches/" + id)
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				all = append(all, time.Since(began))
				time.Sleep(time.Millisecond)
			}
		})
		for range 5 {
			finish(b, base, submit(b, http.DefaultClient, base, "processor=noop", bytes.NewReader(body)), n)
		}
		close(stop)
		wg.Wait()
	}
	slices.Sort(all)
	ms := func(share float64) float64 { return all[int(float64(len(all)-1)*share)].Seconds() * 1000 }
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(float64(len(all)), "asked")
	b.ReportMetric(0, "ns/op")
}
