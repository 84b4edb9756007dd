package callback_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/callbatch/callbatch/callback"
)

// BenchmarkSend measures attempts over open connections to a receiver on this
// machine, beside the least net/http can do.
//
//	go test -bench Send -run ^$ ./callback
func BenchmarkSend(b *testing.B) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer receiver.Close()
	m := message(receiver.URL + "/hooks")

	b.Run("callback", func(b *testing.B) {
		s := sender(b, callback.Options{})
		measure(b, func() bool { return s.Send(b.Context(), m).Verdict == callback.Delivered })
	})
	b.Run("bare", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		defer client.CloseIdleConnections()
		measure(b, func() bool {
			res, err := client.Post(m.URL, "application/json", bytes.NewReader(m.Body))
			if err != nil {
				return false
			}
			defer res.Body.Close()
			io.Copy(io.Discard, res.Body)
			return res.StatusCode == http.StatusNoContent
		})
	})
}

func measure(b *testing.B, send func() bool) {
	b.ReportAllocs()
	b.SetParallelism(16) // for each core
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !send() {
				b.Error("not delivered")
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sends/s")
}
