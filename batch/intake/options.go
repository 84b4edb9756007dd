package intake

import (
	"bytes"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// field returns where an option goes: a *string, an *int, a *[]string, a
// *map[string]string, a *time.Time, a *time.Duration or a *batch.Tolerance. It
// is nil for a name that is no option.
func field(o *batch.Options, name string) any {
	switch name {
	case "processor":
		return &o.Processor
	case "callback_url":
		return &o.CallbackURL
	case "callback_mode":
		return (*string)(&o.CallbackMode)
	case "callback_events":
		return &o.CallbackEvents
	case "callback_headers":
		return &o.CallbackHeaders
	case "callback_page_bytes":
		return &o.CallbackPageBytes
	case "callback_page_items":
		return &o.CallbackPageItems
	case "id_field":
		return &o.IDField
	case "metadata":
		return &o.Metadata
	case "priority":
		return (*string)(&o.Priority)
	case "not_before":
		return &o.NotBefore
	case "expires_in":
		return &o.ExpiresIn
	case "max_failures":
		return &o.MaxFailures
	case "max_attempts":
		return &o.MaxAttempts
	case "concurrency":
		return &o.Concurrency
	default:
		return nil
	}
}

// field returns where an option of the submission goes: what the function of
// this name returns, or a *bool for what the batch does not keep.
func (s *submission) field(name string) any {
	if name == "validate_only" {
		return &s.validateOnly
	}
	return field(&s.options, name)
}

func optionProblem(name, code, format string, args ...any) batch.Problem {
	return batch.Problem{
		Index: -1, Line: -1, Pointer: string(jsontext.Pointer("").AppendToken(clip(name))),
		Code: code, Detail: fmt.Sprintf(format, args...),
	}
}

// innerProblem is a problem with a part of an option.
func innerProblem(name, part, code, format string, args ...any) batch.Problem {
	p := optionProblem(name, code, format, args...)
	p.Pointer = string(jsontext.Pointer(p.Pointer).AppendToken(clip(part)))
	return p
}

// set sets an option to a JSON value, which is valid.
func (s *submission) set(name string, v jsontext.Value) {
	s.given.id = s.given.id || name == "id_field"
	s.given.processor = s.given.processor || name == "processor"
	wrong := func(want string) {
		s.problems.add(optionProblem(name, "wrong_type", "%s is %s", name, want))
	}
	switch to := s.field(name).(type) {
	case *bool:
		s.setBool(name, to, string(v))
	case *string:
		if v.Kind() != '"' {
			wrong("a string")
			return
		}
		s.setString(name, to, unquote(v))
	case *int:
		s.setInt(name, to, string(v))
	case *time.Time:
		if v.Kind() != '"' {
			wrong(timeForm)
			return
		}
		s.setTime(name, to, unquote(v))
	case *time.Duration:
		if v.Kind() != '"' {
			wrong(durationForm)
			return
		}
		s.setDuration(name, to, unquote(v))
	case *batch.Tolerance:
		s.setTolerance(name, to, v)
	case *map[string]string:
		if v.Kind() != '{' {
			wrong("an object of strings")
			return
		}
		*to = s.pairs(name, v)
	case *[]string:
		if v.Kind() != '[' {
			wrong(arrayForm)
			return
		}
		*to = s.words(name, v)
	default:
		s.problems.add(optionProblem(name, "unknown_option", "there is no option %q", clip(name)))
	}
}

func (s *submission) setString(name string, to *string, text string) {
	if text == "" && name != "id_field" { // whose absence is worth saying: it spares the spool
		s.problems.add(optionProblem(name, "empty", "%s must not be empty; leave it out instead", name))
		return
	}
	*to = text
}

// setInt takes an integer as it is usually written: no sign but minus, no
// leading zeros, no fraction, no exponent.
func (s *submission) setInt(name string, to *int, text string) {
	n, err := strconv.Atoi(text)
	switch {
	case err != nil || strconv.Itoa(n) != text:
		s.problems.add(optionProblem(name, "wrong_type", "%s is an integer such as 16", name))
	case n == 0: // in the options it would mean the default
		s.problems.add(optionProblem(name, "out_of_range", "%s is at least 1", name))
	default:
		*to = n
	}
}

func (s *submission) setBool(name string, to *bool, text string) {
	if text != "true" && text != "false" {
		s.problems.add(optionProblem(name, "wrong_type", "%s is true or false", name))
		return
	}
	*to = text == "true"
}

// What times and durations look like, to a client who wrote something else.
const (
	timeForm     = `a time such as "2026-11-23T12:00:00Z"`
	durationForm = `a duration such as "90s", "30m" or "24h"`
)

func (s *submission) setTime(name string, to *time.Time, text string) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.IsZero() {
		s.problems.add(optionProblem(name, "bad_time", "%s is %s", name, timeForm))
		return
	}
	*to = t.UTC()
}

