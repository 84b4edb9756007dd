package bolt

import (
	"bytes"
	"context"
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
		if err := t.putHealth(healthKey(tenant, d.Host), now, keep); err != nil {
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

func (t *txn) putHealth(key []byte, h batch.Health, keep bool) error {
	b := bucketHosts.in(t.Tx)
	if !keep {
		return b.Delete(key)
	}
	if b.Get(key) == nil && crowded(b.Cursor(), key[:16]) {
		return nil // memory knows it, which is enough but for a restart
	}
	return b.Put(key, record.EncodeHealth(key, h))
}

// crowded reports whether so many hosts are kept under a tenant that there
// shall be no more.
func crowded(c *cursor, tenant []byte) bool {
	most := hostsPerTenant
	if bytes.Equal(tenant, everybody[:]) {
		most *= 10
	}
	n := 0
	for k, _ := c.Seek(tenant); n < most && bytes.HasPrefix(k, tenant); k, _ = c.Next() {
		n++
	}
	return n == most
}

// readHosts makes known how hosts stood when the store was last open.
func (s *Store) readHosts(tx *bbolt.Tx) error {
	return bucketHosts.in(tx).ForEach(func(k, v []byte) error {
		h, err := openHealth(k, v)
		if s.damaged(err, "host", string(k[16:])) {
			return nil
		}
		if err != nil {
			return err
		}
		s.lanes.heal(hostOf(batch.TenantID(k[:16]), h.Host), h)
		return nil
	})
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
