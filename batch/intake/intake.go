package intake

import (
	"bufio"
	"context"
	"crypto/sha256"
	"io"
	"mime"
	"net/url"
	"strings"
	"sync"

	"github.com/callbatch/callbatch/batch"
)

// A Request is a submission as it came over the wire.
type Request struct {
	ContentType     string
	ContentEncoding string
	Query           url.Values // options, where they travel in the query; nothing else
	Body            io.Reader
	Length          int64 // bytes of Body; -1 unknown
	Digest          bool  // Read is to give a digest of the content, which costs upload speed
}

// Content is what a submission says.
type Content struct {
	Options batch.Options // with the defaults filled in
	Items   int

	// ValidateOnly says that the client wanted everything checked and nothing
	// kept: there is nothing to create, though blocks may have been appended.
	ValidateOnly bool

	// Digest is the SHA-256 of the options, with the defaults filled in, and
	// of the items as decoded; zero unless asked for. How they were sent does
	// not change it: coding, content type, field order, white space around
	// items.
	Digest [sha256.Size]byte
}

// A Part is what one part of an open batch holds.
type Part struct {
	Items   int
	Bytes   int64             // of the text of the items, decoded; of multipart/form-data the file alone
	SHA256  [sha256.Size]byte // of the same text
	Content [sha256.Size]byte // digest of the items, each with its length, in whatever text they stood
}

// Options bound what is read. The zero value means the contract's defaults.
type Options struct {
	Items     int     // most items of a batch; default 10,000,000
	ItemBytes int     // most bytes of one item; default 1 MiB; a few times this may be held in memory
	Body      int64   // most bytes of a body, decoded; default 16 GiB
	PartBytes int64   // most bytes of one part of an open batch, decoded; default 64 MiB
	Ratio     int     // most decoded bytes for each byte sent, beyond 10 MiB; default 100
	Budget    *Budget // of memory, shared by all that is read with it; nil: there is no bound
	Dir       string  // where temporary files go, unlinked once opened; default os.TempDir()

	// Check is the server's judgement of options that are well formed: is the
	// processor known, may the callback go there? It is asked at most once, as
	// soon as the options are complete: where they travel in the query before
	// the body is touched, else after the body. Nil: everything is fine.
	Check func(batch.Options) []batch.Problem

	// CheckItems returns what to judge the items by besides their form, which
	// their processor decides: nothing else of the options need be known yet.
	// It is asked at most once, also of a processor that Check will refuse. What
	// it returns is asked of each item, in order, and only reads the bytes, a
	// valid JSON value. A problem bears a pointer, a code and a detail; the
	// place is filled in here. Either function may be nil: every item is fine.
	CheckItems func(batch.Options) func(raw []byte) []batch.Problem

	// Defaults are what the client gets where it asks for nothing.
	Defaults batch.Options
}

// WithDefaults returns o with the limits of the contract filled in.
func (o Options) WithDefaults() Options {
	if o.Items == 0 {
		o.Items = 10_000_000
	}
	if o.ItemBytes == 0 {
		o.ItemBytes = 1 << 20
	}
	if o.Body == 0 {
		o.Body = 16 << 30
	}
	if o.PartBytes == 0 {
		o.PartBytes = 64 << 20
	}
	if o.Ratio == 0 {
		o.Ratio = 100
	}
	return o
}

// A format is one kind of text that items stand in.
type format struct {
	query bool // options are query parameters, complete before the body
	form  bool // the text is a form, with the items' text in it
	read  func(context.Context, *submission, *bufio.Reader) error
}

// formats are all but forms, by media type.
var formats = map[string]format{
	"application/json":     {read: readJSON},
	"application/x-ndjson": {query: true, read: readNDJSON},
	"application/ndjson":   {query: true, read: readNDJSON},
	"application/jsonl":    {query: true, read: readNDJSON},
	"text/csv":             {query: true, read: readCSV},
}

// formatOf returns how to read a content type, or Unsupported.
func formatOf(contentType string) (format, error) {
	media, params, err := mediaOf(contentType)
	if err != nil {
		return format{}, err
	}
	f, ok := formats[media]
	boundary := params["boundary"]
	switch {
	case ok:
		return f, checkHeader(media, params)
	case media != "multipart/form-data":
		return format{}, batch.Refuse(batch.Unsupported, "unsupported_content_type",
			"the content type is application/json, application/x-ndjson, text/csv or multipart/form-data, not %q", clip(contentType))
	case boundary == "" || len(boundary) > mostBoundary:
		return format{}, batch.Refuse(batch.Malformed, "invalid_form", "multipart/form-data names its boundary, 1 to %d bytes", mostBoundary)
	default:
		return format{form: true, read: readForm(boundary)}, nil
	}
}

