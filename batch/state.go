package batch

import "fmt"

// Status is where a batch is in its life.
//
//	open ──seal──▶ queued ──first item──▶ running ──last item──▶ completed
//	                 │  ╲                 ╱   │
//	                 │   ╰──── paused ◀──╯    ├──cancel──▶ canceling ──last in flight──▶ canceled
//	                 ╰────────────────────────┴──deadline──────────────────────────────▶ expired
type Status uint8

// The states of a batch. The numbers are kept on disk.
const (
	Open Status = iota + 1
	Queued
	Running
	Paused
	Canceling
	Completed
	Canceled
	Expired
)

var statusNames = [...]string{
	Open: "open", Queued: "queued", Running: "running", Paused: "paused",
	Canceling: "canceling", Completed: "completed", Canceled: "canceled", Expired: "expired",
}

// transitions is the state table: from each state, where a batch may go.
var transitions = map[Status][]Status{
	Open:      {Queued},
	Queued:    {Running, Paused, Canceling, Completed, Expired},
	Running:   {Queued, Paused, Canceling, Completed, Expired},
	Paused:    {Queued, Running, Canceling, Completed, Expired},
	Canceling: {Canceled},
	Completed: {Queued},
	Canceled:  {Queued},
	Expired:   {Queued},
}

// CanBecome reports whether the state table has an arrow from s to next.
func (s Status) CanBecome(next Status) bool {
	for _, t := range transitions[s] {
		if t == next {
			return true
		}
	}
	return false
}

// Terminal reports whether the batch's round is over.
func (s Status) Terminal() bool { return s == Completed || s == Canceled || s == Expired }

// Claimable reports whether new work of the batch may start.
func (s Status) Claimable() bool { return s == Queued || s == Running }

func (s Status) String() string               { return name(statusNames[:], int(s)) }
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s *Status) UnmarshalText(b []byte) error {
	return parseName(statusNames[:], "batch status", b, (*uint8)(s))
}

// ItemStatus is where an item is in the current round.
//
//	pending ──granted a slot──▶ running ──▶ succeeded | failed
//	   ▲                           │
//	   ╰──── to be tried again ────╯        pending ──the batch ends──▶ canceled | expired
type ItemStatus uint8

// The states of an item. The numbers are kept on disk.
const (
	ItemPending ItemStatus = iota
	ItemRunning
	ItemSucceeded
	ItemFailed
	ItemCanceled
	ItemExpired
)

var itemStatusNames = [...]string{"pending", "running", "succeeded", "failed", "canceled", "expired"}

// Terminal reports whether the item has its one result of this round.
func (s ItemStatus) Terminal() bool { return s >= ItemSucceeded }

func (s ItemStatus) String() string               { return name(itemStatusNames[:], int(s)) }
func (s ItemStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s *ItemStatus) UnmarshalText(b []byte) error {
	return parseName(itemStatusNames[:], "item status", b, (*uint8)(s))
}

// MessageState is where the delivery of a message is.
//
//	pulled ◀──to be pulled── made ──▶ waiting ──claimed──▶ sending ──2xx──▶ delivered
//	                                   │ ▲ ▲                │ ├──410, 413, schedule spent──▶ exhausted
//	                                   │ │ ╰──anything else─╯ ╰──refused by policy──▶ blocked
//	          breaker of its host open │ │ closed, or one let through
//	                                   ▼ │
//	                                  parked ──window spent──▶ exhausted
//
// A message that is not wanted any more is canceled. Whatever is settled
// begins again with waiting when it is redelivered. Parked is not kept: it is
// a message that waits while the breaker of its host is open.
type MessageState uint8

// The states of a message. The numbers are kept on disk.
const (
	MessageWaiting MessageState = iota + 1
	MessageSending
	MessageParked
	MessageDelivered
	MessageExhausted
	MessageCanceled
	MessageBlocked
	MessagePulled
)

var messageStateNames = [...]string{
	MessageWaiting: "waiting", MessageSending: "sending", MessageParked: "parked",
	MessageDelivered: "delivered", MessageExhausted: "exhausted", MessageCanceled: "canceled",
	MessageBlocked: "blocked", MessagePulled: "pulled",
}

// Settled reports whether nothing is owed for the message any more.
func (s MessageState) Settled() bool { return s >= MessageDelivered }

func (s MessageState) String() string               { return name(messageStateNames[:], int(s)) }
func (s MessageState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s *MessageState) UnmarshalText(b []byte) error {
	return parseName(messageStateNames[:], "message status", b, (*uint8)(s))
}

func name(names []string, i int) string {
	if i < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("unknown(%d)", i)
}

func parseName(names []string, what string, b []byte, out *uint8) error {
	for i, n := range names {
		if n != "" && n == string(b) {
			*out = uint8(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not a %s", b, what)
}
