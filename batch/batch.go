package batch

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Options are what a client asks for with a batch. The zero value of each
// means the server's default.
type Options struct {
	Processor         string            `json:"processor,omitempty"`
	CallbackURL       string            `json:"callback_url,omitempty"`
	CallbackMode      Mode              `json:"callback_mode,omitempty"`
	CallbackEvents    []string          `json:"callback_events,omitempty"`     // wanted besides those that are always made: "batch.progress"
	CallbackHeaders   map[string]string `json:"callback_headers,omitempty"`    // extra headers for the receiver's gateway; never shown
	CallbackPageBytes int               `json:"callback_page_bytes,omitempty"` // most bytes of one message body, 1 KiB to 1 MiB
	CallbackPageItems int               `json:"callback_page_items,omitempty"` // most results in one message, 1 to 256
	IDField           string            `json:"id_field,omitempty"`            // JSON pointer to the client's own id inside each item
	Metadata          map[string]string `json:"metadata,omitempty"`
	Priority          Priority          `json:"priority,omitempty"`
	NotBefore         time.Time         `json:"not_before,omitzero"`    // nothing is started before
	ExpiresIn         time.Duration     `json:"expires_in,omitempty"`   // from acceptance until what is unfinished expires
	MaxAttempts       int               `json:"max_attempts,omitempty"` // per item, within the processor's own bound
	MaxFailures       Tolerance         `json:"max_failures,omitempty"` // beyond it the batch stops
	Concurrency       int               `json:"concurrency,omitempty"`  // most items of this batch in flight on one node
}

// Mode says how results reach the callback.
type Mode string

// The modes. ModeResults is the default.
const (
	ModeResults Mode = "results" // results travel in the webhooks
	ModeSummary Mode = "summary" // one terminal message with counts and a link
	ModePull    Mode = "pull"    // messages are made as for results, and not sent: the client reads them
)

// Priority is a weight in the sharing of slots, never a right of way.
type Priority string

// The priorities. PriorityNormal is the default.
const (
	PriorityHigh   Priority = "high"
	PriorityNormal Priority = "normal"
	PriorityLow    Priority = "low"
)

// Weight returns how many slots the priority gets for each one of "low".
func (p Priority) Weight() int {
	switch p {
	case PriorityHigh:
		return 4
	case PriorityLow:
		return 1
	default:
		return 2
	}
}

// Limits of what a batch may ask for, in the units of their options.
const (
	MaxMetadata         = 16
	MaxMetadataKey      = 64  // characters
	MaxMetadataValue    = 512 // characters
	MaxItemID           = 256 // bytes
	MaxDepth            = 100 // nesting of one item
	MaxCallbackURL      = 8192
	MinPageBytes        = 1 << 10 // beside the metadata, which every message bears
	MaxPageBytes        = 1 << 20
	DefaultPageBytes    = 96 << 10
	DefaultPageItems    = BlockItems
	MaxAttemptsPerItem  = 1000
	MaxBatchConcurrency = 100_000
	MaxExpiresIn        = 10 * 365 * 24 * time.Hour
	MaxCallbackHeaders  = 16
)

// WithDefaults returns o with the defaults of the contract filled in.
func (o Options) WithDefaults() Options {
	if o.CallbackMode == "" {
		o.CallbackMode = ModeResults
	}
	if o.Priority == "" {
		o.Priority = PriorityNormal
	}
	if o.CallbackPageBytes == 0 {
		o.CallbackPageBytes = DefaultPageBytes
	}
	if o.CallbackPageItems == 0 {
		o.CallbackPageItems = DefaultPageItems
	}
	return o
}

