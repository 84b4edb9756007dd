package engine

import (
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/callback"
)

// mostHosts bounds the breakers that are remembered. Beyond it all are
// forgotten, which costs each host that is down a few attempts.
const mostHosts = 10_000

// hosts are the breakers of receivers. A tenant has one for each host and
// port; failures that lie below HTTP are the host's own and count for all
// tenants, so each host has one more, under no tenant's lane.
type hosts map[lot]*breaker

// A lot is a host as one tenant sees it, or all do.
type lot struct {
	tenant batch.TenantID
	shared bool
	host   string
}

func lotsOf(d batch.Delivery) [2]lot {
	return [2]lot{{tenant: d.Tenant, host: d.Host}, {shared: true, host: d.Host}}
}

// admit says whether an attempt may be made now, and whether it is one to see
// if a host is up again. Else wait says when to come back.
func (c *courier) admit(d batch.Delivery) (ok, probe bool, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var probed []*breaker
	for _, l := range lotsOf(d) {
		b := c.hosts[l]
		if b == nil {
			continue
		}
		ok, probe, wait := b.admit(now)
		if !ok {
			return false, false, max(wait, shortestPause)
		}
		if probe {
			probed = append(probed, b)
		}
	}
	for _, b := range probed {
		b.probing = true
	}
	return true, len(probed) > 0, 0
}

// answered tells the breakers what came of an attempt.
func (c *courier) answered(d batch.Delivery, probe bool, r callback.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	below := r.Category == callback.CategoryDNS || r.Category == callback.CategoryConnect || r.Category == callback.CategoryTLS
	down := below || r.Category == callback.CategoryTimeout || r.Status >= 500
	for _, l := range lotsOf(d) {
		b := c.hosts[l]
		switch {
		case r.Verdict == callback.Interrupted || r.Verdict == callback.Refused:
			if b != nil && probe {
				b.probing = false
			}
		case down && (below || !l.shared):
			if b == nil {
				b = c.hosts.add(l)
			}
			b.down(1, probe, now)
		default:
			delete(c.hosts, l)
		}
	}
}

func (h hosts) add(l lot) *breaker {
	if len(h) >= mostHosts {
		clear(h)
	}
	b := &breaker{}
	h[l] = b
	return b
}
