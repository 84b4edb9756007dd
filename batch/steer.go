package batch

import (
	"maps"
	"reflect"
	"strings"
	"time"
)

// Accept begins a round: from now its deadline counts, if it has one.
func (p *Progress) Accept(o Options, now time.Time) {
	p.Accepted, p.Expires, p.Lapsed, p.Reason = now, time.Time{}, false, ""
	p.expireIn(o.ExpiresIn)
}

func (p *Progress) expireIn(d time.Duration) {
	if p.Expires = (time.Time{}); d > 0 {
		p.Expires = p.Accepted.Add(d).Truncate(time.Millisecond)
	}
}

// Cancel begins the end of a batch at its owner's wish. It is idempotent;
// a batch that has ended otherwise refuses with wrong_state.
func (p *Progress) Cancel() (changed bool, err error) {
	switch {
	case p.Status == Canceling || p.Status == Canceled:
		return false, nil
	case p.ending() || !p.Status.CanBecome(Canceling):
		return false, p.wrongState("only a batch that is sealed and has not ended can be canceled")
	}
	p.Status = Canceling
	p.Version++
	return true, nil
}

// Pause lets nothing more of a batch start, until Resume. It is idempotent; a
// batch that has ended, or is about to, refuses with wrong_state.
func (p *Progress) Pause() (changed bool, err error) {
	switch {
	case p.ending() || p.Status != Paused && !p.Status.CanBecome(Paused):
		return false, p.wrongState("only a batch that is queued or running can be paused")
	case p.Status == Paused:
		return false, nil
	}
	p.Status = Paused
	p.Version++
	return true, nil
}

// Resume lets a paused batch go on. It is idempotent; a batch that has ended,
// or is about to, refuses with wrong_state.
func (p *Progress) Resume() (changed bool, err error) {
	switch {
	case p.ending() || p.Status != Paused && !p.Status.Claimable():
		return false, p.wrongState("only a batch that is paused can be resumed")
	case p.Status != Paused:
		return false, nil
	}
	p.Status = Running
	if p.Started.IsZero() || p.Started.Before(p.Accepted) {
		p.Status = Queued
	}
	p.Version++
	return true, nil
}

// Lapse begins the end of a batch whose deadline has passed. Against a cancel
// and the end there is one winner.
func (p *Progress) Lapse(now time.Time) (changed bool) {
	if p.ending() || p.Expires.IsZero() || now.Before(p.Expires) || !p.Status.CanBecome(Expired) {
		return false
	}
	p.Lapsed = true
	p.Version++
	return true
}

// Bears reports whether the batch goes on when so many items of a round have
// failed. Those that failed in earlier rounds, and are not in it, do not count.
func (s Spec) Bears(failed int) bool {
	most := s.Options.MaxFailures
	return most == "" || failed <= most.Allows(s.Items)
}

// Failed returns how many items of the round have failed.
func (p Progress) Failed() int { return p.Done.Failed - p.Kept }

// Strain begins the end of a batch of which more items failed than may.
func (p *Progress) Strain(s Spec) (changed bool) {
	if p.ending() || s.Bears(p.Failed()) || !p.Status.CanBecome(Canceling) {
		return false
	}
	p.Status, p.Reason = Canceling, CodeTooManyFailures
	p.Version++
	return true
}

// ending reports whether the end of the batch has begun: nothing takes that
// back.
func (p Progress) ending() bool { return p.Lapsed || p.Status == Canceling }

// wrongState says that the batch does not allow what was asked for.
func (p Progress) wrongState(only string) error {
	if p.Lapsed && !p.Status.Terminal() {
		return Refuse(Conflict, "wrong_state", "the deadline of the batch has passed: %s", only)
	}
	return Refuse(Conflict, "wrong_state", "the batch is %s: %s", p.Status, only)
}

// A Gate says when work of a batch may start.
type Gate struct {
	Status    Status
	Lapsed    bool
	NotBefore time.Time
	Expires   time.Time
}

// Gate returns the gate of a batch with these options.
func (p Progress) Gate(o Options) Gate {
	return Gate{Status: p.Status, Lapsed: p.Lapsed, NotBefore: o.NotBefore, Expires: p.Expires}
}

// Ending reports whether nothing will start any more, and the batch ends once
// nothing of it is in anybody's hands.
func (g Gate) Ending() bool { return g.Status == Canceling || g.Lapsed }

// Open reports whether work may start. If it may not yet, until says from when
// on it may.
func (g Gate) Open(now time.Time) (ok bool, until time.Time) {
	switch {
	case g.Ending() || !g.Status.Claimable() || !g.Expires.IsZero() && !now.Before(g.Expires):
		return false, time.Time{}
	case now.Before(g.NotBefore):
		return false, g.NotBefore
	default:
		return true, time.Time{}
	}
}

