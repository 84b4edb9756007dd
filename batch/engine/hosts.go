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
// tenants, so each host has one more.
type hosts map[view]*breaker

// A view is a host and port as one tenant sees it, or as all do.
type view struct {
	tenant batch.TenantID
	shared bool
	host   string
}

// viewsOf returns the views of where d goes now, which need not be where it
// was to go when it was made.
func viewsOf(d batch.Delivery) [2]view {
	host := batch.CallbackHost(d.URL)
	return [2]view{{tenant: d.Tenant, host: host}, {shared: true, host: host}}
}

// admit says whether an attempt may be made now, and whether it is one to see
// if a host is up again. Else wait says when to come back.
func (c *courier) admit(d batch.Delivery) (ok, probe bool, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	var probed []*breaker
	for _, v := range viewsOf(d) {
		b := c.hosts[v]
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
	for _, v := range viewsOf(d) {
		b := c.hosts[v]
		switch {
		case r.Verdict == callback.Interrupted || r.Verdict == callback.Refused:
			if b != nil && probe {
				b.probing = false
			}
		case down && (below || !v.shared):
			if b == nil {
				b = c.hosts.add(v)
			}
			b.down(probe, now)
		default:
			delete(c.hosts, v)
		}
	}
}

func (h hosts) add(v view) *breaker {
	if len(h) >= mostHosts {
		clear(h)
	}
	b := &breaker{}
	h[v] = b
	return b
}
