package intake

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"github.com/callbatch/callbatch/batch"
)

// A submission is what is known so far of the one being read. Formats feed it:
// options with set, setTexts and settle, items with admit and take. Where
// items stand before options they may have to wait: begin says so.
type submission struct {
	word         string // what it is: "batch", "part"
	limits       Options
	share        *share // of the memory for bodies
	options      batch.Options
	validateOnly bool                         // nothing is to be kept
	given        struct{ id, processor bool } // the options that items are judged by
	elsewhere    string                       // where the options are, if not beside the items
	problems     problems
	waiting      *spool // nil: items need not wait
	judge        *judge
	used         bool                             // the options, by the judge
	check        func(raw []byte) []batch.Problem // nil: nothing more is asked of an item
	blocks       cutter
	ids          *idSet    // nil while the items have no ids of their own
	items        int       // admitted
	sum          hash.Hash // of the items; nil: not wanted
	size         []byte    // scratch
	text         hash.Hash // of the text they stand in; nil: not wanted
	bytes        int64     // of the same text
}

// newSubmission begins one, if there is a place for its body. It is closed
// when the body is done.
func newSubmission(ctx context.Context, b *body, stage batch.Sink, o Options) (*submission, error) {
	sh, err := o.Budget.enter(ctx)
	if err != nil {
		return nil, err
	}
	b.share = sh
	s := &submission{word: "batch", limits: o, share: sh, options: o.Defaults, judge: judges.Get().(*judge), blocks: cutter{stage: stage, share: sh}}
	s.options.Metadata = maps.Clone(o.Defaults.Metadata)
	return s, nil
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
	s.useOptions()
}

// useOptions makes the items be judged by the options: with the ids they name,
// and as their processor wants them. A bad pointer names no ids; settle reports
// it. Only the first call counts.
func (s *submission) useOptions() {
	if s.used {
		return
	}
	s.used = true
	if s.limits.CheckItems != nil {
		s.check = s.limits.CheckItems(s.options)
	}
	if s.options.IDField == "" || len((batch.Options{IDField: s.options.IDField}).Validate()) > 0 {
		return
	}
	s.judge.find(s.options.IDField)
	s.ids = newIDSet(s.limits.Dir, s.share)
}

// begin is called before the first item where options may still follow. The
// items wait unless what they are judged by is known.
func (s *submission) begin() {
	if s.given.id && (s.given.processor || s.limits.CheckItems == nil) {
		s.useOptions()
		return
	}
	s.waiting = &spool{dir: s.limits.Dir, share: s.share}
}

// readText reads a text to its end.
func (s *submission) readText(ctx context.Context, r io.Reader, f format) error {
	if s.text != nil && !f.form {
		r = io.TeeReader(r, s)
	}
	in := readers.Get().(*bufio.Reader)
	defer readers.Put(in)
	in.Reset(r)
	defer in.Reset(nil)
	if f.form {
		return f.read(ctx, s, in)
	}
	if err := skipBOM(in); err != nil {
		return err
	}
	return f.read(ctx, s, in)
}

// Write takes note of the next bytes of the text.
func (s *submission) Write(p []byte) (int, error) {
	s.bytes += int64(len(p))
	return s.text.Write(p)
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
// the list, or lets it wait for that. raw is only read; valid says that it is
// strict JSON for sure.
func (s *submission) take(ctx context.Context, index, line int, raw []byte, valid bool) error {
	if s.waiting != nil {
		return s.waiting.add(raw, line, valid)
	}
	return s.keep(ctx, index, line, raw, valid)
}

// keep does what take does, at once. After the first problem of the submission
// nothing is kept any more.
func (s *submission) keep(ctx context.Context, index, line int, raw []byte, valid bool) error {
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
	if s.check != nil {
		for _, p := range s.check(raw) {
			p.Index, p.Line = index, line
			s.problems.add(p)
		}
	}
	if s.problems.any() || s.validateOnly {
		return nil
	}
	if s.sum != nil {
		s.size = binary.AppendUvarint(s.size[:0], uint64(len(raw)))
		s.sum.Write(s.size)
		s.sum.Write(raw)
	}
	return s.blocks.add(ctx, raw, id)
}

// finish judges the batch as a whole and appends its last block. The options
// are settled.
func (s *submission) finish(ctx context.Context) error {
	if s.waiting != nil {
		index := 0
		if err := s.waiting.each(func(raw []byte, line int, valid bool) error {
			index++
			return s.keep(ctx, index-1, line, raw, valid)
		}); err != nil {
			return err
		}
	}
	if s.items == 0 && !s.problems.any() {
		return batch.Refuse(batch.Invalid, "empty_"+s.word, "a %s has at least one item", s.word)
	}
	if s.ids != nil {
		if err := s.index(ctx); err != nil {
			return err
		}
	}
	if s.problems.any() {
		return s.problems.err()
	}
	if s.validateOnly {
		return nil
	}
	return s.blocks.flush(ctx)
}

// index finds the ids that come twice and, while there are none and something
// is to be kept, hands the index of them on.
func (s *submission) index(ctx context.Context) error {
	again := func(first, again idEntry) { s.problems.add(duplicateID(s.options.IDField, first, again)) }
	var chunk []batch.IndexEntry
	err := s.ids.each(again, func(e idEntry) error {
		if s.problems.any() || s.validateOnly {
			return nil
		}
		if len(chunk) == batch.IndexEntries {
			if err := s.blocks.stage.Index(ctx, chunk); err != nil {
				return fmt.Errorf("append index: %w", err)
			}
			chunk = chunk[:0]
		}
		chunk = append(chunk, batch.IndexEntry{Hash: e.hash[0], Index: int(e.index), Line: int(e.line)})
		return nil
	})
	if err != nil || s.problems.any() || s.validateOnly {
		return err
	}
	if err := s.blocks.stage.Index(ctx, chunk); err != nil {
		return fmt.Errorf("append index: %w", err)
	}
	return nil
}

// content returns what was read, which is fine.
func (s *submission) content() Content {
	c := Content{Options: s.options, Items: s.items, ValidateOnly: s.validateOnly}
	if s.sum != nil {
		h := sha256.New()
		options, _ := json.Marshal(s.options) // plain data, members and keys in one order
		h.Write(binary.AppendUvarint(nil, uint64(len(options))))
		h.Write(options)
		h.Write(s.sum.Sum(nil))
		h.Sum(c.Digest[:0])
	}
	return c
}

// part returns what was read of a part, which is fine.
func (s *submission) part() Part {
	p := Part{Items: s.items, Bytes: s.bytes}
	s.text.Sum(p.SHA256[:0])
	s.sum.Sum(p.Content[:0])
	return p
}

func (s *submission) close() {
	s.share.leave()
	s.judge.release()
	if s.waiting != nil {
		s.waiting.close()
	}
	if s.ids != nil {
		s.ids.close()
	}
}
