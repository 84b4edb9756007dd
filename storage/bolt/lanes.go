package bolt

import (
	"crypto/sha256"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// A hostKey is a receiver's host as one tenant knows it: the tenant and the
// beginning of the host's SHA-256, so that nobody finds two hosts with one
// key. Under the tenant everybody it is the host as all tenants know it.
type hostKey [24]byte

// everybody stands for all tenants together.
var everybody = func() (t batch.TenantID) {
	for i := range t {
		t[i] = 0xff
	}
	return t
}()

func hostOf(t batch.TenantID, host string) (k hostKey) {
	sum := sha256.Sum256([]byte(host))
	copy(k[:], t[:])
	copy(k[16:], sum[:])
	return k
}

// shared is the same host as all tenants know it.
func (k hostKey) shared() hostKey {
	copy(k[:], everybody[:])
	return k
}

// A class of messages has its own lanes.
type class byte

const (
	manual  class = iota // asked for by their owners
	first                // never tried
	retry                // tried before
	classes = int(iota)
)

// A laneKey is where messages of one class to one host of one tenant queue.
type laneKey [25]byte

func laneOf(m batch.Message) (l laneKey) {
	k := hostOf(m.Tenant, m.Host)
	copy(l[:], k[:])
	switch {
	case m.Manual:
		l[24] = byte(manual)
	case m.Made == 0:
		l[24] = byte(first)
	default:
		l[24] = byte(retry)
	}
	return l
}

func (l laneKey) host() hostKey { return hostKey(l[:24]) }
func (l laneKey) class() class  { return class(l[24]) }

func (l laneKey) tenant() (t batch.TenantID) {
	copy(t[:], l[:])
	return t
}

// A host is what memory knows of a receiver's host beyond its health.
type host struct {
	batch.Health
	sending int                  // attempts under way
	held    map[laneKey]struct{} // lanes passed by because of it
}

// lanes is whose turn it is among messages, and what each host allows. It is
// guarded by Store.mu and rebuilt at open.
type lanes struct {
	turns [classes]*rota[laneKey]
	spent bool           // the last claim had no budget for the retries that are left
	short *rota[laneKey] // lanes passed by because the last claim had no budget for trials
	ahead int            // eighths of messages that retries are ahead of the others by
	most  int            // in flight to one lane, by the last claim
	hosts map[hostKey]*host
	spans map[laneKey]*span
}

func newLanes() *lanes {
	l := &lanes{short: newRota[laneKey](), hosts: map[hostKey]*host{}, spans: map[laneKey]*span{}}
	for i := range l.turns {
		l.turns[i] = newRota[laneKey]()
	}
	return l
}

func (l *lanes) wakeUp(k laneKey) { l.turns[k.class()].wakeUp(k.tenant(), k) }

func (l *lanes) sleep(k laneKey, until time.Time) {
	l.turns[k.class()].sleep(k.tenant(), k, until)
}

// next returns when a lane may have something to claim.
func (l *lanes) next(now time.Time) (at time.Time, ok bool) {
	for c, turn := range l.turns {
		turn.rouse(now)
		if class(c) == retry && l.spent {
			continue
		}
		if t, some := turn.next(); some && (!ok || t.Before(at)) {
			at, ok = t, true
		}
	}
	return at, ok
}

// mostHosts is how many hosts are remembered that nothing is known against.
const mostHosts = 20_000

func (l *lanes) host(k hostKey) *host {
	h := l.hosts[k]
	if h == nil {
		if len(l.hosts) >= mostHosts {
			l.forgetIdle()
		}
		h = &host{held: map[laneKey]struct{}{}}
		l.hosts[k] = h
	}
	return h
}

// forgetIdle forgets hosts of which only good is known, and that have nothing
// under way: each is given a few attempts at once again at first.
func (l *lanes) forgetIdle() {
	for k, h := range l.hosts {
		if h.sending == 0 && !h.Notable() && len(h.held) == 0 {
			delete(l.hosts, k)
		}
	}
}

// health returns what is known of a host.
func (l *lanes) health(k hostKey) batch.Health {
	if h := l.hosts[k]; h != nil {
		return h.Health
	}
	return batch.Health{}
}

// A demand is what attempts to begin already take that the lanes know nothing
// of yet.
type demand map[hostKey]int

func (d demand) add(k hostKey, n int) {
	d[k] += n
	d[k.shared()] += n
}

// room returns how many attempts more may start in a lane. If none may, until
// says from when on one may; the zero time means when another has ended.
func (l *lanes) room(k laneKey, begun demand, perHost int, now time.Time) (n int, until time.Time) {
	own, all := k.host(), k.host().shared()
	h := l.health(own)
	inFlight := l.sending(own) + begun[own]
	perHost = max(1, perHost)
	n = perHost - inFlight
	switch k.class() {
	case manual:
		return max(0, n), until
	case retry:
		n -= perHost / 8 // left to messages that were never tried
	}
	n = min(n, h.Allows(inFlight, now))
	until = h.Until
	if everybodys := l.health(all); everybodys.Recovering() {
		n = min(n, everybodys.Allows(l.sending(all)+begun[all], now))
		if everybodys.Until.After(until) {
			until = everybodys.Until
		}
	}
	if !until.After(now) {
		until = time.Time{}
	}
	return max(0, n), until
}

func (l *lanes) sending(k hostKey) int {
	if h := l.hosts[k]; h != nil {
		return h.sending
	}
	return 0
}

// hold passes a lane by until something about its host changes, or until a
// time if there is one.
func (l *lanes) hold(k laneKey, until time.Time) {
	l.host(k.host()).held[k] = struct{}{}
	l.host(k.host().shared()).held[k] = struct{}{}
	if !until.IsZero() {
		l.sleep(k, until)
	}
}

// widen has lanes looked at again that were passed by while fewer messages
// were allowed in flight to one.
func (l *lanes) widen(perHost int) {
	if perHost > l.most {
		for _, h := range l.hosts {
			l.release(h)
		}
	}
	l.most = perHost
}

// depart counts an attempt that begins, and arrive one that has ended.
func (l *lanes) depart(k hostKey) {
	l.host(k).sending++
	l.host(k.shared()).sending++
}

func (l *lanes) arrive(k hostKey) {
	for _, k := range []hostKey{k, k.shared()} {
		h := l.host(k)
		h.sending--
		l.release(h)
	}
}

// heal takes over what a host's health is now.
func (l *lanes) heal(k hostKey, now batch.Health) {
	h := l.host(k)
	h.Health = now
	l.release(h)
	if !now.Proven() {
		return
	}
	for c := range classes {
		if lane := laneKey(append(k[:], byte(c))); l.short.queues(lane) {
			l.short.forget(lane)
			l.wakeUp(lane)
		}
	}
}

// release has the lanes looked at again that were passed by because of a
// host.
func (l *lanes) release(h *host) {
	for k := range h.held {
		l.wakeUp(k)
		delete(h.held, k)
	}
}
