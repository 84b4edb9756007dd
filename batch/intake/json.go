package intake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// optionBytes is the most one option may take, name and white space included.
// The largest metadata fits, every character escaped.
const optionBytes = 128 << 10

// A document reads {"processor":…, "items":[…]} as a stream.
type document struct {
	s   *submission
	win window
	dec *jsontext.Decoder

	members int  // of the object, read so far
	items   bool // seen
	bare    bool // has no items

	buffer int // of the decoder, the largest so far
	held   int // for the decoder and the options read
	kept   int // of the options
}

func newDocument(s *submission, in *bufio.Reader) *document {
	d := &document{s: s, win: window{in: in}}
	d.win.grow = d.hold
	return d
}

// readJSON reads an object of options with the items among them.
func readJSON(ctx context.Context, s *submission, in *bufio.Reader) error {
	d := newDocument(s, in)
	if err := d.read(ctx); err != nil {
		return err
	}
	if !d.items {
		s.problems.add(optionProblem("items", "required", "items is required, an array"))
	}
	return nil
}

// readOptions reads a body that is an object of options alone.
func (s *submission) readOptions(ctx context.Context, r Request, body io.Reader) error {
	media, _, err := mediaOf(r.ContentType)
	if err != nil {
		return err
	}
	if media != "application/json" {
		return batch.Refuse(batch.Unsupported, "unsupported_content_type",
			"options without items are query parameters and no body, or application/json, not %q", clip(r.ContentType))
	}
	s.refuseQuery(r.Query, "the body carries the options")
	return s.readText(ctx, body, format{read: func(ctx context.Context, s *submission, in *bufio.Reader) error {
		d := newDocument(s, in)
		d.bare = true
		return d.read(ctx)
	}})
}

// decoders are kept between submissions.
var decoders = sync.Pool{New: func() any { return new(jsontext.Decoder) }}

func (d *document) read(ctx context.Context) error {
	d.dec = decoders.Get().(*jsontext.Decoder)
	d.dec.Reset(&d.win)
	defer func() {
		if d.buffer <= readBuffer { // a larger one is not kept: nobody would have asked for it
			d.dec.Reset(strings.NewReader("")) // it holds nothing of the submission
			decoders.Put(d.dec)
		}
	}()
	return d.object(ctx)
}

// nameBytes is about what a decoder holds for a member name of an object
// that it has not come to the end of, besides the text.
const nameBytes = 64

// hold accounts for what the decoder holds while it reads on, with room for
// so many bytes.
func (d *document) hold(room int) error {
	d.buffer = max(d.buffer, int(d.win.at-d.dec.InputOffset())+room)
	names := min(d.win.names*nameBytes, 8*d.buffer) // most colons in a text stand behind no name
	return d.s.share.grow(&d.held, d.buffer+names+d.kept)
}