// Validate returns everything wrong with the options, or nothing. It judges
// the form only: whether the processor exists and where the callback may
// point is for the server to say.
func (o Options) Validate() []Problem {
	var ps []Problem
	bad := func(pointer, code, format string, args ...any) {
		ps = append(ps, Problem{Index: -1, Line: -1, Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...)})
	}
	if len(o.CallbackURL) > MaxCallbackURL {
		bad("/callback_url", "too_long", "a callback URL has at most %d bytes", MaxCallbackURL)
	}
	switch o.CallbackMode {
	case "", ModeResults, ModeSummary, ModePull:
	default:
		bad("/callback_mode", "unknown_value", `callback_mode is "results", "summary" or "pull", not %q`, clip(string(o.CallbackMode)))
	}
	for i, e := range o.CallbackEvents {
		if e != TypeProgress {
			bad(fmt.Sprintf("/callback_events/%d", i), "unknown_value", "%q is no event to be asked for: there is %q, and the end of the batch is always told", clip(e), TypeProgress)
			break
		}
	}
	switch o.Priority {
	case "", PriorityHigh, PriorityNormal, PriorityLow:
	default:
		bad("/priority", "unknown_value", `priority is "high", "normal" or "low", not %q`, clip(string(o.Priority)))
	}
	between := func(pointer string, v, low, high int) {
		if v != 0 && (v < low || v > high) {
			bad(pointer, "out_of_range", "%s is %d to %d, not %d", pointer[1:], low, high, v)
		}
	}
	between("/callback_page_bytes", o.CallbackPageBytes, MinPageBytes, MaxPageBytes)
	between("/callback_page_items", o.CallbackPageItems, 1, BlockItems)
	between("/max_attempts", o.MaxAttempts, 1, MaxAttemptsPerItem)
	between("/concurrency", o.Concurrency, 1, MaxBatchConcurrency)
	o.validateTimes(bad)
	if !o.MaxFailures.valid() {
		bad("/max_failures", "bad_tolerance", `max_failures is a count such as 10, or a share such as "5%%" of at most 100%%, not %q`, clip(string(o.MaxFailures)))
	}
	if least := MinPageBytes + o.metadataBytes(); o.CallbackPageBytes >= MinPageBytes && o.CallbackPageBytes < least {
		bad("/callback_page_bytes", "out_of_range", "callback_page_bytes is at least %d with this metadata, which every message bears", least)
	}
	if o.IDField != "" && !isPointer(o.IDField) {
		bad("/id_field", "bad_pointer", `id_field is a JSON pointer such as "/order_id"`)
	}
	o.validateMetadata(bad)
	return ps
}

func (o Options) validateTimes(bad func(pointer, code, format string, args ...any)) {
	if year := o.NotBefore.UTC().Year(); year < 1 || year > 9999 {
		bad("/not_before", "out_of_range", "not_before is in the year %d: there are none but 1 to 9999", year)
	}
	if o.ExpiresIn != 0 && (o.ExpiresIn < time.Millisecond || o.ExpiresIn > MaxExpiresIn) {
		bad("/expires_in", "out_of_range", `expires_in is "1ms" to "%dh", not %q`, int(MaxExpiresIn.Hours()), o.ExpiresIn)
	}
}

func (o Options) validateMetadata(bad func(pointer, code, format string, args ...any)) {
	if len(o.Metadata) > MaxMetadata {
		bad("/metadata", "too_many", "metadata has at most %d pairs, not %d", MaxMetadata, len(o.Metadata))
		return
	}
	for k, v := range o.Metadata {
		at := "/metadata/" + escapePointer(clip(k))
		switch {
		case k == "" || utf8.RuneCountInString(k) > MaxMetadataKey:
			bad(at, "bad_key", "a metadata key has 1 to %d characters", MaxMetadataKey)
		case utf8.RuneCountInString(v) > MaxMetadataValue:
			bad(at, "too_long", "a metadata value has at most %d characters", MaxMetadataValue)
		}
	}
}

// metadataBytes returns how much longer the metadata makes a message.
func (o Options) metadataBytes() (n int) {
	for k, v := range o.Metadata {
		n += len(appendString(nil, k)) + len(appendString(nil, v)) + len(`:,`)
	}
	return n
}

// isPointer reports whether s is a JSON pointer (RFC 6901) to something
// inside a document.
func isPointer(s string) bool {
	if s == "" || s[0] != '/' || len(s) > 1024 || !utf8.ValidString(s) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] == '~' && (i+1 == len(s) || s[i+1] != '0' && s[i+1] != '1') {
			return false
		}
	}
	return true
}

func escapePointer(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}

// clip bounds what a stranger sent before it goes into a message.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Counts say where the items of a batch are. They sum to Total at every
// moment.
type Counts struct {
	Total     int `json:"total"`
	Pending   int `json:"pending"`
	Running   int `json:"running"`
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
	Canceled  int `json:"canceled"`
	Expired   int `json:"expired"`
}

// Finished returns how many items have their result of this round.
func (c Counts) Finished() int { return c.Succeeded + c.Failed + c.Canceled + c.Expired }

// Spec is the part of a batch that work does not change: what was asked for,
// which its owner may amend, and what was sent.
type Spec struct {
	ID      ID
	Tenant  TenantID
	Options Options
	BaseURL string // the server's public URL when the batch was accepted, for links; empty if unknown
	Items   int
	Blocks  int
	Bytes   int64 // of the items as sent, decoded
	Created time.Time
	Edition int // rises with every change by its owner

	// Of a batch that is sent in parts. While it is open Items, Blocks and Bytes
	// grow with its parts.
	Parts   Layout    `json:",omitempty"` // once it is sealed
	Touched time.Time `json:",omitzero"`  // while it is open: when a part last came or went
}

