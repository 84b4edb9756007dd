package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
	"github.com/callbatch/callbatch/callback/signature"
	"github.com/callbatch/callbatch/storage"
)

// The loads of the callback. Each batch has one item and ends in one signed
// webhook; client and receiver are in this process.
//
//	go test ./batch/server -run '^$' -bench 'Callbacks|Offered500|Isolation|Backlog' -benchtime 1x -count 5

// asServe has the collector run as the serve command does, for both sides of
// a comparison alike.
func asServe(b *testing.B) {
	percent, limit := debug.SetGCPercent(400), debug.SetMemoryLimit(1<<30)
	b.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
}

// A road takes batches in and sends their webhooks.
type road struct {
	base    string
	stop    func()     // returns when all that was received is settled on the disk
	settled func() int // after stop: how many messages the disk says were delivered
}

// callbatch is the road of this repository.
func callbatch(b *testing.B, o server.Options) road {
	o.Store = filepath.Join(b.TempDir(), "callbatch.db")
	o.Processors = map[string]server.Processor{"noop": {Do: noop, Trusted: true}}
	base, stop := launch(b, o)
	return road{base, stop, func() (n int) {
		s, err := storage.Open(context.Background(), o.Store, storage.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		q := batch.BatchQuery{Limit: 1000}
		for more := true; more; more = q.Before != nil {
			list, next, err := s.Batches(context.Background(), q)
			if err != nil {
				b.Fatal(err)
			}
			for _, of := range list {
				n += of.Messages.Delivered
			}
			q.Before = next
		}
		return n
	}}
}

// bare is the least that can keep the promises of the road: what comes in is
// on the disk before it is acknowledged, an attempt before it begins, and its
// end after. The three share syncs with whatever else waits for one. Answers
// and webhooks are as large as ours, and as signed.
type bare struct {
	db      *bbolt.DB
	last    atomic.Uint64
	writes  chan write
	slots   chan struct{} // as many as we send at a time to one host
	sends   sync.WaitGroup
	receive *http.Transport
	secret  signature.Secret
	answer  []byte
	webhook []byte
	fail    func(...any)
}

type write struct {
	bucket, key, value []byte
	done               chan error
}

var received, sending, settled = []byte("received"), []byte("sending"), []byte("settled")

// bareRoad is the road of a bare server.
func bareRoad(b *testing.B, answer, webhook []byte) road {
	const perHost = 64
	path := filepath.Join(b.TempDir(), "bare.db")
	s := &bare{
		db: openBare(b, path), writes: make(chan write, 512), slots: make(chan struct{}, perHost),
		receive: &http.Transport{MaxIdleConnsPerHost: perHost, DisableCompression: true, ResponseHeaderTimeout: 15 * time.Second},
		secret:  signature.NewSecret(), answer: answer, webhook: webhook, fail: b.Error,
	}
	var committer sync.WaitGroup
	committer.Go(s.commit)
	front := httptest.NewServer(s)
	stop := sync.OnceFunc(func() {
		front.Close()
		s.sends.Wait()
		s.receive.CloseIdleConnections()
		close(s.writes)
		committer.Wait()
		if err := s.db.Close(); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(stop)
	return road{front.URL, stop, func() (n int) {
		db := openBare(b, path)
		defer db.Close()
		db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(settled).ForEach(func(_, _ []byte) error { n++; return nil })
		})
		return n
	}}
}

// openBare opens a file with the options of storage/bolt.
func openBare(b *testing.B, path string) *bbolt.DB {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, NoStatistics: true, InitialMmapSize: 1 << 30,
	})
	if err != nil {
		b.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{received, sending, settled} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return db
}

// commit makes one transaction of all that waits for one.
func (s *bare) commit() {
	for w := range s.writes {
		group := []write{w}
		for range len(s.writes) {
			group = append(group, <-s.writes)
		}
		err := s.db.Update(func(tx *bbolt.Tx) error {
			for _, w := range group {
				to := tx.Bucket(w.bucket)
				to.FillPercent = 0.9 // keys come in order
				if err := to.Put(w.key, w.value); err != nil {
					return err
				}
			}
			return nil
		})
		for _, w := range group {
			w.done <- err
		}
	}
}

func (s *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	item, err := io.ReadAll(r.Body)
	if err != nil {
		s.fail(err)
	}
	key, done := binary.BigEndian.AppendUint64(nil, s.last.Add(1)), make(chan error, 1)
	s.keep(received, key, item, done)
	url := r.URL.Query().Get("callback_url")
	s.sends.Go(func() { s.deliver(url, key, done) })
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	w.Write(s.answer)
}

