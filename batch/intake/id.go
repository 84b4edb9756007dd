package intake

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// id returns the text of an id: of a string what it says, of an integer its
// digits. v is nil if the item has none.
func (j *judge) id(v jsontext.Value) ([]byte, *batch.Problem) {
	bad := func(format string, args ...any) ([]byte, *batch.Problem) {
		return nil, &batch.Problem{Pointer: j.field, Code: "bad_id", Detail: fmt.Sprintf(format, args...)}
	}
	if v == nil {
		return bad("the item has no id there")
	}
	id := []byte(v)
	switch v.Kind() {
	case '"':
		if bytes.IndexByte(v, '\\') < 0 {
			id = v[1 : len(v)-1]
			break
		}
		j.scratch, _ = jsontext.AppendUnquote(j.scratch[:0], v)
		id = j.scratch
	case '0':
		if bytes.ContainsAny(v, ".eE") {
			return bad("an id is a string or an integer, not another number")
		}
	default:
		return bad("an id is a string or an integer")
	}
	switch {
	case len(id) == 0:
		return bad("an id is not empty")
	case len(id) > batch.MaxItemID:
		return bad("an id has at most %d bytes", batch.MaxItemID)
	case !isVisible(id):
		return bad("an id has no control characters, line separators or marks that turn the direction of text")
	}
	return id, nil
}

// isVisible reports whether an id may be shown as it is: nothing in it breaks
// a line or turns the direction of what follows. Joiners belong to the words
// of some languages.
func isVisible(id []byte) bool {
	for i := 0; i < len(id); {
		if c := id[i]; c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(id[i:])
		if unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return false
		}
		i += size
	}
	return true
}

// duplicateID is the problem of an id that came before.
func duplicateID(field string, first, again idEntry) batch.Problem {
	p := batch.Problem{
		Index: int(again.index), Line: int(again.line), Pointer: field, Code: "duplicate_id",
		Detail: fmt.Sprintf("the id is that of index %d already", first.index),
	}
	if first.line > 0 {
		p.Detail = fmt.Sprintf("the id is that of line %d (index %d) already", first.line, first.index)
	}
	return p
}
