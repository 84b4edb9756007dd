package batch

import "time"

// The types of messages.
const (
	TypeCompleted = "batch.completed"
	TypeCanceled  = "batch.canceled"
	TypeExpired   = "batch.expired"
	TypeResults   = "batch.results"
	TypeProgress  = "batch.progress"
	TypeTest      = "callback.test"
)

// Terms are what holds for all batches and messages of a store. The zero value
// is the contract's, but for the retention.
type Terms struct {
	Hold   time.Duration // longest wait of a terminal message for the result messages; default 60 s
	Window time.Duration // from when a message is made, or redelivered, until its last attempt may start; default 7 days
	Links  Links         // what the links in messages are signed with

	// Retention is from the end of a batch until it is removed, if nothing is
	// owed then. Zero: it stays; only a server knows how long it should.
	Retention time.Duration
}

// WithDefaults returns t with the zero fields filled in.
func (t Terms) WithDefaults() Terms {
	if t.Hold == 0 {
		t.Hold = time.Minute
	}
	if t.Window == 0 {
		t.Window = 7 * 24 * time.Hour
	}
	return t
}

// A Message is one webhook to be delivered. Its body is the same bytes on
// every attempt: Head and Tail are frozen when it is made, and between them
// stand the results that Refs name, which never change either.
type Message struct {
	ID      MessageID
	Tenant  TenantID
	Batch   ID
	Type    string
	Round   int
	Host    string // host:port of the callback URL: whose lane it waits in
	State   MessageState
	Reason  string // why it will not be sent any more, if it was not delivered
	Created time.Time
	Until   time.Time // no attempt is due later; zero: none is
	Ended   time.Time // when it was settled; zero while it is owed
	Due     time.Time // next attempt, while waiting
	Made    int       // attempts begun
	Spared  int       // of those, made before its schedule began anew
	Started time.Time // of the attempt in flight, while sending

	Manual  bool // its next attempt, or the one in flight, was asked for: made whatever the host's health, and without effect on it
	Again   bool // asked for while an attempt was in flight: one more follows
	Settled bool // it was settled once: the terminal message waits for it no longer

	Head []byte
	Tail []byte
	Refs []Ref

	Carried []Result // those that Refs name, within the step that makes the message; not kept
}

// Result reports whether the message carries results of a range: the
// terminal message waits for these.
func (m Message) Result() bool { return m.Type == TypeResults }

// Size is how many bytes of the message itself are kept: what it carries by
// reference is not among them.
func (m Message) Size() int { return len(m.Head) + len(m.Tail) }

// Owed reports whether the batch counts the message. Word of the progress is
// nothing that is owed: it is tried once, and the next replaces it.
func (m Message) Owed() bool { return m.Type != TypeProgress }

// Lapses returns when the time for attempts is spent, never if it is zero: a
// second after Until, so that an attempt that is due then is made.
func (m Message) Lapses() time.Time {
	if m.Until.IsZero() {
		return m.Until
	}
	return m.Until.Add(time.Second)
}

// Lapsed reports whether the time for attempts is spent.
func (m Message) Lapsed(now time.Time) bool { return !m.Until.IsZero() && !now.Before(m.Lapses()) }

// The reasons of messages that end by themselves.
const (
	ReasonWindow   = "the time for attempts is spent"
	ReasonSteps    = "the attempts of the schedule are spent"
	ReasonOnce     = "progress is told once: the next message replaces it"
	ReasonReplaced = "a newer message replaced it"
)

// Begin starts the next attempt.
func (m *Message) Begin(now time.Time) {
	m.State, m.Made, m.Started = MessageSending, m.Made+1, now.UTC()
}

// Close ends the attempt in flight as o says. A message that was asked for
// meanwhile goes out once more.
func (m *Message) Close(o AttemptOutcome, now time.Time, t Terms) {
	if o.Refund {
		m.Made--
	} else {
		m.Manual = false
	}
	m.Started = time.Time{}
	switch {
	case m.Again:
		m.Again = false
		m.wait(now, t)
		m.Manual = true
	case o.State == MessageWaiting && !o.Refund && !m.Owed():
		m.End(MessageExhausted, ReasonOnce, now)
	case o.State == MessageWaiting:
		m.State, m.Due = MessageWaiting, o.Due.UTC()
	default:
		m.End(o.State, o.Reason, now)
	}
}

// Interrupt ends the attempt in flight when it turns out that a crash cut it
// short. It may have arrived, so it counts among the attempts, but it takes no
// step of the schedule: the message goes again at once, until its window ends.
func (m *Message) Interrupt(now time.Time, t Terms) {
	m.Close(AttemptOutcome{State: MessageWaiting, Due: now}, now, t)
	if !m.State.Settled() {
		m.Spared = min(m.Spared+1, m.Made)
	}
}

// End settles the message.
func (m *Message) End(as MessageState, reason string, now time.Time) {
	m.State, m.Reason = as, reason
	m.Due, m.Ended, m.Started = time.Time{}, now.UTC(), time.Time{}
	m.Manual, m.Again = false, false
}