// keep returns when a value is on the disk.
func (s *bare) keep(bucket, key, value []byte, done chan error) {
	s.writes <- write{bucket, key, value, done}
	if err := <-done; err != nil {
		s.fail(err)
	}
}

func (s *bare) deliver(url string, key []byte, done chan error) {
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	s.keep(sending, key, s.webhook, done)
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(s.webhook))
	if err != nil {
		s.fail(err)
		return
	}
	id, now := fmt.Sprintf("msg_%026x", key), time.Now()
	req.Header = http.Header{
		"User-Agent": {"bare"}, "Content-Type": {"application/json"},
		"Content-Digest": {signature.ContentDigest(s.webhook)}, "Callbatch-Attempt": {"1"},
		"Webhook-Id": {id}, "Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)},
		"Webhook-Signature": {signature.Sign(id, now, s.webhook, s.secret)},
	}
	resp, err := s.receive.RoundTrip(req)
	if err != nil {
		s.fail(err)
		return
	}
	resp.Body.Close()
	s.keep(settled, key, []byte(resp.Status), done)
}

// sides are the two roads of a comparison. The bare one answers and sends as
// many bytes as the other did for one batch.
func sides(b *testing.B) (ours, least func() road) {
	got := make(chan []byte, 1)
	rc := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- body
	}))
	defer rc.Close()
	r := callbatch(b, server.Options{})
	resp, err := http.Post(r.base+"/v1/batches?processor=noop&callback_url="+rc.URL, "application/x-ndjson", bytes.NewReader(items(1)))
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		b.Fatal(resp.Status, err)
	}
	webhook := <-got
	r.stop()
	return func() road { return callbatch(b, server.Options{}) }, func() road { return bareRoad(b, answer, webhook) }
}

// A receiver acknowledges all and notes when the webhook of each batch came.
// Batches are numbered; the number is the path of their callback URL.
type receiver struct {
	*httptest.Server
	came []atomic.Int64 // nanoseconds since began, at least 1; 0: not yet
	got  atomic.Int64   // batches whose webhook came

	takes      time.Duration // time to answer
	busy, most atomic.Int64  // requests in flight: now, and at once
	began      time.Time
}

// newReceiver returns a receiver of n batches, to be started.
func newReceiver(b *testing.B, n int) *receiver {
	rc := &receiver{came: make([]atomic.Int64, n), began: time.Now()}
	rc.Server = httptest.NewUnstartedServer(rc)
	b.Cleanup(rc.Close)
	return rc
}

func startedReceiver(b *testing.B, n int) *receiver {
	rc := newReceiver(b, n)
	rc.Start()
	return rc
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := rc.busy.Add(1)
	defer rc.busy.Add(-1)
	for most := rc.most.Load(); now > most && !rc.most.CompareAndSwap(most, now); most = rc.most.Load() {
	}
	i, err := strconv.Atoi(r.URL.Path[1:])
	if err == nil && rc.came[i].CompareAndSwap(0, max(1, int64(time.Since(rc.began)))) {
		rc.got.Add(1)
	}
	io.Copy(io.Discard, r.Body)
	time.Sleep(rc.takes)
	w.WriteHeader(http.StatusNoContent)
}

// await waits until the webhooks of n batches came. It gives up when none
// came for longer than any breaker of ours has reason to stay open here.
func (rc *receiver) await(b *testing.B, n int) {
	b.Helper()
	for seen, since := int64(0), time.Now(); int(rc.got.Load()) < n; time.Sleep(time.Millisecond) {
		if got := rc.got.Load(); got > seen {
			seen, since = got, time.Now()
		}
		if time.Since(since) > 2*time.Minute {
			b.Fatalf("%d webhooks of %d came", seen, n)
		}
	}
}

// at returns when the webhook of batch i came.
func (rc *receiver) at(i int) time.Time { return rc.began.Add(time.Duration(rc.came[i].Load())) }

// A client posts one-item batches.
type client struct {
	http.Client
	b    *testing.B
	item []byte
}

func newClient(b *testing.B) *client {
	c := &client{b: b, item: items(1)}
	c.Transport = &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024}
	b.Cleanup(c.CloseIdleConnections)
	return c
}

