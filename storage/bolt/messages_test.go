package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/storage/record"
)

// What stands beside a message in the file: its places, its host, and the
// orders to send it again.

// alter changes the file behind the store's back.
func alter(t *testing.T, s *Store, f func(tx *bbolt.Tx) error) {
	t.Helper()
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.db.Update(f); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.recent)
}

// completed is a batch of one item that has ended, and its message.
func completed(t *testing.T, s *Store) batch.Message {
	t.Helper()
	b := made(t, s, batch.TenantID{}, 1)
	recorded(t, s, done(claimed(t, s, 1)[0], []byte("1")))
	ms, _, err := s.Messages(t.Context(), batch.MessageQuery{Batch: &b.ID, Limit: 10})
	if err != nil || len(ms) != 1 {
		t.Fatalf("%d messages, %v", len(ms), err)
	}
	return ms[0]
}

// sent claims one message.
func sent(t *testing.T, s *Store) batch.Delivery {
	t.Helper()
	var ds []batch.Delivery
	waitFor(t, func() bool {
		var err error
		if ds, err = s.ClaimMessages(t.Context(), anything(1)); err != nil {
			t.Fatal(err)
		}
		return len(ds) == 1
	})
	return ds[0]
}

// settled settles one message that is due.
func settled(t *testing.T, s *Store, as batch.MessageState) batch.Message {
	t.Helper()
	d := sent(t, s)
	if err := s.Attempted(t.Context(), []batch.AttemptOutcome{{Delivery: d, State: as}}); err != nil {
		t.Fatal(err)
	}
	m, _, err := s.Message(t.Context(), d.Tenant, d.ID)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCheckFindsAMessageOutOfItsPlace(t *testing.T) {
	here := func(m batch.Message) []byte { return tenantKey(m.Tenant, m.ID) }
	for name, harm := range map[string]struct {
		state batch.MessageState
		f     func(tx *bbolt.Tx, m batch.Message) error
	}{
		"not in the outbox": {batch.MessageWaiting, func(tx *bbolt.Tx, m batch.Message) error {
			return bucketOutbox.in(tx).Delete(outboxKey(laneOf(m), m.Due, m.ID))
		}},
		"in the lane of another host": {batch.MessageWaiting, func(tx *bbolt.Tx, m batch.Message) error {
			b, other := bucketOutbox.in(tx), m
			other.Host = "other.example:443"
			return errors.Join(b.Delete(outboxKey(laneOf(m), m.Due, m.ID)), b.Put(outboxKey(laneOf(other), m.Due, m.ID), make([]byte, 8)))
		}},
		"in the outbox without being anywhere": {batch.MessageWaiting, func(tx *bbolt.Tx, m batch.Message) error {
			return bucketOutbox.in(tx).Put(outboxKey(laneOf(m), m.Due, batch.MessageID{1}), make([]byte, 8))
		}},
		"not among those under way": {batch.MessageSending, func(tx *bbolt.Tx, m batch.Message) error {
			return bucketSending.in(tx).Delete(here(m))
		}},
		"not among those given up": {batch.MessageExhausted, func(tx *bbolt.Tx, m batch.Message) error {
			return bucketDead.in(tx).Delete(here(m))
		}},
		"delivered and given up": {batch.MessageDelivered, func(tx *bbolt.Tx, m batch.Message) error {
			return bucketDead.in(tx).Put(here(m), []byte{1})
		}},
		"not counted": {batch.MessageDelivered, func(tx *bbolt.Tx, m batch.Message) error {
			m.State = batch.MessagePulled
			return bucketMessages.in(tx).Put(here(m), record.EncodeMessage(here(m), m))
		}},
		"a damaged host": {batch.MessageDelivered, func(tx *bbolt.Tx, m batch.Message) error {
			return bucketHosts.in(tx).Put(healthKey(m.Tenant, m.Host), []byte("x"))
		}},
		"a damaged order": {batch.MessageDelivered, func(tx *bbolt.Tx, m batch.Message) error {
			return bucketOrders.in(tx).Put(here(m), []byte("x"))
		}},
		"no key of the links": {batch.MessageDelivered, func(tx *bbolt.Tx, _ batch.Message) error {
			return bucketMeta.in(tx).Delete(metaLinks)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
			m := completed(t, s)
			switch harm.state {
			case batch.MessageWaiting:
			case batch.MessageSending:
				m = sent(t, s).Message
			default:
				m = settled(t, s, harm.state)
			}
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			alter(t, s, func(tx *bbolt.Tx) error { return harm.f(tx, m) })
			if err := s.Check(t.Context()); batch.CodeOf(err) != batch.Damaged {
				t.Errorf("check says %v", err)
			}
		})
	}
}

func TestAPlaceInTheOutboxWithoutAMessageParksNoLane(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	m := completed(t, s)
	alter(t, s, func(tx *bbolt.Tx) error {
		return bucketOutbox.in(tx).Put(outboxKey(laneOf(m), time.Time{}, batch.MessageID{1}), make([]byte, 8))
	})
	if list, _, err := s.Messages(t.Context(), batch.MessageQuery{State: batch.MessageWaiting, Limit: 9}); err != nil || len(list) != 1 {
		t.Errorf("%d messages are listed, %v", len(list), err)
	}
	if d := sent(t, s); d.ID != m.ID {
		t.Errorf("%v was claimed", d.ID)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAMessageGoesWhereItsBatchPointsNow(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	m := completed(t, s)
	alter(t, s, func(tx *bbolt.Tx) error {
		spec, err := readSpec(tx, m.Tenant, m.Batch)
		if err != nil {
			return err
		}
		spec.Options.CallbackURL = "https://moved.example:8443/hooks"
		key := tenantKey(m.Tenant, m.Batch)
		return bucketBatches.in(tx).Put(key, record.EncodeSpec(key, spec))
	})
	d := sent(t, s)
	if d.ID != m.ID || d.URL != "https://moved.example:8443/hooks" || d.Host != "moved.example:8443" || d.Made != 1 {
		t.Errorf("%v goes to %s of %s, attempt %d", d.ID, d.URL, d.Host, d.Made)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestADamagedMessageIsLeftOutOfTheFeed(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	var ms []batch.Message
	for range 3 {
		ms = append(ms, completed(t, s))
	}
	damage(t, s, bucketMessages, tenantKey(batch.TenantID{}, ms[1].ID))
	p, err := s.Feed(t.Context(), batch.FeedQuery{Limit: 10})
	if err != nil || len(p.Entries) != 2 || p.Entries[1].ID != ms[2].ID || p.Next != ms[2].ID {
		t.Errorf("%d messages to %d, %v", len(p.Entries), p.Next, err)
	}
}

func TestWhatWaitsIsFoundBehindMuchThatDoesNot(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	want := completed(t, s)
	for range listSteps/256 + 1 {
		pulled(t, s, 256)
	}
	list, _, err := s.Messages(t.Context(), batch.MessageQuery{State: batch.MessageWaiting, Limit: 2})
	if err != nil || len(list) != 1 || list[0].ID != want.ID {
		t.Errorf("the first page has %d, %v", len(list), err)
	}
}

// pulled makes so many messages that are not to be sent, and one for the end.
func pulled(t *testing.T, s *Store, items int) {
	t.Helper()
	g := s.Stage(t.Context(), batch.TenantID{}, batch.NewID(time.Now()))
	var b batch.Block
	for range items {
		b.Items = append(b.Items, batch.Item{Raw: []byte("1")})
	}
	if err := g.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	o := batch.Options{Processor: "p", CallbackMode: batch.ModePull, CallbackPageItems: 1}.WithDefaults()
	if _, err := g.Create(t.Context(), batch.Spec{Created: time.Now(), Options: o}, batch.Once{}); err != nil {
		t.Fatal(err)
	}
	recorded(t, s, done(claimed(t, s, 1)[0], []byte("1")))
}

// order keeps an order without telling anybody.
func order(t *testing.T, s *Store, n byte, o batch.Redelivery) []byte {
	t.Helper()
	key := tenantKey(o.Tenant, [16]byte{n})
	alter(t, s, func(tx *bbolt.Tx) error { return bucketOrders.in(tx).Put(key, record.EncodeRedelivery(key, o)) })
	return key
}

func orders(t *testing.T, s *Store) (n int) {
	t.Helper()
	if err := s.view(t.Context(), func(tx *bbolt.Tx) error { n = len(keysOf(bucketOrders.in(tx))); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestATenantHasSoManyRedeliveriesUnderWay(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	completed(t, s)
	settled(t, s, batch.MessageExhausted)
	for n := range byte(mostOrders) {
		order(t, s, n, batch.Redelivery{State: batch.MessageBlocked, Made: time.Now()})
	}
	_, err := s.RedeliverAll(t.Context(), batch.Redelivery{State: batch.MessageExhausted}, batch.Once{})
	var refusal *batch.Error
	if !errors.As(err, &refusal) || refusal.Code != batch.Conflict || refusal.Word() != "too_many_redeliveries" {
		t.Errorf("got %v", err)
	}
	hint(s.ordersReady)
	waitFor(t, func() bool { return orders(t, s) == 0 })
	if n, err := s.RedeliverAll(t.Context(), batch.Redelivery{State: batch.MessageExhausted}, batch.Once{}); n != 1 || err != nil {
		t.Errorf("%d are wanted, %v", n, err)
	}
	waitFor(t, func() bool { return orders(t, s) == 0 })
}

func TestADamagedOrderStopsNoOther(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	m := completed(t, s)
	settled(t, s, batch.MessageExhausted)
	damage(t, s, bucketOrders, order(t, s, 1, batch.Redelivery{State: batch.MessageExhausted, Made: time.Now()}))
	order(t, s, 2, batch.Redelivery{State: batch.MessageExhausted, Made: time.Now()})
	hint(s.ordersReady)
	waitFor(t, func() bool { return orders(t, s) == 0 })
	if d := sent(t, s); d.ID != m.ID || d.Made != 2 {
		t.Errorf("%v is sent for the %dth time", d.ID, d.Made)
	}
}

func TestOrdersTakeTurns(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	for range 4 {
		pulled(t, s, 256)
	}
	m := completed(t, s)
	settled(t, s, batch.MessageExhausted)
	order(t, s, 1, batch.Redelivery{State: batch.MessagePulled, Made: time.Now()})
	order(t, s, 2, batch.Redelivery{State: batch.MessageExhausted, Made: time.Now()})
	c := chores{in: bucketOrders, advance: (*txn).advance}
	for range 2 {
		if more, err := c.step(s); !more || err != nil {
			t.Fatal(more, err)
		}
	}
	if n := orders(t, s); n != 1 {
		t.Errorf("%d orders are left after a step of each", n)
	}
	if d := sent(t, s); d.ID != m.ID {
		t.Errorf("%v is sent", d.ID)
	}
}

func TestAnOrderPassesByWhatCannotBeSent(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	var ms []batch.Message
	for range 4 {
		completed(t, s)
		ms = append(ms, settled(t, s, batch.MessageExhausted))
	}
	damage(t, s, bucketMessages, tenantKey(batch.TenantID{}, ms[0].ID))
	damage(t, s, bucketProgress, tenantKey(batch.TenantID{}, ms[1].Batch))
	damage(t, s, bucketBatches, tenantKey(batch.TenantID{}, ms[2].Batch))
	if n, err := s.RedeliverAll(t.Context(), batch.Redelivery{State: batch.MessageExhausted}, batch.Once{}); n != 3 || err != nil {
		t.Errorf("%d are wanted, %v", n, err)
	}
	waitFor(t, func() bool { return orders(t, s) == 0 })
	if d := sent(t, s); d.ID != ms[3].ID {
		t.Errorf("%v is sent", d.ID)
	}
}

func TestAnOrderThatTheDiskRefusedGoesOn(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "s.db"))
	m := completed(t, s)
	settled(t, s, batch.MessageExhausted)
	s.writing.Lock()
	commits := 0
	s.sync = func(tx *bbolt.Tx) error {
		if commits++; commits == 2 { // the first step of the order
			return errors.Join(tx.Rollback(), syscall.ENOSPC)
		}
		return tx.Commit()
	}
	s.writing.Unlock()
	if n, err := s.RedeliverAll(t.Context(), batch.Redelivery{State: batch.MessageExhausted}, batch.Once{}); n != 1 || err != nil {
		t.Fatalf("%d are wanted, %v", n, err)
	}
	if d := sent(t, s); d.ID != m.ID {
		t.Errorf("%v is sent", d.ID)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestMoreHostsFailThanAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path)
	fail := func(n int) {
		t.Helper()
		err := s.do(s.small, 0, func(tx *txn) error {
			for i := range n {
				host := fmt.Sprintf("h%04d.example:443", i)
				d := batch.Delivery{Message: batch.Message{Host: host, Started: time.Now()}}
				if err := tx.judge(s, hostOf(d.Tenant, host), d, batch.HostDown); err != nil {
					return errBroken{err}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		fail(hostsPerTenant + 10)
	}
	hosts, err := s.Hosts(t.Context(), batch.TenantID{})
	if err != nil || len(hosts) != hostsPerTenant {
		t.Errorf("%d hosts are shown, %v", len(hosts), err)
	}
	last := hostOf(batch.TenantID{}, fmt.Sprintf("h%04d.example:443", hostsPerTenant+9))
	if !s.healthOf(last).Open() {
		t.Error("one too many to be kept is not known either")
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestHostsOfWhichOnlyGoodIsKnownAreForgotten(t *testing.T) {
	l := newLanes()
	bad, busy := hostOf(batch.TenantID{1}, "bad"), hostOf(batch.TenantID{1}, "busy")
	l.heal(bad, batch.Health{}.After(batch.HostDown, time.Now(), time.Now()))
	l.depart(flight{host: busy})
	for n := range 2 * mostHosts {
		k := hostOf(batch.TenantID{2}, fmt.Sprint(n))
		l.depart(flight{host: k})
		l.heal(k, batch.Health{}.After(batch.HostUp, time.Now(), time.Now()))
		l.arrive(flight{host: k})
	}
	if n := len(l.hosts); n > mostHosts+1 {
		t.Errorf("%d hosts are remembered", n)
	}
	if l.health(bad).Failures != 1 || l.sending(busy) != 1 {
		t.Errorf("what matters is forgotten: %+v, %d under way", l.health(bad), l.sending(busy))
	}
}

func TestAnAbsentLinkKeyIsDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := openAt(t, path)
	key, err := s.LinkKey(t.Context())
	if err != nil || bytes.Equal(key, make([]byte, linkKeyBytes)) {
		t.Fatalf("the key is %x, %v", key, err)
	}
	alter(t, s, func(tx *bbolt.Tx) error { return bucketMeta.in(tx).Delete(metaLinks) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); batch.CodeOf(err) != batch.Damaged {
		t.Errorf("it opens: %v", err)
	}
}

func TestAStepOverMessagesIsBoundedInBytes(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "store"))
	b := made(t, s, batch.TenantID{}, 1)
	const all = 3 * maxBytes >> 20
	now := time.Now().UTC()
	alter(t, s, func(tx *bbolt.Tx) error {
		tt := &txn{Tx: tx}
		for range all {
			m := batch.Message{ID: batch.NewMessageID(now), Batch: b.ID, Type: batch.TypeResults, Host: "old:443", State: batch.MessageWaiting, Created: now, Ended: now, Head: make([]byte, 1<<20)}
			if err := errors.Join(tt.putMessage(m), bucketByBatch.in(tx).Put(messageKey(b.ID, m.ID), []byte{1})); err != nil {
				return err
			}
		}
		return nil
	})
	err := s.view(t.Context(), func(tx *bbolt.Tx) error {
		found, last, err := (&txn{Tx: tx}).astray(s, b.Tenant, messageKey(b.ID, batch.MessageID{}), "new:443")
		if err != nil || last == nil || len(found) == 0 || len(found) > all/2 {
			t.Errorf("a move takes %d of %d MiB at once, %v", len(found), all, err)
		}
		n := 0
		o := batch.Redelivery{State: batch.MessageWaiting, Made: now}
		more, err := s.walkWanted(tx, &o, orderLooks, func(batch.Message) (bool, error) { n++; return true, nil })
		if err != nil || !more || n == 0 || n > all/2 {
			t.Errorf("an order takes %d of %d MiB at once, %v", n, all, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
