package batch

import "time"

// The types of messages.
const (
	TypeCompleted = "batch.completed"
	TypeCanceled  = "batch.canceled"
	TypeExpired   = "batch.expired"
	TypeResults   = "batch.results"
)

// A Message is one webhook to be delivered. Its body is the same bytes on
// every attempt: Head and Tail are frozen when it is made, and between them
// stand the results that Refs name, which never change either.
type Message struct {
	ID      MessageID
	Tenant  TenantID
	Batch   ID
	Type    string
	Round   int
	Host    string // host:port of the callback URL when it was made: whose lane it waits in
	State   MessageState
	Reason  string // why it will not be sent any more, if it was not delivered
	Created time.Time
	Due     time.Time // next attempt, while waiting
	Made    int       // attempts begun
	Started time.Time // of the attempt in flight, while sending

	Head []byte
	Tail []byte
	Refs []Ref
}

// Result reports whether the message carries results of a range: the
// terminal message waits for these.
func (m Message) Result() bool { return m.Type == TypeResults }

// A Ref names results of one block: those of a round with From <= index < To.
type Ref struct {
	Part   uint32
	Number uint32
	Round  int
	From   int
	To     int
	Bare   bool // the one result is too large for a message: it is there without its output
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

// Interrupted is the category of an attempt that a crash cut short.
const Interrupted = "interrupted"

// Post counts a new message of the batch.
func (p *Progress) Post(m Message) {
	p.Messages.Waiting++
	if m.Result() {
		p.Messages.Round++
		p.Messages.Owed++
	} else {
		p.Terminal = m.ID
	}
	p.Version++
}

// Deliver counts a message that was settled as to. It returns whether the
// terminal message has nothing more to wait for.
func (p *Progress) Deliver(m Message, to MessageState) (release bool) {
	p.Messages.Waiting--
	switch to {
	case MessageDelivered:
		p.Messages.Delivered++
	case MessageExhausted:
		p.Messages.Exhausted++
	default:
		p.Messages.Other++
	}
	p.Version++
	if !m.Result() || m.Round != p.Round {
		return false
	}
	p.Messages.Owed--
	return p.Messages.Owed == 0 && p.Terminal != MessageID{}
}