// mediaOf returns the media type that a content type names, "" if it is none,
// with its parameters.
func mediaOf(contentType string) (string, map[string]string, error) {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", nil, nil
	}
	if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") {
		return "", nil, batch.Refuse(batch.Unsupported, "unsupported_charset", "the body must be UTF-8, not %q", clip(c))
	}
	return media, params, nil
}

// checkHeader refuses CSV that says it has no header line.
func checkHeader(media string, params map[string]string) error {
	if media == "text/csv" && strings.EqualFold(params["header"], "absent") {
		return batch.Refuse(batch.Unsupported, "unsupported_content_type", "text/csv begins with a header line that names the members")
	}
	return nil
}

// readers are kept between submissions: most are far smaller than the buffer.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}

// Read reads a whole submission, appends its blocks to stage and returns what
// it says. It neither creates nor discards: after an error what was appended is
// for the caller to discard.
//
// Every refusal is, or wraps, a [*batch.Error]: Malformed (not what the
// content type says), Invalid (well formed, but not acceptable), TooLarge (the
// limit is named), Unsupported (content type or coding), Full (no room for
// temporary files), Unavailable with reason overloaded (the budget is used up).
// A body that could not be read to its end is Malformed with
// reason incomplete_body and wraps the cause as well.
func Read(ctx context.Context, r Request, stage batch.Sink, o Options) (Content, error) {
	o = o.WithDefaults()
	f, err := formatOf(r.ContentType)
	if err != nil {
		return Content{}, err
	}
	b, err := openBody(ctx, r, o, bound{"body", o.Body})
	if err != nil {
		return Content{}, err
	}
	s, err := newSubmission(ctx, b, stage, o)
	if err != nil {
		return Content{}, err
	}
	defer s.close()
	if r.Digest {
		s.sum = sha256.New()
	}
	if f.query {
		s.setTexts(r.Query)
		s.settle()
	} else {
		s.refuseQuery(r.Query, "the body carries the options")
	}
	if s.problems.any() {
		return Content{}, s.problems.err()
	}
	if err := s.readText(ctx, b, f); err != nil {
		return Content{}, err
	}
	if !f.query {
		s.settle()
	}
	if err := s.finish(ctx); err != nil {
		return Content{}, err
	}
	return s.content(), nil
}

// ReadOptions reads what opens a batch whose items come in parts: its options,
// as query parameters without a body or as an application/json object, and no
// items. Its refusals are like those of Read.
func ReadOptions(ctx context.Context, r Request, o Options) (Content, error) {
	o = o.WithDefaults()
	b, err := openBody(ctx, r, o, bound{"body", o.Body})
	if err != nil {
		return Content{}, err
	}
	if r.Length == 0 {
		o.Budget = nil // there is nothing to receive
	}
	s, err := newSubmission(ctx, b, nil, o)
	if err != nil {
		return Content{}, err
	}
	defer s.close()
	if r.Digest {
		s.sum = sha256.New()
	}
	if r.Length == 0 {
		s.setTexts(r.Query)
	} else if err := s.readOptions(ctx, r, b); err != nil {
		return Content{}, err
	}
	s.settle()
	if s.problems.any() {
		return Content{}, s.problems.err()
	}
	return s.content(), nil
}

// partOptions says where the options of a part are.
const partOptions = "the options are those of the batch, and a part has items only"

// ReadPart reads one part of an open batch as Read reads a submission, by the
// id_field and the processor of the batch's options. The indexes of the blocks
// and the places of problems are those within the part.
func ReadPart(ctx context.Context, r Request, stage batch.Sink, o Options, of batch.Options) (Part, error) {
	o = o.WithDefaults()
	f, err := formatOf(r.ContentType)
	if err != nil {
		return Part{}, err
	}
	b, err := openBody(ctx, r, o, bound{"part", o.PartBytes})
	if err != nil {
		return Part{}, err
	}
	s, err := newSubmission(ctx, b, stage, o)
	if err != nil {
		return Part{}, err
	}
	defer s.close()
	s.word, s.options = "part", of
	s.elsewhere = partOptions
	s.text, s.sum = sha256.New(), sha256.New()
	s.useOptions()
	s.refuseQuery(r.Query, partOptions)
	if s.problems.any() {
		return Part{}, s.problems.err()
	}
	if err := s.readText(ctx, b, f); err != nil {
		return Part{}, err
	}
	if err := s.finish(ctx); err != nil {
		return Part{}, err
	}
	return s.part(), nil
}
