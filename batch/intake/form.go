package intake

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"mime/multipart"
	"net/url"
	"path"
	"strings"

	"github.com/callbatch/callbatch/batch"
)

const (
	fieldBytes = 2 * optionBytes // of all fields of a form, names included
	headBytes  = 16 << 10        // of what stands between two parts, the second one's header above all

	mostParts    = 100 // far more than there are options
	mostBoundary = 70  // bytes, as RFC 2046 has it
)

// A form reads multipart/form-data: the options are its fields, the items are
// in its one file, in any order.
type form struct {
	s      *submission
	win    window
	src    cutoff
	parts  *multipart.Reader
	count  int        // of parts
	fields url.Values // as they came
	size   int        // of fields, in bytes
	file   bool       // seen
	alone  bool       // there may be no fields
	kept   kept       // reads the fields
}

// readForm returns what reads a form with this boundary between its parts.
func readForm(boundary string) func(context.Context, *submission, *bufio.Reader) error {
	return func(ctx context.Context, s *submission, in *bufio.Reader) error {
		f := &form{s: s, win: window{in: in}, fields: make(url.Values), alone: s.elsewhere != "", kept: kept{share: s.share}}
		f.src.r = &f.win
		f.parts = multipart.NewReader(&f.src, boundary)
		if !f.alone {
			s.elsewhere = "the options are fields of the form"
		}
		for more := true; more; {
			var err error
			if more, err = f.part(ctx); err != nil {
				return err
			}
		}
		if !f.file {
			s.problems.add(optionProblem("file", "required", "file is required, the part that the items are in"))
		}
		s.setTexts(f.fields)
		return nil
	}
}

// part reads the next part, if there is one more.
func (f *form) part(ctx context.Context) (more bool, err error) {
	f.allow(headBytes)
	p, err := f.parts.NextRawPart()
	if err == io.EOF {
		return false, f.end()
	}
	if err != nil {
		return false, f.failed()
	}
	if f.count++; f.count > mostParts {
		return false, batch.Refuse(batch.TooLarge, "too_many_fields", "a form has at most %d parts", mostParts)
	}
	f.allow(math.MaxInt64 / 2)
	switch strings.ToLower(p.Header.Get("Content-Transfer-Encoding")) {
	case "", "binary", "8bit", "7bit":
	default:
		return false, batch.Refuse(batch.Unsupported, "unsupported_coding", "a part of a form has no Content-Transfer-Encoding")
	}
	switch name := p.FormName(); {
	case name == "":
		return false, batch.Refuse(batch.Malformed, "invalid_form", "a part of the form has no name: Content-Disposition: form-data; name=…")
	case name == "file" && f.file:
		return false, batch.Refuse(batch.Invalid, "second_file", "a form has one part named file; a batch in several files is uploaded in parts")
	case name == "file":
		f.file = true
		err = f.items(ctx, p)
	case f.alone:
		f.s.problems.add(optionProblem(name, "option_beside_items", "%q stands beside the items: %s", clip(name), f.s.elsewhere))
		_, err = f.value(p)
	default:
		var value string
		value, err = f.value(p)
		f.fields.Add(name, value)
	}
	return true, err
}

// end reads what follows the last part, which means nothing.
func (f *form) end() error {
	_, err := io.Copy(io.Discard, &f.win)
	if errors.Is(err, errWindow) {
		return batch.Refuse(batch.Malformed, "trailing_data", "more than %d bytes follow the form", headBytes)
	}
	return err
}

// items reads the file. The items wait if a field that decides about them may
// still come.
func (f *form) items(ctx context.Context, p *multipart.Part) error {
	kind, err := fileFormat(strings.Join(p.Header["Content-Type"], ", "), p.FileName())
	if err != nil {
		return err
	}
	if !f.alone {
		if f.fields.Has("id_field") {
			f.s.given.id, f.s.options.IDField = true, f.fields.Get("id_field")
		}
		if f.fields.Has("processor") {
			f.s.given.processor, f.s.options.Processor = true, f.fields.Get("processor")
		}
		f.s.begin()
	}
	return f.s.readText(ctx, partReader{p, f}, kind)
}

// value reads a field.
func (f *form) value(p *multipart.Part) (string, error) {
	f.size += len(p.FormName())
	f.kept.r = partReader{p, f}
	b, err := io.ReadAll(io.LimitReader(&f.kept, int64(fieldBytes-min(f.size, fieldBytes)+1)))
	if f.size += len(b); f.size > fieldBytes {
		return "", batch.Refuse(batch.TooLarge, "option_too_large", "the fields of a form have at most %d bytes together", fieldBytes)
	}
	return string(b), err
}

// allow lets the form be read n bytes on from here.
func (f *form) allow(n int64) { f.win.end = f.win.at + n }

var errCut = errors.New("form cut off")

// A cutoff reads a form for the library, which takes one that ends within the
// header of a part for complete. Here the text ends in a line feed and errCut,
// so that only the last boundary, which may lack the line feed, ends a form.
// The library also forgets why a header could not be read.
type cutoff struct {
	r    io.Reader
	rest string // that comes before err
	err  error  // the first; nil: none yet
}

func (c *cutoff) Read(b []byte) (int, error) {
	if c.err == nil {
		n, err := c.r.Read(b)
		if c.err = err; err == io.EOF {
			c.err, c.rest = errCut, "\r\n"
		}
		if n > 0 || err == nil {
			return n, nil
		}
	}
	if c.rest == "" {
		return 0, c.err
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// A partReader reads a part of a form; its errors are those of a body.
type partReader struct {
	*multipart.Part
	form *form
}

func (p partReader) Read(b []byte) (int, error) {
	n, err := p.Part.Read(b)
	if err != nil && err != io.EOF {
		err = p.form.failed()
	}
	return n, err
}

// failed says why the form could not be read on.
func (f *form) failed() error {
	switch {
	case batch.CodeOf(f.src.err) != "":
		return f.src.err
	case f.src.err == errWindow:
		return batch.Refuse(batch.Malformed, "invalid_form", "no part begins where one should, or its header has more than %d bytes", headBytes)
	default:
		return batch.Refuse(batch.Malformed, "invalid_form", "the form is cut off, or not what its boundary says")
	}
}

// fileFormat returns how to read a file: by its content type, or where that
// says nothing of what is in it, by its name.
func fileFormat(contentType, name string) (format, error) {
	media, params, err := mediaOf(contentType)
	if err != nil {
		return format{}, err
	}
	switch media {
	case "", "application/octet-stream", "text/plain", "application/vnd.ms-excel":
		media = mediaByName[strings.ToLower(path.Ext(name))]
	}
	f, ok := formats[media]
	if !ok {
		return format{}, batch.Refuse(batch.Unsupported, "unsupported_content_type",
			"the file's content type is application/json, application/x-ndjson or text/csv, or its name ends in .json, .ndjson, .jsonl or .csv, not %q of name %q", clip(contentType), clip(name))
	}
	return f, checkHeader(media, params)
}

var mediaByName = map[string]string{
	".json": "application/json", ".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson", ".csv": "text/csv",
}
