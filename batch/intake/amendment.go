package intake

import (
	"bytes"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// Amendment reads the JSON object that says what is to change of a batch: the
// options that may, as in a submission, and null for what is taken back.
// callback_headers and metadata are changed pair by pair, as in RFC 7396. The
// caller bounds body.
//
// Its errors are [*batch.Error]s, Malformed or Invalid, with the place. They
// repeat no value of a header.
func Amendment(body []byte) (a batch.Amendment, err error) {
	var members map[string]jsontext.Value
	if err := object(body, &members); err != nil {
		return a, err
	}
	if members == nil {
		return a, refuse(batch.Invalid, batch.Problem{Index: -1, Line: -1, Code: "wrong_type", Detail: "the body is a JSON object"})
	}
	s := &submission{}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		s.amend(&a, name, members[name])
	}
	for _, p := range s.options.Validate() {
		s.problems.add(p)
	}
	if s.problems.any() {
		return a, s.problems.err()
	}
	return a, nil
}

// amend reads one member of an amendment.
func (s *submission) amend(a *batch.Amendment, name string, v jsontext.Value) {
	null, o := v.Kind() == 'n', &s.options
	switch name {
	case "callback_headers":
		a.BareCallback = null
		a.CallbackHeaders = s.changes(name, v)
		return
	case "metadata":
		a.BareMetadata = null
		a.Metadata = s.changes(name, v)
		return
	case "callback_url":
		a.CallbackURL = &o.CallbackURL
		if null {
			s.problems.add(optionProblem(name, "wrong_type", "callback_url can be changed, not taken away: messages may be owed"))
			return
		}
	case "priority":
		a.Priority = &o.Priority
		o.Priority = batch.PriorityNormal
	case "expires_in":
		a.ExpiresIn = &o.ExpiresIn
	case "max_failures":
		a.MaxFailures = &o.MaxFailures
	case "concurrency":
		a.Concurrency = &o.Concurrency
	default:
		if field(o, name) != nil {
			s.problems.add(optionProblem(name, "fixed_option", "%s cannot be changed once the batch is accepted", name))
		} else {
			s.problems.add(optionProblem(name, "unknown_member", "there is no member %q here", clip(name)))
		}
		return
	}
	if !null {
		s.set(name, v)
	}
}

// changes reads what is to change of an object of strings: null takes a pair,
// or all of them, away.
func (s *submission) changes(name string, v jsontext.Value) map[string]*string {
	if v.Kind() != '{' {
		if v.Kind() != 'n' {
			s.problems.add(optionProblem(name, "wrong_type", "%s is an object of strings", name))
		}
		return nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(v))
	_, _ = d.ReadToken()
	m := make(map[string]*string)
	for d.PeekKind() == '"' {
		k, _ := d.ReadValue()
		key := unquote(k)
		switch value, _ := d.ReadValue(); value.Kind() {
		case '"':
			text := unquote(value)
			m[key] = &text
		case 'n':
			m[key] = nil
		default:
			s.problems.add(innerProblem(name, key, "wrong_type", "the values of %s are strings, or null to take one away", name))
		}
	}
	return m
}