// post submits a batch whose webhook goes to callback.
func (c *client) post(base, callback string) {
	resp, err := c.Post(base+"/v1/batches?processor=noop&callback_url="+callback, "application/x-ndjson", bytes.NewReader(c.item))
	if err != nil {
		c.b.Error(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		c.b.Errorf("submit: %s, %v %s", resp.Status, err, body)
	}
}

// share has callers do what is numbered from one number to below another.
func share(callers, from, to int, do func(i int)) {
	var next atomic.Int64
	next.Store(int64(from))
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < to; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	all.Wait()
}

// An offer is a load of so many a second, each at its time, however the ones
// before it fare.
type offer struct {
	began time.Time
	rate  int
}

// at is when number i is due.
func (o offer) at(i int) time.Time {
	return o.began.Add(time.Duration(i) * time.Second / time.Duration(o.rate))
}

// run does n, or as many as are due before ctx ends, and waits for them.
func (o offer) run(ctx context.Context, n int, do func(i int)) {
	var all sync.WaitGroup
	for i := 0; i < n && ctx.Err() == nil; i++ {
		time.Sleep(time.Until(o.at(i)))
		all.Go(func() { do(i) })
	}
	all.Wait()
}

// spread returns how late a share of all was, in milliseconds.
func spread(all []time.Duration, share float64) float64 {
	slices.Sort(all)
	return all[int(float64(len(all)-1)*share)].Seconds() * 1000
}

// BenchmarkCallbacks is batches from 64 submitters: submitted, received and
// settled, with the ratio to what the bare server does.
func BenchmarkCallbacks(b *testing.B) {
	asServe(b)
	ours, least := sides(b)
	const n = 10_000
	for _, of := range []struct {
		name        string
		ours, least bool
	}{{"callbatch", true, false}, {"bare", false, true}, {"side by side", true, true}} {
		b.Run(of.name, func(b *testing.B) {
			var road, bare time.Duration
			for range b.N {
				if of.ours {
					road += callbacks(b, ours(), n)
				}
				if of.least {
					bare += callbacks(b, least(), n)
				}
			}
			if of.ours {
				b.ReportMetric(float64(n*b.N)/road.Seconds(), "batches/s")
			}
			if of.least {
				b.ReportMetric(float64(n*b.N)/bare.Seconds(), "bare-batches/s")
			}
			if of.ours && of.least {
				b.ReportMetric(bare.Seconds()/road.Seconds(), "ratio")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// callbacks returns what a road takes for n batches, once it is warm.
func callbacks(b *testing.B, r road, n int) time.Duration {
	const submitters, warm = 64, 1000
	c, rc := newClient(b), startedReceiver(b, warm+n)
	do := func(i int) { c.post(r.base, rc.URL+"/"+strconv.Itoa(i)) }
	share(submitters, 0, warm, do)
	rc.await(b, warm)
	runtime.GC()
	began := time.Now()
	share(submitters, warm, warm+n, do)
	rc.await(b, warm+n)
	c.CloseIdleConnections() // a stop waits for those that never had a request
	r.stop()
	took := time.Since(began)
	if got := r.settled(); got != warm+n {
		b.Errorf("%d messages are settled, not %d", got, warm+n)
	}
	return took
}

// BenchmarkOffered500 is 500 batches a second for 10 s: the time from when a
// batch was to be submitted until its webhook came.
func BenchmarkOffered500(b *testing.B) {
	asServe(b)
	ours, least := sides(b)
	var late, bareLate []time.Duration
	for range b.N {
		late = append(late, offered(b, ours(), 500, 5000)...)
		bareLate = append(bareLate, offered(b, least(), 500, 5000)...)
	}
	for _, of := range []struct {
		name  string
		share float64
	}{{"p50-ms", 0.5}, {"p90-ms", 0.9}, {"p99-ms", 0.99}, {"max-ms", 1}} {
		b.ReportMetric(spread(late, of.share), of.name)
		b.ReportMetric(spread(bareLate, of.share), "bare-"+of.name)
	}
	b.ReportMetric(0, "ns/op")
}

// offered returns how late each of n webhooks was, once the road is warm.
func offered(b *testing.B, r road, rate, n int) []time.Duration {
	const warm = 500
	c, rc := newClient(b), startedReceiver(b, warm+n)
	defer r.stop()
	offer{time.Now(), rate}.run(b.Context(), warm, func(i int) { c.post(r.base, rc.URL+"/"+strconv.Itoa(i)) })
	rc.await(b, warm)
	return healthy(b, c, r, rc, rate, warm, n)
}

// healthy offers n batches, numbered from first on, to a receiver that has had
// all before, and returns how late each webhook was.
func healthy(b *testing.B, c *client, r road, rc *receiver, rate, first, n int) []time.Duration {
	o := offer{time.Now(), rate}
	o.run(b.Context(), n, func(i int) { c.post(r.base, rc.URL+"/"+strconv.Itoa(first+i)) })
	rc.await(b, first+n)
	late := make([]time.Duration, n)
	for i := range late {
		late[i] = rc.at(first + i).Sub(o.at(i))
	}
	return late
}

// BenchmarkIsolation is a healthy receiver of 100 batches a second: alone,
// beside 100 hosts that are dead, and again when it is known that they are.
// Each dead host has 20 messages at once and 5 more a second.
func BenchmarkIsolation(b *testing.B) {
	const rate, n, each, eachSecond = 100, 500, 20, 5
	asServe(b)
	var alone, beside, later []time.Duration
	for range b.N {
		dead := append(refusing(b, 50), blackHoles(b, 50)...)
		r := callbatch(b, server.Options{Drain: time.Second})
		c, rc := newClient(b), startedReceiver(b, 4*n)
		healthy(b, c, r, rc, rate, 0, n) // to warm it
		alone = append(alone, healthy(b, c, r, rc, rate, n, n)...)

		share(64, 0, each*len(dead), func(i int) { c.post(r.base, dead[i%len(dead)]) })
		ctx, cancel := context.WithCancel(b.Context())
		var stream sync.WaitGroup
		stream.Go(func() {
			const endless = 1 << 30
			offer{time.Now(), eachSecond * len(dead)}.run(ctx, endless, func(i int) { c.post(r.base, dead[i%len(dead)]) })
		})
		beside = append(beside, healthy(b, c, r, rc, rate, 2*n, n)...)
		time.Sleep(30 * time.Second) // the breakers have opened
		later = append(later, healthy(b, c, r, rc, rate, 3*n, n)...)
		cancel()
		stream.Wait()
		r.stop()
	}
	for _, of := range []struct {
		name string
		late []time.Duration
	}{{"alone", alone}, {"beside", beside}, {"later", later}} {
		b.ReportMetric(spread(of.late, 0.5), of.name+"-p50-ms")
		b.ReportMetric(spread(of.late, 0.99), of.name+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// refusing returns callback URLs of n hosts where nobody listens.
func refusing(b *testing.B, n int) (urls []string) {
	for i := range n {
		urls = append(urls, "http://"+closedPort(b, fmt.Sprintf("127.0.0.%d", 2+i))+"/")
	}
	return urls
}

// closedPort returns an address of a host where nobody listens.
func closedPort(b *testing.B, host string) string {
	l := listen(b, host+":0")
	defer l.Close()
	return l.Addr().String()
}

// blackHoles returns callback URLs of n hosts that take connections and never
// answer.
func blackHoles(b *testing.B, n int) (urls []string) {
	var all sync.WaitGroup
	b.Cleanup(all.Wait) // after those below
	for i := range n {
		l := listen(b, fmt.Sprintf("127.0.1.%d:0", 1+i))
		b.Cleanup(func() { l.Close() })
		all.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
			}
		})
		urls = append(urls, "http://"+l.Addr().String()+"/")
	}
	return urls
}

func listen(b *testing.B, address string) net.Listener {
	l, err := net.Listen("tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	return l
}

// BenchmarkBacklog is 20,000 batches whose receiver was down for all of their
// first attempts: the time from its return until it had them all, with the
// most requests it had at once and the most anonymous memory of this process
// meanwhile, client and receiver included.
func BenchmarkBacklog(b *testing.B) {
	const n, submitters, outage = 20_000, 64, 5 * time.Second
	asServe(b)
	steps := append([]time.Duration{0, 2 * time.Second}, slices.Repeat([]time.Duration{5 * time.Second}, 100)...)
	var first, all time.Duration
	var most, peak int64
	for range b.N {
		r := callbatch(b, server.Options{Callbacks: server.Callbacks{Schedule: steps}})
		c, rc := newClient(b), newReceiver(b, n)
		rc.takes = 2 * time.Millisecond
		rc.Listener.Close()
		address := closedPort(b, "127.0.2.1")
		stop, memory := make(chan struct{}), make(chan int64)
		go func() { memory <- watchMemory(stop) }()

		share(submitters, 0, n, func(i int) { c.post(r.base, "http://"+address+"/"+strconv.Itoa(i)) })
		time.Sleep(outage)
		rc.Listener = listen(b, address)
		back := time.Now()
		rc.Start()
		rc.await(b, 1)
		first += time.Since(back)
		rc.await(b, n)
		all += time.Since(back)
		most = max(most, rc.most.Load())
		close(stop)
		peak = max(peak, <-memory)
		r.stop()
		if got := r.settled(); got != n {
			b.Errorf("%d messages are delivered, not %d", got, n)
		}
	}
	b.ReportMetric(first.Seconds()/float64(b.N), "first-s")
	b.ReportMetric(all.Seconds()/float64(b.N), "all-s")
	b.ReportMetric(float64(n*b.N)/(all-first).Seconds(), "deliveries/s")
	b.ReportMetric(float64(most), "most-at-once")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
	b.ReportMetric(0, "ns/op")
}
