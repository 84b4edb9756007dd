package main

import (
	"bytes"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// asTheAPI are the ways of the API to write JSON: times have milliseconds,
// always all three digits, and the same is always written the same.
var asTheAPI = json.JoinOptions(
	json.Deterministic(true),
	json.WithMarshalers(json.MarshalToFunc(func(enc *jsontext.Encoder, t time.Time) error {
		return enc.WriteToken(jsontext.String(batch.FormatTime(t)))
	})),
)

// writeDocument writes a document of the API as a line of JSON with the same
// value and nothing in it that could do something to a terminal.
func writeDocument(w *world, doc any) error {
	line, err := documentLine(doc)
	if err != nil {
		return err
	}
	_, err = w.stdout.Write(append(line, '\n'))
	return err
}

// writeAround writes a document as [writeDocument] does, whose members are those
// of head, a JSON text, and those of tail if there is one. The text stays as it
// is, byte for byte; none at all is null. Callbatch's are of one line; another's
// are drawn together.
func writeAround(w *world, head any, member string, text []byte, tail any) error {
	line, err := documentLine(head)
	if err != nil {
		return err
	}
	v := jsontext.Value(text)
	if len(v) == 0 {
		v = jsontext.Value("null")
	}
	if bytes.ContainsAny(v, "\r\n") { // in JSON always white space
		v = bytes.Clone(v)
		if err := v.Compact(); err != nil {
			return err
		}
	}
	rest := []byte("}")
	if tail != nil {
		if rest, err = documentLine(tail); err != nil {
			return err
		}
		rest[0] = ','
	}
	line = append(line[:len(line)-1], `,"`+member+`":`...)
	_, err = w.stdout.Write(append(append(append(line, v...), rest...), '\n'))
	return err
}

func documentLine(doc any) ([]byte, error) {
	line, err := json.Marshal(doc, asTheAPI)
	return escapeJSON(line, unprintable), err
}

// forScreen returns a JSON text as it may stand on standard output: byte for
// byte or, on a terminal, the same to a reader of JSON with nothing in it that
// could do something to that.
func (w *world) forScreen(text []byte) []byte {
	if _, ok := w.terminal(w.stdout); ok {
		return escapeJSON(text, unprintable)
	}
	return text
}
