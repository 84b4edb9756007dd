package bolt

import (
	"bytes"
	"context"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// hostsPerTenant is how many hosts of a tenant that something is known
// against are kept over a restart, and for everybody ten times as many.
const hostsPerTenant = 1000

// A healthKey is a host under the tenant, or everybody, as it is kept.
func healthKey(t batch.TenantID, host string) []byte {
	return append(append(make([]byte, 0, 16+len(host)), t[:]...), host...)
}

// judge takes over what an attempt says about its host. What lies below HTTP
// counts for all tenants.
func (t *txn) judge(s *Store, k hostKey, d batch.Delivery, says batch.HostState) error {
	if says == batch.HostUnknown {
		return nil
	}
	if err := t.heal(s, k, d.Tenant, d, says); err != nil {
		return err
	}
	if says == batch.HostDown { // it was reached
		says = batch.HostUp
	}
	return t.heal(s, k.shared(), everybody, d, says)
}

func (t *txn) heal(s *Store, k hostKey, tenant batch.TenantID, d batch.Delivery, says batch.HostState) error {
	was, ok := t.health[k]
	if !ok {
		was = s.healthOf(k)
	}
	now := was.After(says, d.Started, t.now)
	if now.Host = d.Host; now == was {
		return nil
	}
	t.health[k] = now
	if keep := kept(tenant, now); keep || kept(tenant, was) {
		if err := t.putHealth(s, healthKey(tenant, d.Host), now, keep); err != nil {
			return err
		}
	}
	t.after(func() {
		s.lanes.heal(k, now)
		hint(s.messagesChanged)
	})
	return nil
}

// kept reports whether a restart shall not forget how a host stands: that it
// fails, or that it is known to answer to a tenant.
func kept(tenant batch.TenantID, h batch.Health) bool {
	return h.Notable() || h.Proven() && tenant != everybody
}

func (t *txn) putHealth(s *Store, key []byte, h batch.Health, keep bool) error {
	b, tenant := bucketHosts.in(t.Tx), batch.TenantID(key[:16])
	had := b.Get(key) != nil
	switch {
	case !keep && !had:
		return nil
	case !keep:
		t.keepHosts(s, tenant, -1)
		return b.Delete(key)
	case !had && t.crowded(s, tenant):
		return nil // memory knows it, which is enough but for a restart
	case !had:
		t.keepHosts(s, tenant, 1)
	}
	return b.Put(key, record.EncodeHealth(key, h))
}

// keepHosts counts hosts that are kept, or no longer, with this transaction.
func (t *txn) keepHosts(s *Store, tenant batch.TenantID, n int) {
	t.kept[tenant] += n
	t.after(func() { s.lanes.kept[tenant] += n })
}

// crowded reports whether so many hosts are kept under a tenant that there
// shall be no more.
func (t *txn) crowded(s *Store, tenant batch.TenantID) bool {
	most := hostsPerTenant
	if tenant == everybody {
		most *= 10
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lanes.kept[tenant]+t.kept[tenant] >= most
}

// readHosts makes known how hosts stood when the store was last open, and
// returns the keys of those that are to be forgotten.
func (s *Store) readHosts(tx *bbolt.Tx) (stale [][]byte, err error) {
	now := time.Now()
	err = bucketHosts.in(tx).ForEach(func(k, v []byte) error {
		tenant := batch.TenantID(k[:16])
		s.lanes.kept[tenant]++
		h, err := openHealth(k, v)
		switch {
		case s.damaged(err, "host", string(k[16:])):
		case err != nil:
			return err
		case h.Stale(now):
			stale = append(stale, bytes.Clone(k))
		default:
			s.lanes.heal(hostOf(tenant, h.Host), h)
		}
		return nil
	})
	return stale, err
}

// forgetHosts takes hosts off the disk that nothing was sent to for long.
func (s *Store) forgetHosts(stale [][]byte) error {
	for keys := range slices.Chunk(stale, resumeChunk) {
		err := s.do(s.small, 0, func(t *txn) error {
			for _, k := range keys {
				if err := t.putHealth(s, k, batch.Health{}, false); err != nil {
					return errBroken{err}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func openHealth(k, v []byte) (batch.Health, error) {
	p, err := record.Open(record.KindHealth, k, v)
	if err != nil {
		return batch.Health{}, err
	}
	return record.DecodeHealth(p)
}

// Hosts returns the hosts of a tenant that something is known against.
func (s *Store) Hosts(ctx context.Context, tenant batch.TenantID) (hosts []batch.Health, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		c := bucketHosts.in(tx).Cursor()
		for k, v := c.Seek(tenant[:]); bytes.HasPrefix(k, tenant[:]) && len(hosts) < hostsPerTenant; k, v = c.Next() {
			h, err := openHealth(k, v)
			if s.damaged(err, "host", string(k[16:])) {
				continue
			}
			if err != nil {
				return err
			}
			if h.Notable() {
				hosts = append(hosts, h)
			}
		}
		return nil
	})
	return hosts, err
}

// shown returns a message as it is shown: a breaker may keep it from going.
func shown(tx *bbolt.Tx, m batch.Message, now time.Time) (batch.Message, error) {
	if m.State != batch.MessageWaiting {
		return m, nil
	}
	for _, t := range []batch.TenantID{m.Tenant, everybody} {
		k := healthKey(t, m.Host)
		v := bucketHosts.in(tx).Get(k)
		if v == nil {
			continue
		}
		h, err := openHealth(k, v)
		if batch.CodeOf(err) == batch.Damaged {
			continue // it says nothing about the message
		}
		if err != nil {
			return m, err
		}
		m = m.Shown(now, h)
	}
	return m, nil
}
