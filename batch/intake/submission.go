package intake

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/callbatch/callbatch/batch"
)

// A submission is what is known so far of the one being read. Formats feed it:
// options with set, setQuery and settle, items with admit and take.
type submission struct {
	limits   Options
	options  batch.Options
	problems problems
	judge    *judge
	blocks   cutter
	ids      *idSet // nil while the items have no ids of their own
	items    int    // admitted
}

func newSubmission(stage batch.Stage, o Options) *submission {
	s := &submission{limits: o, options: o.Defaults, judge: newJudge(), blocks: cutter{stage: stage}}
	s.options.Metadata = maps.Clone(o.Defaults.Metadata)
	return s
}

// settle judges the options, which are complete, and readies what depends on
// them.
func (s *submission) settle() {
	s.options = s.options.WithDefaults()
	ps := s.options.Validate()
	if s.options.Processor == "" {
		ps = append(ps, optionProblem("processor", "required", "processor is required: the server has no default"))
	}
	if len(s.options.CallbackHeaders) > 0 && s.options.CallbackURL == "" && !s.problems.has(optionProblem("callback_url", "", "")) {
		ps = append(ps, optionProblem("callback_headers", "needs_callback_url", "callback_headers go with a callback_url: give one, or leave the headers out"))
	}
	// An option that could not be read is not there; that was its fault once.
	ps = slices.DeleteFunc(ps, s.problems.has)
	// The server judges only what is well formed.
	if len(ps) == 0 && !s.problems.any() && s.limits.Check != nil {
		ps = s.limits.Check(s.options)
	}
	for _, p := range ps {
		s.problems.add(p)
	}
	s.useIDs()
}

// useIDs makes the items be read with the ids that the options name. A bad
// pointer names none; settle reports it.
func (s *submission) useIDs() {
	if s.ids != nil || s.options.IDField == "" || len((batch.Options{IDField: s.options.IDField}).Validate()) > 0 {
		return
	}
	s.judge.find(s.options.IDField)
	s.ids = newIDSet(s.limits.Dir)
}

// admit counts one more item and returns its index, or says which limit it is
// over. Nothing after such an item is worth reading.
func (s *submission) admit(size, line int) (int, error) {
	index := s.items
	if index >= s.limits.Items {
		return 0, refuse(batch.TooLarge, batch.Problem{
			Index: index, Line: line, Code: "too_many_items",
			Detail: fmt.Sprintf("a batch has at most %d items (limits.items)", s.limits.Items),
		})
	}
	if size > s.limits.ItemBytes {
		return 0, s.itemTooLarge(index, line)
	}
	s.items++
	return index, nil
}

func (s *submission) itemTooLarge(index, line int) error {
	code := "item_too_large"
	if line > 0 {
		code = "line_too_long"
	}
	return refuse(batch.TooLarge, batch.Problem{
		Index: index, Line: line, Code: code,
		Detail: fmt.Sprintf("an item has at most %d bytes (limits.item_bytes)", s.limits.ItemBytes),
	})
}

// take judges an admitted item and puts it into its block, or its problem on
// the list. raw is only read; valid says that it is strict JSON for sure.
// After the first problem of the submission nothing is kept any more.
func (s *submission) take(ctx context.Context, index, line int, raw []byte, valid bool) error {
	id, p := s.judge.item(raw, valid)
	if p != nil {
		p.Index, p.Line = index, line
		s.problems.add(*p)
		return nil
	}
	if s.ids != nil {
		if err := s.ids.add(id, index, line); err != nil {
			return err
		}
	}
	if s.problems.any() {
		return nil
	}
	return s.blocks.add(ctx, raw, id)
}

// finish judges the batch as a whole and appends its last block.
func (s *submission) finish(ctx context.Context) error {
	if s.items == 0 && !s.problems.any() {
		return batch.Refuse(batch.Invalid, "empty_batch", "a batch has at least one item")
	}
	if s.ids != nil {
		if err := s.ids.duplicates(func(first, again idEntry) { s.problems.add(duplicateID(s.options.IDField, first, again)) }); err != nil {
			return err
		}
	}
	if s.problems.any() {
		return s.problems.err()
	}
	return s.blocks.flush(ctx)
}

func (s *submission) close() {
	if s.ids != nil {
		s.ids.close()
	}
}
