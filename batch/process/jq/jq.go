// Package jq works on items with a jq program. The program sees the item and
// nothing else: no environment, no files, no modules, no other input.
//
// What it may take is bounded in time by the context and in its output by
// [Options]. A single built-in step is not interrupted, and the memory in
// between is the program's own affair: operators write programs, clients
// only items.
package jq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/itchyny/gojq"

	"github.com/callbatch/callbatch/batch"
)

// DefaultMaxOutput is how large an output may be unless [Options] say so.
const DefaultMaxOutput = 1 << 20

// Options bound a program. The zero value works.
type Options struct {
	MaxOutput int // bytes of one output; default 1 MiB
}

// A Processor runs one program on every item. The program gives exactly one
// value, which is the output as compact JSON with sorted members. Numbers it
// only passes on keep every digit, and integers it computes with are exact.
type Processor struct {
	code     *gojq.Code
	identity bool // the program is ".": items pass as they are
	max      int
	decoders sync.Pool
}

var _ batch.Processor = (*Processor)(nil)

// New compiles the program. The error says what is wrong, and where if it is
// the syntax.
func New(program string, o Options) (*Processor, error) {
	query, err := gojq.Parse(program)
	if err != nil {
		return nil, fmt.Errorf("jq program%s: %w", position(program, err), err)
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, fmt.Errorf("jq program: %w", err)
	}
	p := &Processor{code: code, identity: query.String() == ".", max: o.MaxOutput}
	if p.max <= 0 {
		p.max = DefaultMaxOutput
	}
	return p, nil
}

// position says where in the program its first error is.
func position(program string, err error) string {
	var bad *gojq.ParseError
	if !errors.As(err, &bad) {
		return ""
	}
	before := program[:max(0, min(bad.Offset-len(bad.Token), len(program)))]
	line := strings.Count(before, "\n") + 1
	column := utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Sprintf(" at line %d, column %d", line, column)
}

// Process runs the program on the item. Its failures are final: the same
// item would fail the same way again.
func (p *Processor) Process(ctx context.Context, c batch.Call) ([]byte, error) {
	if p.identity {
		return p.pass(c.Item)
	}
	item, err := p.decode(c.Item)
	if err != nil {
		return nil, fail(batch.CodeProcessorError, "the item is not one JSON value")
	}
	value, err := p.run(ctx, item)
	if err != nil {
		return nil, err
	}
	return p.encode(value)
}

// run returns the one value the program gives for the item.
func (p *Processor) run(ctx context.Context, item any) (any, error) {
	var value any
	values := 0
	for outputs := p.code.RunWithContext(ctx, item); ; values++ {
		v, ok := outputs.Next()
		if err, bad := v.(error); bad {
			if halt, is := err.(*gojq.HaltError); !is || halt.Value() != nil {
				return nil, failure(ctx, err)
			}
			ok = false // a plain halt ends the program early, nothing more
		}
		switch {
		case !ok && values == 0:
			return nil, fail(batch.CodeBadOutput, "the program gave no value, not exactly one")
		case !ok:
			return value, nil
		case values > 0:
			return nil, fail(batch.CodeBadOutput, "the program gave more than one value")
		}
		value = v
	}
}

// pass returns the item itself, which the caller only lent.
func (p *Processor) pass(item []byte) ([]byte, error) {
	if len(item) > p.max {
		return nil, p.tooLarge()
	}
	out := jsontext.Value(bytes.Clone(item))
	if bytes.ContainsAny(out, "\r\n") { // in JSON always white space; a result is one line
		if err := out.Compact(); err != nil {
			return nil, fail(batch.CodeProcessorError, "the item is not one JSON value")
		}
	}
	return out, nil
}

func (p *Processor) encode(value any) ([]byte, error) {
	b := bound{room: p.max}
	b.take(value)
	switch {
	case b.deep:
		return nil, fail(batch.CodeBadOutput, fmt.Sprintf("the output is nested deeper than %d", maxDepth))
	case b.room < 0:
		return nil, p.tooLarge()
	}
	out, err := gojq.Marshal(value)
	switch {
	case err != nil || !jsontext.Value(out).IsValid(): // such as two names that are the same once they are UTF-8
		return nil, fail(batch.CodeBadOutput, "the program gave a value that JSON cannot express")
	case len(out) > p.max:
		return nil, p.tooLarge()
	}
	return out, nil
}
