// Package metrics holds what the server counts of itself, in one Prometheus
// registry that is built and passed, never global. Labels take values from
// short closed lists or the operator's configuration; nothing a client sends
// becomes one, and no id does.
package metrics

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "callbatch"

// Bounds of the histograms, in seconds: requests and items are done in
// milliseconds or take a processor's minutes; a transaction is one sync; an
// attempt has 15 s.
var (
	requestBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60, 600}
	itemBuckets    = []float64{.0001, .0005, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	recordBuckets  = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}
	attemptBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15}
)

// Metrics counts. All methods are safe for use by many goroutines.
type Metrics struct {
	registry *prometheus.Registry

	requests       *prometheus.CounterVec
	requestSeconds *prometheus.HistogramVec
	items          *prometheus.CounterVec
	itemSeconds    *prometheus.HistogramVec
	retries        *prometheus.CounterVec
	reports        prometheus.Counter
	recordSeconds  prometheus.Histogram
	attempts       *prometheus.CounterVec
	attemptSeconds prometheus.Histogram
}

// New returns metrics of a server of this version.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),

		requests: counters("http_requests_total", "Requests answered.", "route", "method", "code"),
		requestSeconds: histograms("http_request_duration_seconds",
			"Time from a request's header to its last byte.", requestBuckets, "route", "method"),
		items: counters("items_total", "Items that got their result.", "processor", "outcome"),
		itemSeconds: histograms("item_attempt_duration_seconds",
			"Time of one attempt at an item.", itemBuckets, "processor"),
		reports: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "reports_total", Help: "Reports on blocks of items that were recorded.",
		}),
		recordSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "record_duration_seconds",
			Help: "Time of one transaction that records reports.", Buckets: recordBuckets,
		}),
		retries:  counters("item_retries_total", "Attempts at items that are to be made again.", "processor"),
		attempts: counters("message_attempts_total", "Attempts to deliver a message, by what became of them.", "outcome"),
		attemptSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "message_attempt_duration_seconds",
			Help: "Time of one attempt to deliver a message.", Buckets: attemptBuckets,
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "1; what runs is in the labels.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(build, m.requests, m.requestSeconds, m.items, m.itemSeconds, m.retries,
		m.reports, m.recordSeconds, m.attempts, m.attemptSeconds, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: buckets,
	}, labels)
}

// Request counts an answered request: route is the template of its path.
func (m *Metrics) Request(route, method string, code int, took time.Duration) {
	m.requests.WithLabelValues(route, method, strconv.Itoa(code)).Inc()
	m.requestSeconds.WithLabelValues(route, method).Observe(took.Seconds())
}

// Items counts n attempts at items of a processor that took a time each, by
// what became of the items: "succeeded", "failed", or "pending" if they are
// to be tried again.
func (m *Metrics) Items(processor, as string, n int, each time.Duration) {
	if as == "pending" {
		m.retries.WithLabelValues(processor).Add(float64(n))
	} else {
		m.items.WithLabelValues(processor, as).Add(float64(n))
	}
	seconds := m.itemSeconds.WithLabelValues(processor)
	for range n {
		seconds.Observe(each.Seconds())
	}
}

// Recorded counts one transaction that kept so many blocks' reports.
func (m *Metrics) Recorded(reports int, took time.Duration) {
	m.reports.Add(float64(reports))
	m.recordSeconds.Observe(took.Seconds())
}

// Attempt counts an attempt to deliver a message: outcome is "delivered" or
// the category of its error.
func (m *Metrics) Attempt(outcome string, took time.Duration) {
	m.attempts.WithLabelValues(outcome).Inc()
	m.attemptSeconds.Observe(took.Seconds())
}

// Gauge shows what f returns whenever the metrics are read, as
// callbatch_<name>. f must be quick and safe to call at any time. It panics
// on a name that is taken.
func (m *Metrics) Gauge(name, help string, f func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, f))
}

// Handler answers with the metrics in the format the client asks for.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, EnableOpenMetrics: true})
}
