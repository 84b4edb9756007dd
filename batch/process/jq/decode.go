package jq

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// decode returns the item as gojq takes values. Numbers keep their text until
// the program computes with them.
func (p *Processor) decode(item []byte) (any, error) {
	d, ok := p.decoders.Get().(*jsontext.Decoder)
	if !ok {
		d = new(jsontext.Decoder)
	}
	defer p.decoders.Put(d)
	d.Reset(bytes.NewBuffer(item[:len(item):len(item)]))
	v, err := decodeValue(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	return v, nil
}

func decodeValue(d *jsontext.Decoder) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case '"':
		return t.String(), nil
	case '0':
		return json.Number(t.String()), nil
	case 't', 'f':
		return t.Bool(), nil
	case '[':
		return decodeArray(d)
	case '{':
		return decodeObject(d)
	default:
		return nil, nil
	}
}

func decodeArray(d *jsontext.Decoder) (any, error) {
	values := []any{}
	for d.PeekKind() != ']' {
		v, err := decodeValue(d)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	_, err := d.ReadToken()
	return values, err
}

func decodeObject(d *jsontext.Decoder) (any, error) {
	members := map[string]any{}
	for d.PeekKind() != '}' {
		t, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		name := t.String()
		if members[name], err = decodeValue(d); err != nil {
			return nil, err
		}
	}
	_, err := d.ReadToken()
	return members, err
}
