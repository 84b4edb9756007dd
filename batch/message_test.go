package batch

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var terms = Terms{Hold: time.Minute, Window: time.Hour}

// waiting returns a message that was made and not tried yet.
func waiting(typ string) Message {
	return Message{Type: typ, Round: 1, State: MessageWaiting, Created: made, Due: made, Until: made.Add(terms.Window)}
}

func TestTermsWithDefaults(t *testing.T) {
	if got := (Terms{}).WithDefaults(); got.Hold != time.Minute || got.Window != 7*24*time.Hour {
		t.Errorf("got %+v", got)
	}
	if got := (Terms{Hold: 1, Window: 2}).WithDefaults(); got.Hold != 1 || got.Window != 2 {
		t.Errorf("what was set became %+v", got)
	}
}

func TestMessageClose(t *testing.T) {
	now := made.Add(time.Minute)
	next := now.Add(5 * time.Minute)
	for name, c := range map[string]struct {
		before func(*Message) // of the message in its third attempt
		o      AttemptOutcome
		want   func(*Message) // from the message in its third attempt
	}{
		"an acknowledged message is delivered": {
			nil,
			AttemptOutcome{State: MessageDelivered},
			func(m *Message) { m.State, m.Due, m.Ended = MessageDelivered, time.Time{}, now },
		},
		"one that is given up says why": {
			nil,
			AttemptOutcome{State: MessageExhausted, Reason: ReasonSteps},
			func(m *Message) {
				m.State, m.Reason, m.Due, m.Ended = MessageExhausted, ReasonSteps, time.Time{}, now
			},
		},
		"one to be tried again waits until it is due": {
			nil,
			AttemptOutcome{State: MessageWaiting, Due: next},
			func(m *Message) { m.State, m.Due = MessageWaiting, next },
		},
		"an attempt that our own stop cut short never was": {
			nil,
			AttemptOutcome{State: MessageWaiting, Due: now, Refund: true},
			func(m *Message) { m.State, m.Due, m.Made = MessageWaiting, now, 2 },
		},
		"an attempt that was asked for is asked for no longer": {
			func(m *Message) { m.Manual = true },
			AttemptOutcome{State: MessageWaiting, Due: next},
			func(m *Message) { m.State, m.Due, m.Manual = MessageWaiting, next, false },
		},
		"unless our own stop cut it short": {
			func(m *Message) { m.Manual = true },
			AttemptOutcome{State: MessageWaiting, Due: now, Refund: true},
			func(m *Message) { m.State, m.Due, m.Made = MessageWaiting, now, 2 },
		},
		"one that was asked for meanwhile goes out once more, acknowledged or not": {
			func(m *Message) { m.Again = true },
			AttemptOutcome{State: MessageDelivered},
			func(m *Message) {
				m.State, m.Due, m.Again, m.Manual = MessageWaiting, now, false, true
				m.Spared, m.Until = 3, now.Add(terms.Window)
			},
		},
		"and with the attempts that count": {
			func(m *Message) { m.Again = true },
			AttemptOutcome{State: MessageWaiting, Due: next, Refund: true},
			func(m *Message) {
				m.State, m.Due, m.Again, m.Manual = MessageWaiting, now, false, true
				m.Made, m.Spared, m.Until = 2, 2, now.Add(terms.Window)
			},
		},
		"progress is told once": {
			func(m *Message) { m.Type = TypeProgress },
			AttemptOutcome{State: MessageWaiting, Due: next},
			func(m *Message) {
				m.State, m.Reason, m.Due, m.Ended = MessageExhausted, ReasonOnce, time.Time{}, now
			},
		},
		"but not if our own stop cut it short": {
			func(m *Message) { m.Type = TypeProgress },
			AttemptOutcome{State: MessageWaiting, Due: now, Refund: true},
			func(m *Message) { m.State, m.Due, m.Made = MessageWaiting, now, 2 },
		},
		"nor if it was asked for meanwhile": {
			func(m *Message) { m.Type, m.Again = TypeProgress, true },
			AttemptOutcome{State: MessageWaiting, Due: next},
			func(m *Message) {
				m.State, m.Due, m.Again, m.Manual = MessageWaiting, now, false, true
				m.Spared, m.Until = 3, now.Add(terms.Window)
			},
		},
		"progress that arrived is delivered": {
			func(m *Message) { m.Type = TypeProgress },
			AttemptOutcome{State: MessageDelivered},
			func(m *Message) { m.State, m.Due, m.Ended = MessageDelivered, time.Time{}, now },
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := waiting(TypeResults)
			got.Made = 2
			got.Begin(made.Add(time.Second))
			if got.State != MessageSending || got.Made != 3 || !got.Started.Equal(made.Add(time.Second)) {
				t.Fatalf("begun, it is %+v", got)
			}
			if c.before != nil {
				c.before(&got)
			}
			want := got
			want.Started = time.Time{}
			c.want(&want)
			got.Close(c.o, now, terms)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMessageEnd(t *testing.T) {
	m := waiting(TypeCompleted)
	m.Begin(made)
	m.Manual, m.Again = true, true
	m.End(MessageBlocked, "refused", made.Add(time.Second))
	want := Message{
		Type: TypeCompleted, Round: 1, State: MessageBlocked, Reason: "refused", Created: made, Until: made.Add(terms.Window),
		Made: 1, Ended: made.Add(time.Second),
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMessageRedeliver(t *testing.T) {
	now := made.Add(48 * time.Hour)
	for _, manual := range []bool{true, false} {
		for s := MessageWaiting; s <= MessagePulled; s++ {
			if s == MessageParked || s == MessageSending { // never kept; below
				continue
			}
			t.Run("begins anew from "+s.String(), func(t *testing.T) {
				m := waiting(TypeResults)
				m.ID, m.Made, m.Spared, m.Settled = MessageID{1}, 10, 3, true
				m.Head, m.Tail, m.Refs = []byte("{"), []byte("}"), []Ref{{To: 1}}
				m.State, m.Reason, m.Ended, m.Due = s, "because", now.Add(-time.Hour), now.Add(time.Hour)
				want := m
				want.State, want.Reason, want.Ended, want.Due = MessageWaiting, "", time.Time{}, now
				want.Spared, want.Until, want.Manual = 10, now.Add(terms.Window), manual
				m.Redeliver(now, terms, manual)
				if diff := cmp.Diff(want, m); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
	t.Run("lets an attempt in flight end first", func(t *testing.T) {
		m := waiting(TypeResults)
		m.Begin(made)
		want := m
		want.Again = true
		m.Redeliver(now, terms, true)
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestMessageLapsed(t *testing.T) {
	m := waiting(TypeResults)
	for name, c := range map[string]struct {
		now  time.Time
		want bool
	}{
		"before the end of its window": {m.Until.Add(-time.Nanosecond), false},
		"at its end":                   {m.Until, false},
		"a second later":               {m.Until.Add(time.Second), true},
		"later":                        {m.Until.Add(time.Hour), true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := m.Lapsed(c.now); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if (Message{State: MessagePulled}).Lapsed(made) {
		t.Error("a message that is never sent has no window to be spent")
	}
}

func TestMessageShown(t *testing.T) {
	now := made.Add(time.Minute)
	open := func(in time.Duration) Health { return Health{Room: 1, Pause: time.Minute, Until: now.Add(in)} }
	for name, c := range map[string]struct {
		m     func(*Message)
		hosts []Health
		state MessageState
		due   time.Time
	}{
		"nothing is known of the host":               {nil, nil, MessageWaiting, made},
		"the host is well":                           {nil, []Health{{Room: 16}, {}}, MessageWaiting, made},
		"the breaker is open":                        {nil, []Health{open(time.Second)}, MessageParked, now.Add(time.Second)},
		"the breaker of all tenants is open":         {nil, []Health{{Room: 16}, open(time.Second)}, MessageParked, now.Add(time.Second)},
		"both are open, the longer counts":           {nil, []Health{open(time.Hour), open(time.Second)}, MessageParked, now.Add(time.Hour)},
		"one is about to be let through":             {nil, []Health{open(-2 * time.Minute)}, MessageParked, made},
		"the host was just tried and not proven yet": {nil, []Health{{Room: 2, Pause: time.Minute}}, MessageWaiting, made},
		"it is not due anyway":                       {func(m *Message) { m.Due = now.Add(1) }, []Health{open(time.Hour)}, MessageWaiting, now.Add(1)},
		"it is due now":                              {func(m *Message) { m.Due = now }, []Health{open(time.Hour)}, MessageParked, now.Add(time.Hour)},
		"its owner asked for it":                     {func(m *Message) { m.Manual = true }, []Health{open(time.Hour)}, MessageWaiting, made},
		"it is the one that was let through":         {func(m *Message) { m.Begin(now) }, []Health{open(-1)}, MessageSending, made},
		"it is settled":                              {func(m *Message) { m.End(MessageExhausted, ReasonWindow, now) }, []Health{open(time.Hour)}, MessageExhausted, time.Time{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := waiting(TypeResults)
			if c.m != nil {
				c.m(&m)
			}
			want := m
			want.State, want.Due = c.state, c.due
			if diff := cmp.Diff(want, m.Shown(now, c.hosts...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever happens to a message, in any order, its record makes sense.
func TestMessageLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := waiting(rapid.SampledFrom([]string{TypeResults, TypeCompleted, TypeProgress}).Draw(t, "type"))
		now, until := made, m.Until
		counted, spared := 0, 0 // attempts; those before the schedule began anew
		anew := func() { spared, until = counted, now.Add(terms.Window) }
		again := false
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				settled, sending := m.State.Settled(), m.State == MessageSending
				switch {
				case m.Made != counted || m.Spared != spared || spared > counted:
					t.Fatalf("%d attempts, %d spared, not %d, %d", m.Made, m.Spared, counted, spared)
				case settled == m.Ended.IsZero():
					t.Fatalf("%s, it ended at %v", m.State, m.Ended)
				case (m.State == MessageWaiting) == m.Due.IsZero() && !sending:
					t.Fatalf("%s, it is due at %v", m.State, m.Due)
				case sending == m.Started.IsZero():
					t.Fatalf("%s, its attempt started at %v", m.State, m.Started)
				case m.Again && !sending, settled && m.Manual:
					t.Fatalf("%s, again %v, manual %v", m.State, m.Again, m.Manual)
				case m.Reason != "" && !settled:
					t.Fatalf("%s, because %q", m.State, m.Reason)
				case !m.Until.Equal(until):
					t.Fatalf("its window ends at %v, not %v", m.Until, until)
				}
				now = now.Add(time.Duration(rapid.IntRange(0, 3600).Draw(t, "seconds")) * time.Second)
			},
			"begin": func(t *rapid.T) {
				if m.State != MessageWaiting {
					return
				}
				m.Begin(now)
				counted++
			},
			"close": func(t *rapid.T) {
				if m.State != MessageSending {
					return
				}
				o := AttemptOutcome{State: rapid.SampledFrom(outcomes).Draw(t, "outcome")}
				if o.State == MessageWaiting {
					o.Due, o.Refund = now.Add(time.Minute), rapid.Bool().Draw(t, "refund")
				}
				m.Close(o, now, terms)
				if o.Refund {
					counted--
				}
				switch {
				case again:
					again = false
					anew()
					if m.State != MessageWaiting || !m.Manual || !m.Due.Equal(now) {
						t.Fatalf("asked for meanwhile, it is %+v", m)
					}
				case o.State == MessageWaiting && !o.Refund && m.Type == TypeProgress:
					if m.State != MessageExhausted {
						t.Fatalf("progress is tried again: %+v", m)
					}
				case m.State != o.State:
					t.Fatalf("%s, not %s", m.State, o.State)
				}
			},
			"end": func(t *rapid.T) {
				if m.State != MessageWaiting {
					return
				}
				m.End(MessageCanceled, "", now)
			},
			"redeliver": func(t *rapid.T) {
				manual := rapid.Bool().Draw(t, "manual")
				if m.State == MessageSending {
					again = true
				} else {
					anew()
				}
				m.Redeliver(now, terms, manual)
				if !again && (m.State != MessageWaiting || !m.Due.Equal(now) || m.Manual != manual) {
					t.Fatalf("redelivered, it is %+v", m)
				}
			},
		})
	})
}

// outcomes are how an attempt may leave its message.
var outcomes = []MessageState{MessageWaiting, MessageDelivered, MessageExhausted, MessageCanceled, MessageBlocked}

func TestRedeliveryWants(t *testing.T) {
	order := Redelivery{
		Tenant: TenantID{1}, State: MessageExhausted, Host: "shop.example:443", Since: made, Made: made.Add(time.Hour),
	}
	fits := Message{
		Tenant: TenantID{1}, State: MessageExhausted, Host: "shop.example:443", Created: made, Ended: made.Add(time.Hour),
	}
	for name, c := range map[string]struct {
		order func(*Redelivery)
		m     func(*Message)
		want  bool
	}{
		"all of it fits, to the edges":       {nil, nil, true},
		"another tenant's":                   {nil, func(m *Message) { m.Tenant = TenantID{2} }, false},
		"another state":                      {nil, func(m *Message) { m.State = MessageDelivered }, false},
		"it waits":                           {nil, func(m *Message) { m.State, m.Ended = MessageWaiting, time.Time{} }, false},
		"another host":                       {nil, func(m *Message) { m.Host = "shop.example:8443" }, false},
		"any host will do":                   {func(r *Redelivery) { r.Host = "" }, func(m *Message) { m.Host = "x" }, true},
		"made too early":                     {nil, func(m *Message) { m.Created = made.Add(-1) }, false},
		"any time will do":                   {func(r *Redelivery) { r.Since = time.Time{} }, func(m *Message) { m.Created = Epoch }, true},
		"settled after the order":            {nil, func(m *Message) { m.Ended = made.Add(time.Hour + 1) }, false},
		"made after the order, so not in it": {nil, func(m *Message) { m.Created, m.Ended = made.Add(2*time.Hour), made.Add(2*time.Hour) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			r, m := order, fits
			if c.order != nil {
				c.order(&r)
			}
			if c.m != nil {
				c.m(&m)
			}
			if got := r.Wants(m); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("what was sent again for it is not sent for it once more", func(t *testing.T) {
		m := fits
		for range 2 {
			m.Redeliver(order.Made.Add(time.Second), terms, false)
			if order.Wants(m) {
				t.Fatal("it waits already")
			}
			m.Begin(order.Made.Add(2 * time.Second))
			m.Close(AttemptOutcome{State: MessageExhausted}, order.Made.Add(3*time.Second), terms)
			if order.Wants(m) {
				t.Fatal("it would go round for ever")
			}
		}
	})
}

func TestMessageInterrupt(t *testing.T) {
	now := made.Add(time.Minute)
	m := waiting(TypeResults)
	m.Made, m.Spared = 2, 1
	for range 20 { // a crash loop
		m.Begin(now)
		m.Interrupt(now, terms)
	}
	if m.State != MessageWaiting || m.Made != 22 || m.Made-m.Spared != 1 || !m.Due.Equal(now) || !m.Until.Equal(made.Add(terms.Window)) {
		t.Errorf("got %+v", m)
	}
	m = waiting(TypeProgress)
	m.Begin(now)
	if m.Interrupt(now, terms); m.State != MessageExhausted || m.Reason != ReasonOnce {
		t.Errorf("word of a progress: %+v", m)
	}
	m = waiting(TypeResults)
	m.Begin(now)
	m.Redeliver(now, terms, true)
	if m.Interrupt(now, terms); m.State != MessageWaiting || !m.Manual || m.Made != 1 || m.Spared != 1 {
		t.Errorf("asked for once more meanwhile: %+v", m)
	}
}
