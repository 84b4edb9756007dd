package batch

import (
	"fmt"
	"slices"
	"time"
)

// Limits of rounds.
const (
	MaxRounds = 100  // of a batch
	MaxNamed  = 4096 // items that one retry names
)

// A Retry asks for the next round of a batch that has ended: for every item
// that did not succeed, or for those that are named.
type Retry struct {
	From    int      // the round that has ended
	IDs     []string // of items, as clients address them
	Indexes []int    // of items; one that is named twice runs once

	ExpiresIn *time.Duration // from now on, in place of the batch's own; nil: that counts anew
}

// Named reports whether the retry is for some items only.
func (r Retry) Named() bool { return len(r.IDs)+len(r.Indexes) > 0 }

// A Choice is which items a round is for.
type Choice struct {
	Items []int // by index, ascending, each once; nil: all that have not succeeded
	Were  Tally // how those named had ended
}

// A Round is how a round ended that was followed by another.
type Round struct {
	Number   int
	Status   Status
	Reason   string
	Started  time.Time
	Finished time.Time
	Done     Tally
	Next     []int // the items the next round is for, as in [Choice]
}

// Retriable says why a round of the batch cannot be followed by another, if it
// cannot.
func (p Progress) Retriable(from int) error {
	switch {
	case from != p.Round:
		return Refuse(Conflict, "wrong_round", "the batch is in round %d, not %d: it was retried already, or from_round is wrong", p.Round, from)
	case !p.Status.Terminal():
		return Refuse(Conflict, "wrong_state", "the batch is %s: only a batch that has ended can be retried", p.Status)
	case p.Round >= MaxRounds:
		return Refuse(Conflict, "too_many_rounds", "a batch has at most %d rounds: submit what is left as a new one", MaxRounds)
	case p.Done.Succeeded == p.Done.Sum():
		return Refuse(Conflict, "nothing_to_retry", "every item of the batch has succeeded")
	}
	return nil
}

// Retry opens the next round of a batch for the chosen items, and returns the
// batch's spec as it is then and what is to be kept of the round that ended. It
// looks at no item: blocks are laid out later, some at a time
// ([Progress.LayOut]), and until then count as open.
func (p *Progress) Retry(s Spec, r Retry, c Choice, now time.Time) (Spec, Round, error) {
	if err := p.Retriable(r.From); err != nil {
		return s, Round{}, err
	}
	if d := r.ExpiresIn; d != nil && *d != s.Options.ExpiresIn {
		if ps := (Options{ExpiresIn: *d}).Validate(); len(ps) > 0 {
			return s, Round{}, &Error{Code: Invalid, Reason: ps[0].Code, Message: ps[0].Detail, Places: ps}
		}
		s.Options.ExpiresIn = *d
		s.Edition++
	}
	was := Round{
		Number: p.Round, Status: p.Status, Reason: p.Reason, Started: p.Started, Finished: p.Finished, Done: p.Done, Next: c.Items,
	}
	stays := Tally{Succeeded: p.Done.Succeeded}
	if c.Items != nil {
		stays = p.Done.Minus(c.Were)
	}
	messages := p.Messages
	messages.Round, messages.Owed = 0, 0
	*p = Progress{
		Status: Queued, Round: p.Round + 1, Done: stays, Open: s.Blocks, Kept: stays.Failed,
		Messages: messages, Digest: p.Digest, Version: p.Version + 1,
	}
	p.Accept(s.Options, now)
	return s, was, nil
}

// LayOut counts blocks that were looked at for what the round has to do in
// them, of which some have nothing.
func (p *Progress) LayOut(blocks, idle int) {
	p.LaidOut += blocks
	p.Open -= idle
	p.Version++
}

// ToLayOut returns how many blocks of a later round were not looked at yet.
func (b Batch) ToLayOut() int {
	if b.Round == 1 || b.Status.Terminal() {
		return 0
	}
	return b.Blocks - b.LaidOut
}

// Rounds are what the result of an item depends on besides what was recorded
// of it.
type Rounds struct {
	Past []Round  // those before the current one, from the first on
	Now  Progress // the current one
}

