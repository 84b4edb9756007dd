// Package schema checks items against a JSON Schema (draft 2020-12 unless it
// names another), which their processor brings along.
//
// A schema stands alone: nothing it refers to is ever loaded. Formats are
// checked, and numbers compared exactly. What an item may cost is bounded by
// its size, as long as the schema does not itself try many alternatives at
// every level: schemas are the operator's, items a stranger's.
package schema

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/callbatch/callbatch/batch"
)

// A Schema says what items have to look like. It is safe for concurrent use.
type Schema struct {
	text     jsontext.Value
	compiled *jsonschema.Schema
}

// base is what references are relative to. It leads nowhere.
const base = "https://schema.invalid/"

// nowhere refuses to load anything.
type nowhere struct{}

func (nowhere) Load(url string) (any, error) {
	return nil, errors.New("it refers to another document, and nothing is loaded: put that under its $defs")
}

// Compile reads a schema. Its errors say what is wrong and where in it.
func Compile(text []byte) (*Schema, error) {
	s := &Schema{text: bytes.Clone(text)}
	if err := s.text.Compact(); err != nil {
		return nil, fmt.Errorf("the schema is not JSON: %w", err)
	}
	doc, p := decode(s.text)
	if p != nil {
		return nil, fmt.Errorf("the schema: %s: %s", p.Pointer, p.Detail)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	c.UseLoader(nowhere{})
	err := c.AddResource(base, doc)
	if err == nil {
		s.compiled, err = c.Compile(base)
	}
	if err != nil {
		return nil, explain(err)
	}
	return s, nil
}

// explain returns an error of the compiler in our words.
func explain(err error) error {
	if bad, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if wrong, ok := errors.AsType[*jsonschema.ValidationError](bad.Err); ok {
			p := problemsOf(wrong)[0]
			return fmt.Errorf("the schema is not one: at %q: %s", p.Pointer, p.Detail)
		}
	}
	if bad, ok := errors.AsType[*jsonschema.LoadURLError](err); ok {
		return fmt.Errorf("the schema refers to %q: nothing is loaded, put it under $defs", strings.TrimPrefix(bad.URL, base))
	}
	return fmt.Errorf("the schema: %s", strings.ReplaceAll(err.Error(), base, ""))
}

// JSON returns the schema's text, on one line.
func (s *Schema) JSON() []byte { return s.text }

// Large items are checked one at a time, because one that is all wrong takes
// some two hundred times its size while it is.
const largeItem = 64 << 10 // bytes

var large sync.Mutex

// Check returns what is wrong with an item, which is valid JSON: at most
// [batch.MaxProblems], by pointer.
func (s *Schema) Check(item []byte) []batch.Problem {
	if len(item) > largeItem {
		large.Lock()
		defer large.Unlock()
	}
	v, p := decode(item)
	if p != nil {
		return []batch.Problem{*p}
	}
	err := s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []batch.Problem{problem("", err.Error())}
	}
	return problemsOf(wrong)
}
