package intake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// mostColumns is how many columns a table has at most: as many as fit a
// spreadsheet.
const mostColumns = 16_384

// A table reads CSV as RFC 4180 has it: a header line that names the members,
// then one item a record, all its values strings. A line with nothing on it is
// skipped. What the RFC does not have is refused, since it would leave to guess
// where a field ends.
type table struct {
	s     *submission
	lines lines
	names [][]byte // of the columns, as they stand in an item: `"qty":`
	open  bool     // the header has been read

	first int    // line where the record at hand begins
	size  int    // its bytes so far
	wrong string // what is in it that no text has; empty: nothing
	clean bool   // its last line has neither a quote nor a carriage return
	end   []byte // how its last line ends
	value []byte // a quoted field
	item  []byte
	held  int // for value and item
}

// readCSV reads one item a record.
func readCSV(ctx context.Context, s *submission, in *bufio.Reader) error {
	t := &table{s: s, lines: lines{in: in, share: s.share, most: s.limits.ItemBytes + padding}}
	err := t.header()
	for err == nil {
		err = t.row(ctx)
	}
	switch {
	case err == io.EOF:
		return nil
	case errors.Is(err, errLineTooLong):
		return s.itemTooLarge(s.items, t.lines.number)
	default:
		return err
	}
}

// header reads the names of the columns.
func (t *table) header() error {
	seen := make(map[string]bool)
	bad := func(format string, args ...any) error { return t.refuse("bad_column", format, args...) }
	err := t.record(func(i int, name []byte) error {
		switch {
		case i == mostColumns:
			return batch.Refuse(batch.TooLarge, "too_many_columns", "a table has at most %d columns", mostColumns)
		case len(name) == 0:
			return bad("column %d has no name", i+1)
		case bytes.HasPrefix(name, []byte("\ufeff")):
			return bad("the name of column %d begins with a byte order mark", i+1)
		case seen[string(name)]:
			return bad("two columns are named %q", clip(string(name)))
		}
		seen[string(name)] = true
		quoted, _ := jsontext.AppendQuote(nil, name) // if it is no text, the line was found wrong
		t.names = append(t.names, append(quoted, ':'))
		return nil
	})
	if err == nil && t.wrong != "" {
		return t.refuse(t.wrong, "%s", wrongText[t.wrong])
	}
	t.open = true
	return err
}

// row reads one item.
func (t *table) row(ctx context.Context) error {
	n := 0
	t.item = append(t.item[:0], '{')
	err := t.record(func(i int, value []byte) error {
		if n++; i >= len(t.names) {
			return nil
		}
		if i > 0 {
			t.item = append(t.item, ',')
		}
		t.item = append(t.item, t.names[i]...)
		t.item, _ = jsontext.AppendQuote(t.item, value)
		if len(t.item) > t.s.limits.ItemBytes {
			return t.s.itemTooLarge(t.s.items, t.first)
		}
		return t.hold()
	})
	if err != nil {
		return err
	}
	t.item = append(t.item, '}')
	index, err := t.s.admit(len(t.item), t.first)
	if err != nil {
		return err
	}
	switch {
	case n != len(t.names):
		t.s.problems.add(batch.Problem{
			Index: index, Line: t.first, Code: "ragged_row",
			Detail: fmt.Sprintf("the row has %d fields and the header %d", n, len(t.names)),
		})
	case t.wrong != "":
		t.s.problems.add(batch.Problem{Index: index, Line: t.first, Code: t.wrong, Detail: wrongText[t.wrong]})
	default:
		return t.s.take(ctx, index, t.first, t.item, true)
	}
	return nil
}

// record reads the next record and calls f with each of its fields, good
// during the call only. It returns io.EOF behind the last record.
func (t *table) record(f func(i int, value []byte) error) error {
	t.wrong = ""
	var rest []byte
	for len(rest) == 0 {
		t.size = 0
		var err error
		if rest, err = t.line(); err != nil {
			return err
		}
	}
	t.first = t.lines.number
	for i, more := 0, true; more; i++ {
		var value []byte
		var err error
		if len(rest) > 0 && rest[0] == '"' {
			value, rest, more, err = t.quoted(rest[1:])
		} else {
			value, rest, more, err = t.plain(rest)
		}
		if err == nil {
			err = f(i, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// line returns the next line of the record, without its end.
func (t *table) line() ([]byte, error) {
	raw, err := t.lines.physical()
	if err != nil && (err != io.EOF || len(raw) == 0) {
		return nil, err
	}
	if t.size += len(raw); t.size > t.lines.most {
		return nil, errLineTooLong
	}
	text := bytes.TrimSuffix(bytes.TrimSuffix(raw, []byte("\n")), []byte("\r"))
	t.end = raw[len(text):]
	t.clean = bytes.IndexByte(text, '"') < 0 && bytes.IndexByte(text, '\r') < 0
	switch {
	case !utf8.Valid(text):
		t.wrong = "invalid_utf8"
	case bytes.IndexByte(text, 0) >= 0:
		t.wrong = "nul"
	}
	return text, nil
}

// wrongText says what is wrong with a record that is no text.
var wrongText = map[string]string{
	"invalid_utf8": "the text is not valid UTF-8",
	"nul":          "there is a NUL in the text",
}

// plain returns the field that text begins with, which is not quoted, what
// follows its comma, and whether there is one.
func (t *table) plain(text []byte) (value, rest []byte, more bool, err error) {
	value, rest, more = bytes.Cut(text, []byte(","))
	switch {
	case t.clean:
	case bytes.IndexByte(value, '"') >= 0:
		err = t.refuse("invalid_csv", `a quote stands inside a field that does not begin with one; quote the field and double the quote: "5"" disk"`)
	case bytes.IndexByte(value, '\r') >= 0:
		err = t.refuse("invalid_csv", "a carriage return stands alone; lines end in LF or CRLF")
	}
	return value, rest, more, err
}

// quoted does what plain does for a field whose opening quote has been read.
// It goes on behind the end of the line as long as the field does.
func (t *table) quoted(text []byte) (value, rest []byte, more bool, err error) {
	begin := t.lines.number
	t.value = t.value[:0]
	for {
		inside, behind, closed := bytes.Cut(text, []byte(`"`))
		t.value = append(t.value, inside...)
		switch {
		case !closed:
			t.value = append(t.value, t.end...)
			if err := t.hold(); err != nil {
				return nil, nil, false, err
			}
			if text, err = t.line(); err == io.EOF {
				t.first = begin
				err = t.refuse("invalid_csv", "the text ends inside a quoted field that begins on this line")
			}
			if err != nil {
				return nil, nil, false, err
			}
		case len(behind) == 0:
			return t.value, nil, false, nil
		case behind[0] == ',':
			return t.value, behind[1:], true, nil
		case behind[0] == '"':
			t.value = append(t.value, '"')
			text = behind[1:]
		default:
			return nil, nil, false, t.refuse("invalid_csv", `a quoted field goes on behind its quote; a quote inside is doubled: "5"" disk"`)
		}
	}
}

// hold accounts for what the fields and the item take.
func (t *table) hold() error { return t.s.share.grow(&t.held, cap(t.value)+cap(t.item)) }

// refuse makes the error that ends the reading within the record at hand.
func (t *table) refuse(code, format string, args ...any) error {
	index := -1
	if t.open {
		index = t.s.items
	}
	return refuse(batch.Malformed, batch.Problem{Index: index, Line: t.first, Code: code, Detail: fmt.Sprintf(format, args...)})
}
