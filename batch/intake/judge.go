package intake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// A judge says whether bytes are one strict JSON value, not nested too deep,
// and finds the client's id in it.
type judge struct {
	dec     *jsontext.Decoder
	src     bytes.Buffer // what dec reads, without a copy
	field   string       // JSON pointer to the id; empty: there are none
	path    []string     // its tokens
	valid   bool         // the item is strict JSON for sure: what follows the id need not be read
	scratch []byte
}

// judges are kept between submissions, with what their decoders have learned
// of memory.
var judges = sync.Pool{New: func() any { return &judge{dec: jsontext.NewDecoder(new(bytes.Buffer))} }}

// release gives the judge back, who remembers nothing.
func (j *judge) release() {
	j.src, j.field, j.path = bytes.Buffer{}, "", nil
	j.dec.Reset(&j.src)
	judges.Put(j)
}

// find makes the judge look for ids.
func (j *judge) find(field string) {
	j.field, j.path = field, nil
	for token := range jsontext.Pointer(field).Tokens() {
		j.path = append(j.path, token)
	}
}

// item judges the bytes of one item, without white space around them. valid
// says that they are strict JSON for sure. The id is good until the next call.
func (j *judge) item(raw []byte, valid bool) (id []byte, p *batch.Problem) {
	if tooDeep(raw) {
		return nil, &batch.Problem{Code: "too_deep", Detail: fmt.Sprintf("an item is nested at most %d deep", batch.MaxDepth)}
	}
	if valid && j.path == nil {
		return nil, nil
	}
	j.src, j.valid = *bytes.NewBuffer(raw), valid
	j.dec.Reset(&j.src)
	v, err := j.value(j.path)
	if err != nil {
		return nil, syntaxProblem(err, raw, 0)
	}
	if valid {
		return j.id(v)
	}
	switch _, err := j.dec.ReadToken(); {
	case err == nil:
		return nil, &batch.Problem{Code: "trailing_data", Detail: "one line is one JSON value; lines end in LF or CRLF"}
	case err != io.EOF:
		return nil, syntaxProblem(err, raw, 0)
	}
	if j.path == nil {
		return nil, nil
	}
	return j.id(v)
}

// value reads the next value and returns the part of it that path leads to:
// nil if there is none.
func (j *judge) value(path []string) (jsontext.Value, error) {
	if len(path) == 0 {
		return j.dec.ReadValue()
	}
	switch j.dec.PeekKind() {
	case '{':
		return j.member(path)
	case '[':
		return j.element(path)
	default:
		_, err := j.dec.ReadValue()
		return nil, err
	}
}

// member reads an object.
func (j *judge) member(path []string) (found jsontext.Value, err error) {
	if _, err := j.dec.ReadToken(); err != nil {
		return nil, err
	}
	for j.dec.PeekKind() != '}' {
		name, err := j.dec.ReadValue()
		if err != nil {
			return nil, err
		}
		if j.isName(name, path[0]) {
			found, err = j.value(path[1:])
		} else {
			_, err = j.dec.ReadValue()
		}
		if err != nil || found != nil && j.valid {
			return found, err
		}
	}
	_, err = j.dec.ReadToken()
	return found, err
}

// element reads an array.
func (j *judge) element(path []string) (found jsontext.Value, err error) {
	if _, err := j.dec.ReadToken(); err != nil {
		return nil, err
	}
	index, err := strconv.Atoi(path[0])
	if err != nil || strconv.Itoa(index) != path[0] {
		index = -1 // leads nowhere
	}
	for i := 0; j.dec.PeekKind() != ']'; i++ {
		if i == index {
			found, err = j.value(path[1:])
		} else {
			_, err = j.dec.ReadValue()
		}
		if err != nil || found != nil && j.valid {
			return found, err
		}
	}
	_, err = j.dec.ReadToken()
	return found, err
}

// isName reports whether a quoted member name says what token says.
func (j *judge) isName(quoted jsontext.Value, token string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1:len(quoted)-1]) == token
	}
	j.scratch, _ = jsontext.AppendUnquote(j.scratch[:0], quoted)
	return string(j.scratch) == token
}

// tooDeep reports whether a value is nested deeper than [batch.MaxDepth].
func tooDeep(raw []byte) bool {
	// Nearly every item is known not to be by its few brackets.
	if bytes.Count(raw, []byte("{"))+bytes.Count(raw, []byte("[")) <= batch.MaxDepth {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > batch.MaxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// syntaxProblem says what a decoder found wrong with a text. near is a part of
// the text that begins at the given offset.
func syntaxProblem(err error, near []byte, offset int64) *batch.Problem {
	e, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return &batch.Problem{Code: "invalid_json", Detail: clip(err.Error())}
	}
	if at := e.ByteOffset - offset; at >= 0 && at <= int64(len(near)) {
		near = near[at:]
	} else {
		near = nil
	}
	p := &batch.Problem{Pointer: clip(string(e.JSONPointer))}
	r, size := utf8.DecodeRune(near)
	switch {
	case strings.Count(string(e.JSONPointer), "/") > batch.MaxDepth+2:
		p.Code, p.Detail = "too_deep", fmt.Sprintf("a value is nested at most %d deep", batch.MaxDepth)
	case errors.Is(err, jsontext.ErrDuplicateName):
		p.Code, p.Detail = "duplicate_member", "an object has two members of one name"
	case errors.Is(err, io.ErrUnexpectedEOF):
		p.Code, p.Detail = "invalid_json", "the text ends in the middle of a value"
	case r == utf8.RuneError && size == 1:
		p.Code, p.Detail = "invalid_utf8", "the text is not valid UTF-8"
	case isSurrogate(near):
		p.Code, p.Detail = "lone_surrogate", `a \u escape is half of a surrogate pair`
	case bytes.HasPrefix(near, []byte(`\`)): // the decoder would quote what may be a secret
		p.Code, p.Detail = "invalid_json", "what follows a backslash is no escape of JSON"
	default:
		p.Code, p.Detail = "invalid_json", clip(e.Err.Error())
	}
	p.Detail += fmt.Sprintf(", at byte %d", e.ByteOffset)
	return p
}

// isSurrogate reports whether text begins with the escape of a surrogate.
func isSurrogate(text []byte) bool {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' || text[2]|0x20 != 'd' {
		return false
	}
	c := text[3] | 0x20
	return c == '8'|0x20 || c == '9'|0x20 || c >= 'a' && c <= 'f'
}