// Progress is the part of a batch that work changes. It is small: every
// recorded group of outcomes rewrites it.
type Progress struct {
	Status   Status
	Reason   string // why it ended as it did, if not by itself
	Round    int
	Done     Tally     // of the current round: what has a result
	Open     int       // blocks of the round that are not finished
	LaidOut  int       // of a later round: blocks that were looked at for what it has to do in them
	Kept     int       // of Done: items that had failed before the round and are not in it
	Accepted time.Time // when it was accepted or sealed, or the round opened: its deadline counts from here
	Expires  time.Time // the deadline; zero: none
	Lapsed   bool      // the deadline has passed: nothing starts any more, and what is left will expire
	Started  time.Time
	Finished time.Time
	Messages Ledger
	Terminal MessageID // of this round; zero until the round is over, or without a callback
	Told     Told
	Digest   uint64 // sum over all results of a hash of round, index and bytes
	Version  uint64 // rises with every change
}

// Told is what batch.progress has said in this round.
type Told struct {
	Message MessageID // the last
	Tenth   int       // of the items that had their result then, 1 to 9
	At      time.Time
}

// A Tally counts results by how they ended.
type Tally struct{ Succeeded, Failed, Canceled, Expired int }

// Sum returns how many results the tally counts.
func (t Tally) Sum() int { return t.Succeeded + t.Failed + t.Canceled + t.Expired }

// Add counts n more results that ended as s.
func (t *Tally) Add(s ItemStatus, n int) {
	switch s {
	case ItemSucceeded:
		t.Succeeded += n
	case ItemFailed:
		t.Failed += n
	case ItemCanceled:
		t.Canceled += n
	case ItemExpired:
		t.Expired += n
	}
}

// Plus returns the two tallies together.
func (t Tally) Plus(u Tally) Tally {
	return Tally{t.Succeeded + u.Succeeded, t.Failed + u.Failed, t.Canceled + u.Canceled, t.Expired + u.Expired}
}

// Minus returns the tally without what u counts.
func (t Tally) Minus(u Tally) Tally {
	return Tally{t.Succeeded - u.Succeeded, t.Failed - u.Failed, t.Canceled - u.Canceled, t.Expired - u.Expired}
}

// A Ledger counts the messages of a batch by how they stand.
type Ledger struct {
	Round     int // result messages made in the current round
	Owed      int // of those, not settled yet: the terminal message waits for them
	Waiting   int // all rounds: not settled
	Delivered int
	Exhausted int
	Other     int // canceled, blocked, pulled
}

// A Batch is a set of items sent together, as it stands.
type Batch struct {
	Spec
	Progress
	InFlight  int     // items being worked on at this moment, at most what is unfinished
	WaitingOn string  // why it is not moving, if it is not: see [Standstill.Why]
	Rate      float64 // items a second, lately; 0 while unknown
}

// Counts returns the counts of the batch, which sum to its total.
func (b Batch) Counts() Counts {
	unfinished := b.Items - b.Done.Sum()
	running := max(0, min(b.InFlight, unfinished))
	if b.Status.Terminal() {
		running = 0
	}
	return Counts{
		Total: b.Items, Pending: unfinished - running, Running: running,
		Succeeded: b.Done.Succeeded, Failed: b.Done.Failed, Canceled: b.Done.Canceled, Expired: b.Done.Expired,
	}
}

// Messages reports whether there are any for the batch: they are sent, or
// made to be pulled.
func (o Options) Messages() bool { return o.CallbackURL != "" || o.CallbackMode == ModePull }

// Wants reports whether the client asked for an event.
func (o Options) Wants(event string) bool { return slices.Contains(o.CallbackEvents, event) }

// CallbackStatus returns how the deliveries of the batch stand as a whole.
// What was blocked or canceled is as little delivered as what is exhausted.
// Of messages to be pulled it tells only about those that were redelivered.
func (b Batch) CallbackStatus() string {
	m, sent := b.Messages, b.Options.CallbackURL != "" && b.Options.CallbackMode != ModePull
	switch {
	case !sent && m.Waiting+m.Delivered+m.Exhausted == 0:
		return "none"
	case m.Waiting > 0 && (m.Delivered > 0 || b.Status.Terminal() || !sent):
		return "delivering"
	case sent && (m.Waiting > 0 || !b.Status.Terminal()):
		return "waiting"
	case m.Exhausted > 0 || sent && m.Other > 0:
		return "exhausted"
	default:
		return "delivered"
	}
}

// MaskURL returns a callback URL fit to be shown: without its user info and
// with the values of its query hidden.
func MaskURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	u.User = nil
	if u.RawQuery != "" {
		var parts []string
		for _, p := range strings.Split(u.RawQuery, "&") {
			name, _, named := strings.Cut(p, "=")
			if name += "=***"; !named { // then it may be a secret itself
				name = "***"
			}
			parts = append(parts, name)
		}
		u.RawQuery = strings.Join(parts, "&")
	}
	return u.String()
}
