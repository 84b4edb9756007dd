package intake

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// Object reads the JSON object of a small call into a struct of strings, whole
// numbers, and maps and lists of them, as strictly as a submission is read: no member twice, unknown
// or null, one object and nothing behind it. The caller bounds body.
//
// Its errors are [*batch.Error]s, Malformed or Invalid, with the place. They
// repeat no value.
func Object(body []byte, into any) error {
	return object(body, into, json.WithUnmarshalers(json.UnmarshalFromFunc(refuseNull)))
}

func object(body []byte, into any, how ...json.Options) error {
	if len(body) == 0 {
		return batch.Refuse(batch.Malformed, "empty_body", "the body is a JSON object, not empty")
	}
	err := json.Unmarshal(body, into, append(how, json.RejectUnknownMembers(true))...)
	if err == nil {
		return nil
	}
	wrong, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		p := syntaxProblem(err, body, 0)
		p.Index, p.Line = -1, -1
		return refuse(batch.Malformed, *p)
	}
	p := batch.Problem{Index: -1, Line: -1, Pointer: clip(string(wrong.JSONPointer)), Code: "wrong_type"}
	switch name := clip(wrong.JSONPointer.LastToken()); {
	case errors.Is(err, json.ErrUnknownName):
		p.Code, p.Detail = "unknown_member", fmt.Sprintf("there is no member %q here", name)
	case p.Pointer == "":
		p.Detail = "the body is a JSON object"
	case errors.Is(err, errNull):
		p.Detail = fmt.Sprintf("%q is null; leave it out instead", name)
	case wrong.GoType != nil && wrong.GoType.Kind() == reflect.Map:
		p.Detail = fmt.Sprintf("%q is an object of strings", name)
	case wrong.GoType != nil && wrong.GoType.Kind() == reflect.Slice:
		p.Detail = fmt.Sprintf("%q is a list", name)
	case wrong.GoType != nil && wrong.GoType.Kind() == reflect.Int:
		p.Detail = fmt.Sprintf("%q is a whole number", name)
	default:
		p.Detail = fmt.Sprintf("%q is a string", name)
	}
	return refuse(batch.Invalid, p)
}

var errNull = errors.New("null")

// refuseNull keeps null from being taken for an empty value.
func refuseNull(d *jsontext.Decoder, _ any) error {
	if d.PeekKind() == 'n' {
		return errNull
	}
	return errors.ErrUnsupported
}