func (s *submission) setDuration(name string, to *time.Duration, text string) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		s.problems.add(optionProblem(name, "bad_duration", "%s is %s", name, durationForm))
		return
	}
	*to = d
}

// setTolerance takes a JSON number as a count and a string as a share; the
// domain knows which are any.
func (s *submission) setTolerance(name string, to *batch.Tolerance, v jsontext.Value) {
	switch {
	case v.Kind() == '0':
		*to = batch.Tolerance(v)
	case v.Kind() == '"' && strings.HasSuffix(unquote(v), "%"):
		*to = batch.Tolerance(unquote(v))
	default:
		s.problems.add(optionProblem(name, "wrong_type", `%s is a count such as 10, or a share such as "5%%"`, name))
	}
}

// pairs reads a JSON object of strings, which is valid.
func (s *submission) pairs(name string, v jsontext.Value) map[string]string {
	d := jsontext.NewDecoder(bytes.NewReader(v))
	_, _ = d.ReadToken()
	m := make(map[string]string)
	for d.PeekKind() == '"' {
		k, _ := d.ReadValue()
		key := unquote(k)
		value, _ := d.ReadValue()
		if value.Kind() != '"' {
			s.problems.add(innerProblem(name, key, "wrong_type", "the values of %s are strings", name))
			continue
		}
		m[key] = unquote(value)
	}
	return m
}

// arrayForm is what an array looks like, to a client who wrote something else.
const arrayForm = `an array of strings such as ["batch.progress"]`

// mostWords is how many entries an array of strings has at most.
const mostWords = 16

// words reads a JSON array of strings, which is valid. None comes twice.
func (s *submission) words(name string, v jsontext.Value) (list []string) {
	d := jsontext.NewDecoder(bytes.NewReader(v))
	_, _ = d.ReadToken()
	for i := 0; d.PeekKind() != ']'; i++ {
		value, _ := d.ReadValue()
		switch {
		case i == mostWords:
			s.problems.add(optionProblem(name, "too_many", "%s has at most %d entries", name, mostWords))
			return nil
		case value.Kind() != '"':
			s.problems.add(innerProblem(name, strconv.Itoa(i), "wrong_type", "the entries of %s are strings", name))
		case slices.Contains(list, unquote(value)):
			s.problems.add(innerProblem(name, strconv.Itoa(i), "repeated", "an entry of %s comes once", name))
		default:
			list = append(list, unquote(value))
		}
	}
	return list
}

// unquote returns the text of a JSON string, which is valid.
func unquote(v jsontext.Value) string {
	b, _ := jsontext.AppendUnquote(nil, v)
	return string(b)
}

// setTexts sets the options from query parameters or the fields of a form.
// Objects and arrays are JSON text, and metadata.KEY=VALUE is a pair of metadata.
func (s *submission) setTexts(q url.Values) {
	var pairs map[string]string
	for _, name := range slices.Sorted(maps.Keys(q)) {
		if len(q[name]) != 1 {
			s.problems.add(optionProblem(name, "repeated_option", "%q is given %d times", clip(name), len(q[name])))
			continue
		}
		text := q.Get(name)
		if !utf8.ValidString(name) || !utf8.ValidString(text) {
			s.problems.add(optionProblem(name, "invalid_utf8", "the option is not valid UTF-8"))
			continue
		}
		if key, ok := strings.CutPrefix(name, "metadata."); ok {
			if pairs == nil {
				pairs = make(map[string]string)
			}
			pairs[key] = text
			continue
		}
		s.setText(name, text)
	}
	switch {
	case pairs == nil:
	case q.Has("metadata"):
		s.problems.add(optionProblem("metadata", "ambiguous", "metadata comes as one JSON object or as metadata.KEY=VALUE, not both"))
	default:
		s.options.Metadata = pairs
	}
}

// setText sets an option to a text.
func (s *submission) setText(name, text string) {
	switch to := s.field(name).(type) {
	case *bool:
		s.setBool(name, to, text)
	case *string:
		s.setString(name, to, text)
	case *int:
		s.setInt(name, to, text)
	case *time.Time:
		s.setTime(name, to, text)
	case *time.Duration:
		s.setDuration(name, to, text)
	case *batch.Tolerance:
		s.setString(name, (*string)(to), text)
	default:
		v := jsontext.Value(text)
		if to != nil && !v.IsValid() {
			form := "an object of strings"
			if _, ok := to.(*[]string); ok {
				form = arrayForm
			}
			s.problems.add(optionProblem(name, "invalid_json", "%s is JSON text, %s, and this is not valid", name, form))
			return
		}
		s.set(name, v)
	}
}

// refuseQuery reports options in the query where they are elsewhere.
func (s *submission) refuseQuery(q url.Values, elsewhere string) {
	for _, name := range slices.Sorted(maps.Keys(q)) {
		s.problems.add(optionProblem(name, "unknown_option", "%q is not a query parameter here: %s", clip(name), elsewhere))
	}
}
