package batch

import (
	"strconv"
	"strings"
	"time"
)

// The most a block holds, whichever is reached first. A range of a callback
// is a block, so these are fixed when a batch is accepted.
const (
	BlockItems = 256
	BlockBytes = 256 << 10
)

// An Item is one JSON value of a batch, as it was sent.
type Item struct {
	ID  string // the client's own; empty means the index as text
	Raw []byte // the value's bytes, untouched
}

// A Block is a run of consecutive items: what is stored, claimed and
// released as one. First is the index of its first item.
type Block struct {
	First int
	Items []Item
}

// A BlockKey names a block within a tenant's batch. A plain submission is
// part 0.
type BlockKey struct {
	Tenant TenantID
	Batch  ID
	Part   uint32
	Number uint32
}

// A Result is the one recorded outcome of an item in a round.
type Result struct {
	Index    int    // of the item in its batch
	ID       string // the client's own; empty means the index as text
	Round    int
	Status   ItemStatus // succeeded, failed, canceled or expired
	Attempts int        // 0 if it never ran
	Finished time.Time
	Payload  []byte // the output's JSON if it succeeded, else the error object's JSON; without line breaks
}

// ItemText returns the id an item is addressed by.
func ItemText(id string, index int) string {
	if id != "" {
		return id
	}
	return strconv.Itoa(index)
}

// A Failure is the error of an item: what a client reads, and what decides
// whether to try again. Processors return it; any other error of theirs
// becomes code processor_error with its text kept from clients.
type Failure struct {
	Code           string `json:"code"` // of the closed list of the contract, or app.…
	Message        string `json:"message"`
	UpstreamStatus int    `json:"upstream_status,omitempty"`
	Body           string `json:"body,omitempty"`      // at most 4 KiB of what the upstream said
	Truncated      bool   `json:"truncated,omitempty"` // in a message it did not fit: the API has all of it

	Retry      bool          `json:"-"` // worth another attempt
	RetryAfter time.Duration `json:"-"` // the other side asked to be left alone this long: all items of the processor wait
	Down       bool          `json:"-"` // the upstream as a whole did not answer: counts towards its breaker
	Untried    bool          `json:"-"` // nobody has seen the item, so this costs it no attempt; goes with Down
	Died       bool          `json:"-"` // whoever worked on the item died of it
}

// The codes of items, a closed list but for app.….
const (
	CodeUpstreamStatus      = "upstream_status"
	CodeUpstreamUnreachable = "upstream_unreachable"
	CodeTimeout             = "timeout"
	CodeProcessorError      = "processor_error"
	CodeBadOutput           = "bad_output"
	CodeOutputTooLarge      = "output_too_large"
	CodePoison              = "poison"
	CodeTooManyFailures     = "too_many_failures"
	CodeCanceled            = "canceled"
	CodeExpired             = "expired"
)

func (f *Failure) Error() string { return f.Code + ": " + f.Message }

// JSON returns the failure as the error object of a result.
func (f *Failure) JSON() []byte {
	b, err := marshal(f)
	if err != nil {
		panic("batch: a failure is plain data: " + err.Error())
	}
	return b
}

// EndedResult returns the result of an item that has none of its own in a
// round that is over, or about to be. For items that never ran it is derived,
// never stored: a whole batch ends in one small record.
func EndedResult(index int, id string, p Progress, attempts int) Result {
	f := Failure{Code: CodeCanceled, Message: "the batch was canceled"}
	r := Result{Index: index, ID: id, Round: p.Round, Status: ItemCanceled, Attempts: attempts, Finished: p.Finished}
	switch {
	case p.Status == Expired || p.Lapsed:
		r.Status, f = ItemExpired, Failure{Code: CodeExpired, Message: "the batch expired"}
	case p.Reason == CodeTooManyFailures:
		f = Failure{Code: CodeTooManyFailures, Message: "the batch stopped after too many failures"}
	}
	if f.Message += " before this item ran"; attempts > 0 {
		f.Message = strings.TrimSuffix(f.Message, "ran") + "was tried again"
	}
	r.Payload = f.JSON()
	return r
}

// An Again is an item that goes back to wait for its next attempt.
type Again struct {
	Index    int
	Attempts int // made so far
	Deaths   int // of workers at it, or of the process
	Due      time.Time
}