// WaitingOn says why work may not start, in a word of the contract; empty if
// it may, or never will.
func (g Gate) WaitingOn(now time.Time) string {
	switch _, until := g.Open(now); {
	case g.Ending():
		return ""
	case g.Status == Paused:
		return WaitingPaused
	case !until.IsZero():
		return WaitingNotBefore
	default:
		return ""
	}
}

// An Amendment is what the owner of a batch wants changed. Nil is what stays
// as it is.
type Amendment struct {
	CallbackURL     *string
	CallbackHeaders map[string]*string // to be set, or with nil taken away
	BareCallback    bool               // all headers are taken away, before others are set
	Metadata        map[string]*string // as CallbackHeaders
	BareMetadata    bool
	Priority        *Priority
	ExpiresIn       *time.Duration // from acceptance; 0: never
	MaxFailures     *Tolerance     // "": any number
	Concurrency     *int           // 0: no bound
}

// steers reports whether the amendment changes how work goes on, which takes
// a batch that goes on.
func (a Amendment) steers() bool {
	return a.Priority != nil || a.ExpiresIn != nil || a.MaxFailures != nil || a.Concurrency != nil
}

// Amend changes a batch as its owner wants and returns its spec as it is then.
// What the change ends, a passed deadline or too many failures, begins to end.
// It refuses with wrong_state what comes too late, with no_callback_url a
// callback for a batch whose results were never made into messages, and as
// Invalid what [Options.Validate] finds wrong.
func (p *Progress) Amend(s Spec, a Amendment, now time.Time) (amended Spec, changed bool, err error) {
	o := s.Options
	switch {
	case a.steers() && (p.ending() || p.Status.Terminal()):
		return s, false, p.wrongState("priority, expires_in, max_failures and concurrency can be changed until it ends")
	case a.CallbackURL != nil && !o.Messages() && (p.Done.Sum() > 0 || p.Round > 1 || p.Status.Terminal()):
		return s, false, Refuse(Conflict, "no_callback_url", "the batch was submitted without a callback_url: what has finished was not made into messages")
	case a.changesHeaders() && o.CallbackURL == "" && a.CallbackURL == nil:
		return s, false, Refuse(Invalid, "needs_callback_url", "callback_headers go with a callback_url, and the batch has none")
	}
	a.apply(&o)
	if ps := o.Validate(); len(ps) > 0 {
		return s, false, &Error{Code: Invalid, Reason: ps[0].Code, Message: ps[0].Detail, Places: ps}
	}
	if len(o.CallbackHeaders) > MaxCallbackHeaders {
		return s, false, Refuse(Invalid, "too_many", "there are at most %d callback_headers, and with these there would be %d", MaxCallbackHeaders, len(o.CallbackHeaders))
	}
	if reflect.DeepEqual(o, s.Options) {
		return s, false, nil
	}
	s.Options = o
	s.Edition++
	p.Version++
	if a.ExpiresIn != nil && p.Status != Open {
		p.expireIn(o.ExpiresIn)
	}
	p.Lapse(now)
	p.Strain(s)
	return s, true, nil
}

func (a Amendment) changesHeaders() bool { return a.BareCallback || len(a.CallbackHeaders) > 0 }

// apply changes options. The maps of o are shared: they are replaced.
func (a Amendment) apply(o *Options) {
	set(&o.CallbackURL, a.CallbackURL)
	o.CallbackHeaders = merge(o.CallbackHeaders, a.CallbackHeaders, a.BareCallback, headerName)
	o.Metadata = merge(o.Metadata, a.Metadata, a.BareMetadata, func(k string) string { return k })
	set(&o.Priority, a.Priority)
	set(&o.ExpiresIn, a.ExpiresIn)
	set(&o.MaxFailures, a.MaxFailures)
	set(&o.Concurrency, a.Concurrency)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// headerName is the one spelling of a header's name: to receivers behind CGI
// a _ is a -.
func headerName(k string) string { return strings.ReplaceAll(strings.ToLower(k), "_", "-") }

// merge returns old with what is new set, and taken away where that is nil.
// Keys of one spelling are one.
func merge(old map[string]string, with map[string]*string, bare bool, spelling func(string) string) map[string]string {
	if len(with) == 0 && !bare {
		return old
	}
	merged := map[string]string{}
	if !bare {
		maps.Copy(merged, old)
	}
	for k, v := range with {
		maps.DeleteFunc(merged, func(was, _ string) bool { return spelling(was) == spelling(k) })
		if v != nil {
			merged[k] = *v
		}
	}
	if len(merged) == 0 {
		return nil
	}
	return merged
}