// Redeliver has the message sent once more, now, whatever its state, with its
// schedule and its window begun anew; its attempts are counted on. One that
// is being sent goes out again afterwards. A single message that its owner
// asks for (manual) is sent even if its host's breaker is open.
func (m *Message) Redeliver(now time.Time, t Terms, manual bool) {
	if m.State == MessageSending {
		m.Again = true
		return
	}
	m.wait(now, t)
	m.Manual = manual
}

func (m *Message) wait(now time.Time, t Terms) {
	m.State, m.Reason, m.Due, m.Ended = MessageWaiting, "", now.UTC(), time.Time{}
	m.Spared, m.Until = m.Made, now.Add(t.WithDefaults().Window).UTC()
}

// Shown returns the message as it is shown: one that could go now, were it
// not for an open breaker of its host, is parked until that lets one through.
func (m Message) Shown(now time.Time, hosts ...Health) Message {
	if m.State != MessageWaiting || m.Manual || m.Due.After(now) {
		return m
	}
	for _, h := range hosts {
		if h.Open() {
			m.State = MessageParked
			if h.Until.After(m.Due) {
				m.Due = h.Until
			}
		}
	}
	return m
}

// A Ref names results of one block: those of a round with From <= index < To.
type Ref struct {
	Part   uint32
	Number uint32
	Round  int
	From   int
	To     int
}

// An Attempt is one try to deliver a message, as it is kept and shown.
// Everything the other side sent is bounded and printable before it gets
// here; signatures and secrets are masked.
type Attempt struct {
	Number         int               `json:"number"`
	Started        time.Time         `json:"started_at"`
	Took           Took              `json:"took_ms"`
	RemoteAddr     string            `json:"remote_addr,omitempty"`
	RequestHeaders map[string]string `json:"request_headers,omitempty"`
	Response       *Response         `json:"response"`
	Error          *AttemptError     `json:"error"`
}

// Took is where an attempt's time went, in milliseconds.
type Took struct {
	DNS       int64 `json:"dns"`
	Connect   int64 `json:"connect"`
	TLS       int64 `json:"tls"`
	FirstByte int64 `json:"first_byte"`
	Total     int64 `json:"total"`
}

// A Response is what a receiver answered: at most 16 KiB of its body.
type Response struct {
	Status    int               `json:"status"`
	Headers   map[string]string `json:"headers"`
	Body      string            `json:"body"`
	Truncated bool              `json:"truncated"`
}

// An AttemptError says why an attempt did not deliver: a category of the
// closed list of the contract, and a detail without secrets.
type AttemptError struct {
	Category string `json:"category"`
	Detail   string `json:"detail"`
}

// MostAttempts is how many attempts of a message are kept: the last ones. A
// schedule has fewer; only redelivery goes beyond.
const MostAttempts = 100

// Interrupted is the category of an attempt that a crash cut short.
const Interrupted = "interrupted"

// Post counts a new message of the batch.
func (p *Progress) Post(m Message) {
	p.Version++
	switch {
	case !m.Owed():
		p.Told.Message = m.ID
		return
	case m.Result():
		p.Messages.Round++
	default:
		p.Terminal = m.ID
	}
	if m.State.Settled() { // it is to be pulled
		p.Messages.Other++
		return
	}
	p.Messages.Waiting++
	if m.Result() {
		p.Messages.Owed++
	}
}

// Deliver counts a message that was settled as its state says. It returns
// whether the terminal message has nothing more to wait for.
func (p *Progress) Deliver(m *Message) (release bool) {
	p.Version++
	if !m.Owed() {
		return false
	}
	p.Messages.Waiting--
	*p.Messages.settled(m.State)++
	first := !m.Settled
	m.Settled = true
	if !first || !m.Result() || m.Round != p.Round {
		return false
	}
	p.Messages.Owed--
	return p.Messages.Owed == 0 && p.Terminal != MessageID{}
}

// Reopen counts a message that was settled as from and is to be sent again.
func (p *Progress) Reopen(m Message, from MessageState) {
	p.Version++
	if m.Owed() && from.Settled() {
		*p.Messages.settled(from)--
		p.Messages.Waiting++
	}
}

// settled returns where messages settled as s are counted.
func (l *Ledger) settled(s MessageState) *int {
	switch s {
	case MessageDelivered:
		return &l.Delivered
	case MessageExhausted:
		return &l.Exhausted
	default:
		return &l.Other
	}
}

// A Redelivery is the order to send all messages once more that were settled
// as State before it was made. It is carried out step by step.
type Redelivery struct {
	Tenant  TenantID     `json:"tenant"`
	State   MessageState `json:"state"`          // one that is settled
	Host    string       `json:"host,omitempty"` // empty: any
	Since   time.Time    `json:"since,omitzero"` // messages made then or later
	Made    time.Time    `json:"made"`
	After   MessageID    `json:"after"` // how far it has come
	Wanted  int          `json:"wanted"`
	Reached int          `json:"reached"`
}

// Wants reports whether a message is among those to be sent again. Word of a
// progress that is past is not.
func (r Redelivery) Wants(m Message) bool {
	return m.Tenant == r.Tenant && m.State == r.State && m.Owed() && (r.Host == "" || r.Host == m.Host) &&
		!m.Created.Before(r.Since) && !m.Ended.After(r.Made)
}
