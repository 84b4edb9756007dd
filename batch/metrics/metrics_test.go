package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

func TestMetrics(t *testing.T) {
	m := New("1.2.3")
	m.Request("/v1/batches/{id}", "GET", 200, 3*time.Millisecond)
	m.Items("price", "succeeded", 3, time.Millisecond)
	m.Items("price", "pending", 2, time.Second)
	m.Recorded(4, time.Millisecond)
	m.Attempt("timeout", 15*time.Second)
	m.Gauge("items_in_flight", "Items being worked on.", func() float64 { return 7 })

	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()

	t.Run("what was counted is shown", func(t *testing.T) {
		for _, want := range []string{
			`callbatch_http_requests_total{code="200",method="GET",route="/v1/batches/{id}"} 1`,
			`callbatch_items_total{outcome="succeeded",processor="price"} 3`,
			`callbatch_item_retries_total{processor="price"} 2`,
			`callbatch_item_attempt_duration_seconds_count{processor="price"} 5`,
			`callbatch_reports_total 4`,
			`callbatch_record_duration_seconds_count 1`,
			`callbatch_message_attempts_total{outcome="timeout"} 1`,
			`callbatch_message_attempt_duration_seconds_sum 15`,
			`callbatch_items_in_flight 7`,
			`version="1.2.3"`,
			`go_goroutines`,
			`process_`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s in:\n%s", want, text)
			}
		}
	})
	t.Run("names and units are as Prometheus wants them", func(t *testing.T) {
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, namespace) {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	})
	t.Run("two servers in one process do not meet", func(t *testing.T) {
		New("1").Gauge("items_in_flight", "Items being worked on.", func() float64 { return 0 })
	})
}
