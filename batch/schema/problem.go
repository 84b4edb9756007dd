package schema

import (
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/callbatch/callbatch/batch"
)

// Code is that of every problem with what an item looks like.
const Code = "schema_mismatch"

// The most that is said of one problem.
const (
	mostDetail  = 300 // bytes
	mostPointer = 300 // bytes
	mostShown   = 60  // bytes of one value of the schema
)

func problem(pointer, detail string) batch.Problem {
	return batch.Problem{Index: -1, Line: -1, Pointer: clip(pointer, mostPointer), Code: Code, Detail: clip(detail, mostDetail)}
}

// problemsOf returns what is wrong by the tree of a validation, without values
// of the item.
func problemsOf(e *jsonschema.ValidationError) []batch.Problem {
	var c collector
	c.collect(e)
	slices.SortStableFunc(c.list, func(a, b batch.Problem) int { return strings.Compare(a.Pointer, b.Pointer) })
	return c.list
}

type collector struct{ list []batch.Problem }

func (c *collector) add(pointer, detail string) {
	if len(c.list) < batch.MaxProblems {
		c.list = append(c.list, problem(pointer, detail))
	}
}

func (c *collector) collect(e *jsonschema.ValidationError) {
	if len(c.list) == batch.MaxProblems {
		return
	}
	at := pointer(e.InstanceLocation)
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			c.add(at+pointer([]string{name}), "is required")
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			c.add(at+pointer([]string{name}), "is not among the members the schema knows: remove it")
		}
	case *kind.PropertyNames: // where is not to be relied on: its path is overwritten
		c.add("", fmt.Sprintf("there is a member whose name is not allowed: %q", clip(k.Property, mostShown)))
	case *kind.AnyOf:
		c.add(at, nearest(e))
	case *kind.OneOf:
		if len(k.Subschemas) > 1 {
			c.add(at, fmt.Sprintf("fits alternatives %d and %d of the schema, and must fit one only", k.Subschemas[0], k.Subschemas[1]))
			return
		}
		c.add(at, nearest(e))
	case *kind.Schema, *kind.Group, *kind.AllOf, *kind.Reference:
		if len(e.Causes) == 0 {
			c.add(at, "does not fit the schema")
		}
		for _, cause := range e.Causes {
			c.collect(cause)
		}
	default:
		c.add(at, detail(e.ErrorKind))
	}
}

// nearest says that none of several alternatives fits, and what the one asks
// for that would take the least.
func nearest(e *jsonschema.ValidationError) string {
	var best []batch.Problem
	for _, alternative := range e.Causes {
		if ps := problemsOf(alternative); len(ps) > 0 && (best == nil || len(ps) < len(best)) {
			best = ps
		}
	}
	text := fmt.Sprintf("fits none of the %d alternatives of the schema", len(e.Causes))
	if best != nil {
		where := strings.TrimPrefix(best[0].Pointer, pointer(e.InstanceLocation))
		text += strings.TrimRight("; the nearest: "+where, " ") + " " + best[0].Detail
	}
	return text
}

// detail says what a value must be.
func detail(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return fmt.Sprintf("must be %s, not %s", strings.Join(k.Want, " or "), k.Got)
	case *kind.Const:
		return "must be " + show(k.Want)
	case *kind.Enum:
		var wanted []string
		for _, v := range k.Want[:min(len(k.Want), 8)] {
			wanted = append(wanted, show(v))
		}
		if more := len(k.Want) - len(wanted); more > 0 {
			wanted = append(wanted, fmt.Sprintf("%d more", more))
		}
		return "must be one of " + strings.Join(wanted, ", ")
	case *kind.Format:
		if k.Want == "regex" {
			return "must be a regular expression, without lookaround and backreferences"
		}
		return "must be a valid " + k.Want
	case *kind.Pattern:
		return "must match the pattern " + clip(k.Want, 4*mostShown)
	case *kind.Minimum:
		return "must be at least " + rational(k.Want)
	case *kind.Maximum:
		return "must be at most " + rational(k.Want)
	case *kind.ExclusiveMinimum:
		return "must be more than " + rational(k.Want)
	case *kind.ExclusiveMaximum:
		return "must be less than " + rational(k.Want)
	case *kind.MultipleOf:
		return "must be a multiple of " + rational(k.Want)
	case *kind.MinLength:
		return fmt.Sprintf("must have at least %d characters, not %d", k.Want, k.Got)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters, not %d", k.Want, k.Got)
	case *kind.UniqueItems:
		return fmt.Sprintf("must have no element twice: %d and %d are equal", k.Duplicates[0], k.Duplicates[1])
	case *kind.MinContains:
		return fmt.Sprintf("must have at least %d elements that fit what it has to contain, not %d", k.Want, len(k.Got))
	case *kind.MaxContains:
		return fmt.Sprintf("must have at most %d elements that fit what it may contain, not %d", k.Want, len(k.Got))
	case *kind.Contains:
		return "must have an element that fits what it has to contain"
	case *kind.DependentRequired:
		return fmt.Sprintf("has %q and so must have %q", clip(k.Prop, mostShown), clip(strings.Join(k.Missing, ", "), mostShown))
	case *kind.Not:
		return "is what the schema rules out"
	case *kind.FalseSchema:
		return "must not be there"
	default: // of those that are left none says what is in the value
		return k.LocalizedString(message.NewPrinter(language.English))
	}
}

// show returns a value of the schema as JSON.
func show(v any) string {
	text, err := json.Marshal(v) // numbers as they are written
	if err != nil {
		return "something else"
	}
	return clip(string(text), mostShown)
}

// rational returns a number of the schema in decimal.
func rational(r *big.Rat) string {
	n, exact := r.FloatPrec()
	if !exact {
		return clip(r.RatString(), mostShown)
	}
	return clip(r.FloatString(n), mostShown)
}

// pointer returns the JSON pointer of a path.
func pointer(path []string) string {
	var b strings.Builder
	for _, token := range path {
		b.WriteByte('/')
		b.WriteString(escape.Replace(token))
		if b.Len() > mostPointer {
			break
		}
	}
	return b.String()
}

var escape = strings.NewReplacer("~", "~0", "/", "~1")

// clip returns at most most bytes of s, and says so.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
