package batch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// res is a result of item 7 in a round.
func res(round int, s ItemStatus) Result {
	return Result{Index: 7, ID: "seven", Round: round, Status: s, Attempts: 1}
}

func past(number int, as Status, next ...int) Round {
	return Round{Number: number, Status: as, Finished: Epoch.Add(time.Duration(number) * time.Hour), Next: next}
}

func TestOutcome(t *testing.T) {
	completed, canceled, others := past(1, Completed), past(1, Canceled), past(1, Canceled, 3, 9)
	tooMany := Round{Number: 1, Status: Canceled, Reason: CodeTooManyFailures, Next: []int{1}}
	second := past(2, Expired)
	named := past(2, Canceled, 3, 7)
	now := func(round int, s Status) Progress { return Progress{Round: round, Status: s, Finished: Epoch} }

	for name, c := range map[string]struct {
		past     []Round
		now      Progress
		recorded []Result
		want     string // round, status and code; empty: none
	}{
		"in the first round, pending":                        {nil, now(1, Running), nil, ""},
		"in the first round, recorded":                       {nil, now(1, Running), []Result{res(1, ItemFailed)}, "1 failed"},
		"in the first round, at its end":                     {nil, now(1, Canceled), nil, "1 canceled canceled"},
		"in the first round, expired":                        {nil, now(1, Expired), nil, "1 expired expired"},
		"succeeded once, a round later":                      {[]Round{completed}, now(2, Running), []Result{res(1, ItemSucceeded)}, "1 succeeded"},
		"succeeded once, a canceled round later":             {[]Round{completed}, now(2, Canceled), []Result{res(1, ItemSucceeded)}, "1 succeeded"},
		"failed, runs again":                                 {[]Round{completed}, now(2, Running), []Result{res(1, ItemFailed)}, ""},
		"failed twice":                                       {[]Round{completed}, now(2, Running), []Result{res(1, ItemFailed), res(2, ItemFailed)}, "2 failed"},
		"failed, then succeeded":                             {[]Round{completed}, now(2, Completed), []Result{res(1, ItemFailed), res(2, ItemSucceeded)}, "2 succeeded"},
		"failed, then canceled before it ran":                {[]Round{completed}, now(2, Canceled), []Result{res(1, ItemFailed)}, "2 canceled canceled"},
		"never ran, runs again":                              {[]Round{canceled}, now(2, Queued), nil, ""},
		"never ran, and is not named":                        {[]Round{others}, now(2, Running), nil, "1 canceled canceled"},
		"failed, and is not named":                           {[]Round{others}, now(2, Expired), []Result{res(1, ItemFailed)}, "1 failed"},
		"not named once, in the round after for all":         {[]Round{others, second}, now(3, Running), nil, ""},
		"not named once, at the end of the round after":      {[]Round{others, second}, now(3, Canceled), nil, "3 canceled canceled"},
		"not named at first, then named":                     {[]Round{others, named}, now(3, Running), nil, ""},
		"named only first, two rounds later":                 {[]Round{past(1, Canceled, 7), past(2, Expired, 3)}, now(3, Running), nil, "2 expired expired"},
		"named only first, two rounds later, with a result":  {[]Round{past(1, Canceled, 7), past(2, Expired, 3)}, now(3, Running), []Result{res(2, ItemFailed)}, "2 failed"},
		"of a later round, seen from the first":              {nil, now(1, Canceled), []Result{res(2, ItemSucceeded)}, "1 canceled canceled"},
		"of a later round, seen from the first that had one": {nil, now(1, Completed), []Result{res(1, ItemFailed), res(2, ItemSucceeded)}, "1 failed"},
		"the reason of the round it ended in":                {[]Round{tooMany}, now(2, Running), nil, "1 canceled too_many_failures"},
	} {
		t.Run(name, func(t *testing.T) {
			r, ok := Rounds{Past: c.past, Now: c.now}.Outcome(7, "seven", c.recorded)
			got := ""
			if ok {
				got = fmt.Sprintf("%d %s", r.Round, r.Status)
				if r.Attempts == 0 {
					_, code, _ := strings.Cut(string(r.Payload), `"code":"`)
					code, _, _ = strings.Cut(code, `"`)
					got += " " + code
				}
				if r.Index != 7 || r.ID != "seven" {
					t.Errorf("it is of item %d, %q", r.Index, r.ID)
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRounds(t *testing.T) {
	rs := Rounds{Past: []Round{past(1, Canceled, 2, 5), past(2, Completed)}, Now: Progress{Round: 3, Status: Running}}

	t.Run("are as each of them left them", func(t *testing.T) {
		for round, want := range map[int]Status{1: Canceled, 2: Completed, 3: Running} {
			if at, err := rs.At(round); err != nil || at.Now.Status != want || at.Now.Round != round || len(at.Past) != round-1 {
				t.Errorf("round %d is %+v, %v", round, at, err)
			}
		}
		for _, round := range []int{-1, 0, 4} {
			if _, err := rs.At(round); CodeOf(err) != NotFound {
				t.Errorf("round %d gave %v", round, err)
			}
		}
	})
	t.Run("have nothing to do where nothing is named", func(t *testing.T) {
		second, err := rs.At(2)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			first, count int
			idle         bool
		}{{0, 2, true}, {0, 3, false}, {2, 1, false}, {3, 2, true}, {3, 3, false}, {6, 9, true}} {
			if got := second.Idle(c.first, c.count); got != c.idle {
				t.Errorf("items %d to %d: idle %v", c.first, c.first+c.count-1, got)
			}
		}
		if rs.Idle(0, 1) {
			t.Error("a round for all was taken for idle")
		}
	})
	t.Run("begin in a block with what is left", func(t *testing.T) {
		recorded := []Result{
			{Index: 10, Round: 1, Status: ItemSucceeded, Attempts: 2},
			{Index: 11, Round: 1, Status: ItemFailed, Attempts: 5},
			{Index: 13, Round: 1, Status: ItemFailed, Attempts: 1},
			{Index: 13, Round: 2, Status: ItemSucceeded, Attempts: 1},
		}
		st, left := rs.Begin(10, 4, recorded)
		want := []ItemState{{Status: ItemSucceeded, Attempts: 2}, {}, {}, {Status: ItemSucceeded, Attempts: 1}}
		if st.Round != 3 || st.Closed || left != 2 || !slices.Equal(st.Items, want) {
			t.Errorf("got %+v, %d left", st, left)
		}
	})
}

func TestRetry(t *testing.T) {
	ended := Progress{
		Status: Canceled, Round: 2, Done: Tally{Succeeded: 4, Failed: 2, Canceled: 1, Expired: 1}, Started: Epoch, Finished: Epoch.Add(time.Hour),
		Messages: Ledger{Round: 3, Owed: 1, Waiting: 2, Delivered: 5}, Terminal: MessageID{1}, Told: Told{Tenth: 9}, Digest: 77, Version: 9, LaidOut: 3,
	}
	now := Epoch.Add(2 * time.Hour)
	running := ended
	running.Status = Running
	last := ended
	last.Round = MaxRounds
	whole := ended
	whole.Done = Tally{Succeeded: 8}

	for name, c := range map[string]struct {
		p    Progress
		from int
		word string
	}{
		"another round":         {ended, 1, "wrong_round"},
		"a round to come":       {ended, 3, "wrong_round"},
		"one that is under way": {running, 2, "wrong_state"},
		"one too many":          {last, MaxRounds, "too_many_rounds"},
		"nothing":               {whole, 2, "nothing_to_retry"},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			p := c.p
			_, _, err := p.Retry(Spec{Blocks: 3}, Retry{From: c.from}, Choice{}, now)
			if e, ok := err.(*Error); !ok || e.Code != Conflict || e.Reason != c.word || p != c.p {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, c := range map[string]struct {
		choice Choice
		stays  Tally
	}{
		"for all that did not succeed":           {Choice{}, Tally{Succeeded: 4}},
		"for those named, and the others' stays": {Choice{Items: []int{1, 6}, Were: Tally{Failed: 1, Expired: 1}}, Tally{Succeeded: 4, Failed: 1, Canceled: 1}},
	} {
		t.Run("opens a round "+name, func(t *testing.T) {
			p := ended
			s, was, err := p.Retry(Spec{Blocks: 3, Edition: 4}, Retry{From: 2}, c.choice, now)
			want := Progress{
				Status: Queued, Round: 3, Done: c.stays, Open: 3, Kept: c.stays.Failed, Accepted: now,
				Messages: Ledger{Waiting: 2, Delivered: 5}, Digest: 77, Version: 10,
			}
			if s.Edition != 4 {
				t.Error("the spec is another")
			}
			if err != nil || p != want {
				t.Errorf("it stands %+v, %v", p, err)
			}
			if was.Number != 2 || was.Status != Canceled || was.Done != ended.Done || was.Finished != ended.Finished || !slices.Equal(was.Next, c.choice.Items) {
				t.Errorf("what was is %+v", was)
			}
			p.LayOut(3, 2)
			if p.Open != 1 || p.LaidOut != 3 {
				t.Errorf("laid out it stands %+v", p)
			}
		})
	}
	t.Run("its deadline counts anew, by the batch's own or another", func(t *testing.T) {
		minute, never := time.Minute, time.Duration(-1)
		for name, c := range map[string]struct {
			own     time.Duration
			asked   *time.Duration
			expires time.Time
			edition int
		}{
			"its own":        {time.Hour, nil, now.Add(time.Hour), 1},
			"none":           {0, nil, time.Time{}, 1},
			"another":        {time.Hour, &minute, now.Add(time.Minute), 2},
			"the same again": {time.Minute, &minute, now.Add(time.Minute), 1},
		} {
			p := ended
			s, _, err := p.Retry(Spec{Edition: 1, Options: Options{ExpiresIn: c.own}}, Retry{From: 2, ExpiresIn: c.asked}, Choice{}, now)
			if err != nil || !p.Expires.Equal(c.expires) || s.Edition != c.edition {
				t.Errorf("%s: it expires at %s, edition %d, %v", name, p.Expires, s.Edition, err)
			}
		}
		p := ended
		if _, _, err := p.Retry(Spec{}, Retry{From: 2, ExpiresIn: &never}, Choice{}, now); CodeOf(err) != Invalid || p != ended {
			t.Errorf("a deadline in the past gave %v", err)
		}
	})
	t.Run("failures of before do not count against max_failures", func(t *testing.T) {
		p := ended
		s, _, err := p.Retry(Spec{Items: 8, Options: Options{MaxFailures: "1"}}, Retry{From: 2}, Choice{Items: []int{6}, Were: Tally{Expired: 1}}, now)
		if err != nil || p.Done.Failed != 2 || p.Strain(s) {
			t.Errorf("it stands %+v, %v", p, err)
		}
		if p.Done.Failed += 2; !p.Strain(s) {
			t.Error("two more failures are not too many")
		}
	})
	t.Run("names each item that it cannot be for", func(t *testing.T) {
		if err := CheckNamed(nil, nil); err != nil {
			t.Error(err)
		}
		e, ok := CheckNamed([]string{strings.Repeat("x", 500)}, slices.Repeat([]int{4}, 150)).(*Error)
		if !ok || e.Code != Invalid || e.Reason != "unknown_item" || len(e.Places) != MaxProblems || e.More != 51 || e.Places[1].Index != 4 {
			t.Errorf("got %+v", e)
		}
		if len(e.Message) > 200 {
			t.Errorf("it says %d bytes", len(e.Message))
		}
	})
}

func TestDelete(t *testing.T) {
	for name, c := range map[string]struct {
		p     Progress
		force bool
		word  string
	}{
		"a batch that has ended":              {Progress{Status: Completed}, false, ""},
		"one that is being uploaded":          {Progress{Status: Open}, false, ""},
		"one that is queued":                  {Progress{Status: Queued}, true, "wrong_state"},
		"one that runs":                       {Progress{Status: Running}, false, "wrong_state"},
		"one that is being canceled":          {Progress{Status: Canceling}, true, "wrong_state"},
		"one that is paused":                  {Progress{Status: Paused}, true, "wrong_state"},
		"one whose messages are owed":         {Progress{Status: Expired, Messages: Ledger{Waiting: 1}}, false, "messages_pending"},
		"one whose messages are given up now": {Progress{Status: Expired, Messages: Ledger{Waiting: 1}}, true, ""},
		"one whose messages were given up":    {Progress{Status: Canceled, Messages: Ledger{Exhausted: 1, Other: 1}}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.p.Delete(c.force)
			if e, ok := err.(*Error); ok != (c.word != "") || ok && (e.Code != Conflict || e.Reason != c.word) {
				t.Errorf("got %v, want %q", err, c.word)
			}
		})
	}
}

func TestOutlived(t *testing.T) {
	ended := Progress{Status: Completed, Finished: Epoch}
	owing := ended
	owing.Messages.Waiting = 1
	for name, c := range map[string]struct {
		p     Progress
		after time.Duration
		want  bool
	}{
		"a moment too soon":            {ended, time.Hour - 1, false},
		"in time":                      {ended, time.Hour, true},
		"while a message is owed":      {owing, 1000 * time.Hour, false},
		"while it runs":                {Progress{Status: Running}, 1000 * time.Hour, false},
		"before its end, by the clock": {ended, -time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.p.Outlived(time.Hour, Epoch.Add(c.after)); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if Forgotten(Epoch, Epoch.Add(TombstoneTime-1)) || !Forgotten(Epoch, Epoch.Add(TombstoneTime)) {
		t.Error("a deleted batch is known for another time than 90 days")
	}
}
