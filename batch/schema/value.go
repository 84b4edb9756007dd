package schema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// mostDigits is how many digits a number may have, and how large its exponent
// may be: numbers are compared exactly, and take as much as they have digits.
// It is more than a float64 can be.
const mostDigits = 400

// decode reads one JSON value with numbers as they are written.
func decode(text []byte) (any, *batch.Problem) {
	d := jsontext.NewDecoder(bytes.NewBuffer(text))
	v, err := value(d)
	if err == nil {
		return v, nil
	}
	p := problem(string(d.StackPointer()), err.Error())
	return nil, &p
}

func value(d *jsontext.Decoder) (any, error) {
	switch d.PeekKind() {
	case '{':
		return object(d)
	case '[':
		return array(d)
	case '0':
		v, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		return number(string(v))
	}
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case '"':
		return t.String(), nil
	case 't', 'f':
		return t.Bool(), nil
	default:
		return nil, nil
	}
}

func object(d *jsontext.Decoder) (any, error) {
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	members := map[string]any{}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String() // the next token takes its place
		if members[key], err = value(d); err != nil {
			return nil, err
		}
	}
	_, err := d.ReadToken()
	return members, err
}

func array(d *jsontext.Decoder) (any, error) {
	if _, err := d.ReadToken(); err != nil {
		return nil, err
	}
	elements := []any{}
	for d.PeekKind() != ']' {
		v, err := value(d)
		if err != nil {
			return nil, err
		}
		elements = append(elements, v)
	}
	_, err := d.ReadToken()
	return elements, err
}

func number(text string) (any, error) {
	digits, exponent := text, 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		var err error
		digits = text[:i]
		if exponent, err = strconv.Atoi(text[i+1:]); err != nil {
			exponent = mostDigits + 1
		}
	}
	if len(digits) > mostDigits || max(exponent, -exponent) > mostDigits {
		return nil, fmt.Errorf("a number that is checked has at most %d digits and an exponent of at most %d", mostDigits, mostDigits)
	}
	return json.Number(text), nil
}