// At returns the rounds as they were when a round ended, or as they are if it
// is the current one. There is no other.
func (rs Rounds) At(round int) (Rounds, error) {
	switch {
	case round == rs.Now.Round:
		return rs, nil
	case round < 1 || round > rs.Now.Round || round > len(rs.Past):
		return rs, Refuse(NotFound, "no_such_round", "there is no round %d: the batch is in round %d", round, rs.Now.Round)
	}
	return Rounds{Past: rs.Past[:round-1], Now: rs.Past[round-1].progress()}, nil
}

func (r Round) progress() Progress {
	return Progress{Round: r.Number, Status: r.Status, Reason: r.Reason, Started: r.Started, Finished: r.Finished, Done: r.Done}
}

// Outcome returns the result that an item has in the current round. Recorded
// are its results, by round. That is the last it was given, unless it takes
// part in a round after that: then it is the end of that round, if it has
// ended, and else there is none. What succeeded takes part in no further round.
func (rs Rounds) Outcome(index int, id string, recorded []Result) (r Result, ok bool) {
	for len(recorded) > 0 && recorded[len(recorded)-1].Round > rs.Now.Round {
		recorded = recorded[:len(recorded)-1]
	}
	last := Result{}
	if len(recorded) > 0 {
		last = recorded[len(recorded)-1]
	}
	if last.Status == ItemSucceeded {
		return last, true
	}
	for n := rs.Now.Round; n > last.Round; n-- {
		if !rs.takesPart(index, n) {
			continue
		}
		p := rs.Now
		if n < p.Round {
			p = rs.Past[n-1].progress()
		}
		if !p.Status.Terminal() {
			return Result{}, false
		}
		return EndedResult(index, id, p, 0), true
	}
	return last, true
}

// takesPart reports whether an item that has not succeeded is in a round.
func (rs Rounds) takesPart(index, round int) bool {
	if round == 1 || rs.Past[round-2].Next == nil {
		return true
	}
	_, named := slices.BinarySearch(rs.Past[round-2].Next, index)
	return named
}

// Idle reports, before anything of a block is read, whether the current round
// has surely nothing to do for its items: none of them was named.
func (rs Rounds) Idle(first, count int) bool {
	if rs.Now.Round == 1 || rs.Past[rs.Now.Round-2].Next == nil {
		return false
	}
	next := rs.Past[rs.Now.Round-2].Next
	at, _ := slices.BinarySearch(next, first)
	return at == len(next) || next[at] >= first+count
}

// Begin returns the state in which a block of count items enters the current
// round, and how many of them it is to work on. Recorded are the block's
// results, by index and round.
func (rs Rounds) Begin(first, count int, recorded []Result) (s BlockState, left int) {
	s = BlockState{Round: rs.Now.Round, Items: make([]ItemState, count)}
	rs.Each(first, count, recorded, func(index int, own []Result) {
		if r, ok := rs.Outcome(index, "", own); ok {
			s.Items[index-first] = ItemState{Status: r.Status, Attempts: r.Attempts}
		} else {
			left++
		}
	})
	return s, left
}

// Each calls f for every item of a block with what was recorded of it.
func (rs Rounds) Each(first, count int, recorded []Result, f func(index int, own []Result)) {
	for i := first; i < first+count; i++ {
		n := 0
		for n < len(recorded) && recorded[n].Index == i {
			n++
		}
		f(i, recorded[:n])
		recorded = recorded[n:]
	}
}

// CheckNamed says why items cannot be retried by their name: those that are
// not there, and those that have succeeded.
func CheckNamed(unknown []string, succeeded []int) error {
	var ps []Problem
	for _, id := range unknown {
		ps = append(ps, Problem{Index: -1, Line: -1, Code: "unknown_item", Detail: fmt.Sprintf("the batch has no item %q", clip(id))})
	}
	for _, index := range succeeded {
		ps = append(ps, Problem{Index: index, Line: -1, Code: "succeeded", Detail: fmt.Sprintf("item %d has succeeded, and its result stays", index)})
	}
	if len(ps) == 0 {
		return nil
	}
	e := Refuse(Invalid, ps[0].Code, "%s", ps[0].Detail)
	e.Places = ps[:min(len(ps), MaxProblems)]
	e.More = len(ps) - len(e.Places)
	return e
}
