package server

import (
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/engine"
	"github.com/callbatch/callbatch/batch/metrics"
)

// counted tells the metrics what the engine says, in their words.
type counted struct{ *metrics.Metrics }

var _ engine.Metrics = counted{}

func (c counted) Items(processor string, as batch.ItemStatus, n int, each time.Duration) {
	c.Metrics.Items(processor, as.String(), n, each)
}

func (c counted) Sent(outcome string, took time.Duration) { c.Attempt(outcome, took) }

// gauges shows how full the server is.
func (s *server) gauges(m *metrics.Metrics) {
	sum := func(of func(engine.Gauge) int) func() float64 {
		return func() float64 {
			n := 0
			for _, g := range s.engine.Gauges() {
				n += of(g)
			}
			return float64(n)
		}
	}
	m.Gauge("items_in_flight", "Items being worked on.", sum(func(g engine.Gauge) int { return g.InFlight }))
	m.Gauge("messages_in_flight", "Messages being sent.", func() float64 { return float64(s.engine.Sending()) })
	m.Gauge("messages_waiting", "Messages that wait for their next attempt, parked ones included.", func() float64 {
		return float64(s.store.Backlog().Waiting)
	})
	m.Gauge("callback_hosts_open", "Receivers' hosts, for each tenant, whose breakers are open.", func() float64 {
		return float64(s.store.Backlog().HostsOpen)
	})
	m.Gauge("blocks_held", "Blocks of items in memory.", sum(func(g engine.Gauge) int { return g.Blocks }))
	m.Gauge("store_disk_free_bytes", "Bytes free on the store's disk.", func() float64 {
		free, _, _ := s.disk.glance()
		return float64(free)
	})
}