// object reads the whole body.
func (d *document) object(ctx context.Context) error {
	d.allow(optionBytes)
	switch start, err := d.dec.ReadToken(); {
	case err == io.EOF:
		return batch.Refuse(batch.Malformed, "empty_body", "a body of application/json is not empty")
	case err != nil:
		return d.failed(err)
	case start.Kind() != '{':
		return refuse(batch.Invalid, batch.Problem{
			Index: -1, Line: -1, Code: "wrong_type", Detail: `the body is an object with its options and "items":[…]`,
		})
	}
	for {
		d.allow(optionBytes)
		if d.dec.PeekKind() == '}' {
			break
		}
		if err := d.member(ctx); err != nil {
			return err
		}
		// The decoder remembers names to find duplicates. So many cannot all
		// be options: there are problems to report, and an end to it.
		if d.members++; d.members > batch.MaxProblems {
			return d.s.problems.err()
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return d.failed(err)
	}
	return d.end()
}

// end makes sure that nothing follows.
func (d *document) end() error {
	d.allow(optionBytes)
	_, err := d.dec.ReadToken()
	switch {
	case err == io.EOF:
		return nil
	case err == nil || isSyntactic(err):
		return refuse(batch.Malformed, batch.Problem{
			Index: -1, Line: -1, Code: "trailing_data",
			Detail: "something follows the object; a body of one item a line is application/x-ndjson",
		})
	default:
		return d.failed(err)
	}
}

// member reads one option, or the items.
func (d *document) member(ctx context.Context) error {
	token, err := d.dec.ReadToken()
	if err != nil {
		return d.failed(err)
	}
	name := token.String()
	switch {
	case name == "items" && d.bare:
		return refuse(batch.Invalid, optionProblem("items", "items_beside_options", "the items of an open batch come in its parts"))
	case name == "items":
		return d.array(ctx)
	}
	v, err := d.dec.ReadValue()
	if err != nil {
		return d.failed(err)
	}
	if d.s.elsewhere != "" {
		d.s.problems.add(optionProblem(name, "option_beside_items", "%q stands beside the items: %s", clip(name), d.s.elsewhere))
		return nil
	}
	d.kept += len(v)
	d.s.set(name, v)
	return nil
}

// array reads the items.
func (d *document) array(ctx context.Context) error {
	d.items = true
	if d.dec.PeekKind() != '[' {
		if err := d.dec.SkipValue(); err != nil {
			return d.failed(err)
		}
		d.s.problems.add(optionProblem("items", "wrong_type", "items is an array"))
		return nil
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return d.failed(err)
	}
	if d.s.elsewhere == "" {
		d.s.begin()
	}
	for {
		d.allow(padding) // up to where the item begins
		if d.dec.PeekKind() == ']' {
			break
		}
		d.allow(padding + d.s.limits.ItemBytes)
		if err := d.item(ctx); err != nil {
			return err
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return d.failed(err)
	}
	return nil
}

func (d *document) item(ctx context.Context) error {
	raw, err := d.dec.ReadValue()
	switch {
	case err == nil:
	case errors.Is(err, errWindow) && !d.blank():
		return d.s.itemTooLarge(d.s.items, -1)
	case isSyntactic(err):
		p := d.syntax(err)
		p.Index = d.s.items
		if p.Index > 0 && d.adjoins(err) {
			p.Index--
		}
		_, p.Pointer, _ = strings.Cut(p.Pointer, "/items/"+strconv.Itoa(p.Index))
		return refuse(batch.Malformed, *p)
	default:
		return d.failed(err)
	}
	index, err := d.s.admit(len(raw), -1)
	if err != nil {
		return err
	}
	return d.s.take(ctx, index, -1, raw, true)
}

// adjoins reports whether a fault is right behind the last value: that is what
// was taken for a whole one too soon, as in 01.
func (d *document) adjoins(err error) bool {
	e, _ := errors.AsType[*jsontext.SyntacticError](err)
	return e.ByteOffset == d.dec.InputOffset() && !bytes.HasPrefix(d.dec.UnreadBuffer(), []byte(","))
}

// failed says why the decoder could not go on.
func (d *document) failed(err error) error {
	switch {
	case errors.Is(err, errWindow) && d.blank():
		return batch.Refuse(batch.TooLarge, "too_much_space", "there is too much white space between two values: more than %d bytes", padding)
	case errors.Is(err, errWindow):
		return batch.Refuse(batch.TooLarge, "option_too_large", "an option has at most %d bytes", optionBytes)
	case isSyntactic(err):
		return refuse(batch.Malformed, *d.syntax(err))
	default:
		return err
	}
}

// blank reports whether there is nothing but white space where the decoder
// could not go on.
func (d *document) blank() bool { return len(bytes.Trim(d.dec.UnreadBuffer(), " \t\r\n,:")) == 0 }

// syntax says what is wrong with the document, its pointer as the place.
func (d *document) syntax(err error) *batch.Problem {
	p := syntaxProblem(err, d.dec.UnreadBuffer(), d.dec.InputOffset())
	p.Index, p.Line = -1, -1
	return p
}

// isSyntactic reports whether the text is wrong, rather than that there is no
// more of it to be had, which the decoder wraps as well if that is inside an
// object or array.
func isSyntactic(err error) bool {
	_, ok := errors.AsType[*jsontext.SyntacticError](err)
	return ok && batch.CodeOf(err) == ""
}

// allow lets the decoder read n bytes beyond what it has returned. Without it
// one value, or white space, could fill the memory.
func (d *document) allow(n int) { d.win.end, d.win.names = d.dec.InputOffset()+int64(n), 0 }

var errWindow = errors.New("value too large")

// A window ends the reading where a value must have ended.
type window struct {
	in      *bufio.Reader
	at, end int64                // offsets
	names   int                  // colons read, which may stand behind names
	grow    func(room int) error // asked before room is filled; nil: nobody
}

func (w *window) Read(p []byte) (int, error) {
	if w.at >= w.end {
		return 0, errWindow
	}
	if w.grow != nil {
		if err := w.grow(len(p)); err != nil {
			return 0, err
		}
	}
	n, err := w.in.Read(p[:min(int64(len(p)), w.end-w.at)])
	w.at += int64(n)
	if w.grow != nil {
		w.names += bytes.Count(p[:n], []byte(":"))
	}
	return n, err
}
