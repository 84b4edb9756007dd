package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/access"
	"github.com/callbatch/callbatch/batch/server"
	"github.com/callbatch/callbatch/storage"
)

// BenchmarkFairness is batches of 1,000,000 items, each run alone and then
// beside one-item batches of another tenant, 250 a second: how late each of
// these ends, and what share of its speed the large one keeps, from its
// acceptance to its end and with its upload. There are a thousand small ones
// with -benchtime 4x or so.
//
//	go test ./batch/server -run '^$' -bench Fairness -benchtime 4x
func BenchmarkFairness(b *testing.B) {
	const large, rate = 1_000_000, 250
	asServe(b)
	o := server.Options{
		Store:        filepath.Join(b.TempDir(), "callbatch.db"),
		AdminKeyFile: filepath.Join(b.TempDir(), "key"),
		Processors:   map[string]server.Processor{"noop": {Do: noop, Trusted: true}},
	}
	heavy, light := tenantsOf(b, o.Store)
	base, _ := run(b, o)
	body, one := items(large), items(1)
	var alone, beside, work, workBeside time.Duration
	var late []time.Duration
	for range b.N {
		whole, part := heavy.runs(b, base, body, large)
		alone, work = alone+whole, work+part

		ctx, cancel := context.WithCancel(b.Context())
		var mu sync.Mutex
		var small sync.WaitGroup
		small.Go(func() {
			const endless = 1 << 30
			of := offer{time.Now(), rate}
			of.run(ctx, endless, func(i int) {
				light.runs(b, base, one, 1)
				mu.Lock()
				defer mu.Unlock()
				late = append(late, time.Since(of.at(i)))
			})
		})
		whole, part = heavy.runs(b, base, body, large)
		beside, workBeside = beside+whole, workBeside+part
		cancel()
		small.Wait()
	}
	b.ReportMetric(float64(len(late)), "small-batches")
	b.ReportMetric(spread(late, 0.5), "small-p50-ms")
	b.ReportMetric(spread(late, 0.99), "small-p99-ms")
	b.ReportMetric(float64(large*b.N)/work.Seconds(), "alone-items/s")
	b.ReportMetric(100*work.Seconds()/workBeside.Seconds(), "%-kept")
	b.ReportMetric(100*alone.Seconds()/beside.Seconds(), "%-kept-with-upload")
	b.ReportMetric(0, "ns/op")
}

// A keyed client asks with a key of a tenant.
type keyed struct{ http.Client }

type bearer struct {
	key string
	http.RoundTripper
}

func (t bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+t.key)
	return t.RoundTripper.RoundTrip(r)
}

// tenantsOf makes a store with two tenants.
func tenantsOf(b *testing.B, path string) (*keyed, *keyed) {
	s, err := storage.Open(b.Context(), path, storage.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var clients [2]*keyed
	for i := range clients {
		key := access.NewKey()
		err := s.AddKey(b.Context(), batch.Key{
			ID: batch.NewKeyID(time.Now()), Tenant: batch.TenantID{byte(i + 1)}, Name: "bench", Hash: access.Hash(key),
			Scopes: []string{string(access.Admin)}, Created: time.Now().UTC(),
		}, false)
		if err != nil {
			b.Fatal(err)
		}
		tr := &http.Transport{MaxIdleConnsPerHost: 1024}
		b.Cleanup(tr.CloseIdleConnections)
		clients[i] = &keyed{http.Client{Transport: bearer{key, tr}}}
	}
	return clients[0], clients[1]
}

// runs submits a batch and returns how long it took to its end from then, and
// from its acceptance.
func (c *keyed) runs(b *testing.B, base string, body []byte, items int) (whole, work time.Duration) {
	began := time.Now()
	id := submit(b, &c.Client, base, "processor=noop", bytes.NewReader(body))
	accepted := time.Now()
	for {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, base+"/v1/batches/"+id, nil)
		if err != nil {
			b.Error(err)
			return 0, 0
		}
		req.Header.Set("Prefer", "wait=60")
		resp, err := c.Do(req)
		if err != nil {
			b.Error(err)
			return 0, 0
		}
		var of struct {
			Status string
			Counts batch.Counts
		}
		err = json.NewDecoder(resp.Body).Decode(&of)
		resp.Body.Close()
		switch {
		case err != nil || of.Status == "completed" && of.Counts.Succeeded != items:
			b.Errorf("%v, %+v", err, of)
			return 0, 0
		case of.Status == "completed":
			return time.Since(began), time.Since(accepted)
		}
	}
}
