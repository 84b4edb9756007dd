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
	manual  int                  // of these, those that were asked for: the host's health does not bound them
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
	sweep int // with how many hosts it is worth to look for some to forget
	spans map[laneKey]*span

	waiting int                    // messages in all lanes
	kept    map[batch.TenantID]int // hosts whose health is on the disk
}

func newLanes() *lanes {
	l := &lanes{short: newRota[laneKey](), hosts: map[hostKey]*host{}, spans: map[laneKey]*span{}, kept: map[batch.TenantID]int{}}
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

// mostHosts is how many hosts are remembered, but for those that something is
// under way to or waits for.
const mostHosts = 20_000

func (l *lanes) host(k hostKey) *host {
	h := l.hosts[k]
	if h == nil {
		if len(l.hosts) >= max(mostHosts, l.sweep) {
			l.forgetIdle()
			l.sweep = len(l.hosts) + mostHosts/4
		}
		h = &host{held: map[laneKey]struct{}{}}
		l.hosts[k] = h
	}
	return h
}

// forgetIdle forgets hosts that have nothing under way and that nothing waits
// for: first those of which only good is known, then others as well, until a
// quarter is gone. Each is given a few attempts at once again at first.
func (l *lanes) forgetIdle() {
	for _, notable := range []bool{false, true} {
		for k, h := range l.hosts {
			if len(l.hosts) <= mostHosts*3/4 {
				return
			}
			if h.sending == 0 && len(h.held) == 0 && (notable || !h.Notable()) {
				delete(l.hosts, k)
			}
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

// open counts the hosts of tenants whose breakers are open.
func (l *lanes) open() (n int) {
	for k, h := range l.hosts {
		if h.Open() && [16]byte(k[:16]) != everybody {
			n++
		}
	}
	return n
}

// A demand is what attempts to begin already take that the lanes know nothing
// of yet.
type demand map[hostKey]int

func (d demand) add(f flight, n int) {
	for _, k := range f.counted() {
		d[k] += n
	}
}

// room returns how many attempts more may start in a lane. If none may, until
// says from when on one may; the zero time means when another has ended.
func (l *lanes) room(k laneKey, begun demand, perHost int, now time.Time) (n int, until time.Time) {
	own, all := k.host(), k.host().shared()
	h := l.health(own)
	inFlight := l.sending(own) + begun[own]
	perHost = max(1, perHost)
	if k.class() == manual {
		return max(0, perHost-inFlight), until
	}
	places := min(perHost, h.Allows(0, now)+l.manuals(own))
	n = places - inFlight - l.reserved(k, places, perHost)
	until = h.Opens(now)
	if everybodys := l.health(all); everybodys.Recovering() {
		n = min(n, everybodys.Allows(l.sending(all)+begun[all], now))
		if open := everybodys.Opens(now); open.After(until) {
			until = open
		}
	}
	return max(0, n), until
}

// reserved returns how many places to a host are left to messages of the other
// class: an eighth, at least one, to those that were never tried. A single
// place is theirs if any waits; while the breaker lets one through it is theirs
// and of those tried before by turns, for neither may be the one that fails.
func (l *lanes) reserved(k laneKey, places, perHost int) int {
	if places > 1 {
		if k.class() == retry {
			return max(1, places/8)
		}
		return 0
	}
	favoured := first
	if h := l.health(k.host()); perHost > 1 && h.Failures%2 == 0 {
		favoured = retry
	}
	if k.class() == favoured {
		return 0
	}
	k[24] = byte(favoured)
	if l.turns[favoured].queues(k) || l.holds(k) {
		return 1
	}
	return 0
}

// holds reports whether a lane was passed by because of its host.
func (l *lanes) holds(k laneKey) bool {
	h := l.hosts[k.host()]
	if h == nil {
		return false
	}
	_, held := h.held[k]
	return held
}

func (l *lanes) manuals(k hostKey) int {
	if h := l.hosts[k]; h != nil {
		return h.manual
	}
	return 0
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
	if all := l.host(k.host().shared()); all.Recovering() {
		all.held[k] = struct{}{}
	}
	if !until.IsZero() {
		l.sleep(k, until)
	}
}

// spare has a lane looked at again whose place was not used after all, and
// those that were passed by for it.
func (l *lanes) spare(k laneKey) {
	l.wakeUp(k)
	for _, h := range []hostKey{k.host(), k.host().shared(), k.host().trials()} {
		if h := l.hosts[h]; h != nil {
			l.release(h)
		}
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

// trialsOfTenant is how many attempts of one tenant may be under way to hosts
// that are not proven: however many of its hosts hang, others have places.
const trialsOfTenant = 256

// trials stands for all hosts of a tenant that are not proven.
func (k hostKey) trials() hostKey {
	clear(k[16:])
	return k
}

// mayTry returns how many attempts more a tenant may begin to hosts that are
// not proven.
func (l *lanes) mayTry(k hostKey, begun demand) int {
	return max(0, trialsOfTenant-l.sending(k.trials())-begun[k.trials()])
}

// counted returns what an attempt counts for. One that was asked for is its
// tenant's affair.
func (f flight) counted() []hostKey {
	ks := []hostKey{f.host}
	if !f.manual {
		ks = append(ks, f.host.shared())
	}
	if f.trial {
		ks = append(ks, f.host.trials())
	}
	return ks
}

// depart counts an attempt that begins, and arrive one that has ended.
func (l *lanes) depart(f flight) {
	for _, k := range f.counted() {
		l.host(k).sending++
	}
	if f.manual {
		l.host(f.host).manual++
	}
}

func (l *lanes) arrive(f flight) {
	if f.manual {
		l.host(f.host).manual--
	}
	for _, k := range f.counted() {
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
