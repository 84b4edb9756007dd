package intake

import (
	"bufio"
	"context"
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
}

// Options bound what is read. The zero value means the contract's defaults.
type Options struct {
	Items     int    // most items of a batch; default 10,000,000
	ItemBytes int    // most bytes of one item; default 1 MiB; a few times this is held in memory
	Body      int64  // most bytes of a body, decoded; default 16 GiB
	Ratio     int    // most decoded bytes for each byte sent, beyond 10 MiB; default 100
	Dir       string // where temporary files go, unlinked once opened; default os.TempDir()

	// Check is the server's judgement of options that are well formed: is the
	// processor known, may the callback go there? It is asked at most once, as
	// soon as the options are complete: where they travel in the query before
	// the body is touched, else after the body. Nil: everything is fine.
	Check func(batch.Options) []batch.Problem

	// Defaults are what the client gets where it asks for nothing.
	Defaults batch.Options
}

// WithDefaults returns o with the zero limits filled in.
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
	if o.Ratio == 0 {
		o.Ratio = 100
	}
	return o
}

// A format is one kind of body.
type format struct {
	query bool // options are query parameters, complete before the body
	read  func(context.Context, *submission, *bufio.Reader) error
}

// formatOf returns how to read a content type, or Unsupported.
func formatOf(contentType string) (format, error) {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		media = ""
	}
	if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") {
		return format{}, batch.Refuse(batch.Unsupported, "unsupported_charset", "the body must be UTF-8, not %q", clip(c))
	}
	switch media {
	case "application/json":
		return format{read: readJSON}, nil
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return format{query: true, read: readNDJSON}, nil
	default:
		return format{}, batch.Refuse(batch.Unsupported, "unsupported_content_type",
			"the content type is application/json or application/x-ndjson, not %q", clip(contentType))
	}
}

// readers are kept between submissions: most are far smaller than the buffer.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBuffer) }}

// Read reads a whole submission, appends its blocks to stage and returns its
// options with the defaults filled in. It neither creates nor discards: after
// an error what was appended is for the caller to discard.
//
// Every refusal is, or wraps, a [*batch.Error]: Malformed (not what the
// content type says), Invalid (well formed, but not acceptable), TooLarge (the
// limit is named), Unsupported (content type or coding), Full (no room for
// temporary files). A body that could not be read to its end is Malformed with
// reason incomplete_body and wraps the cause as well.
func Read(ctx context.Context, r Request, stage batch.Stage, o Options) (batch.Options, error) {
	o = o.WithDefaults()
	f, err := formatOf(r.ContentType)
	if err != nil {
		return batch.Options{}, err
	}
	b, err := openBody(ctx, r, o)
	if err != nil {
		return batch.Options{}, err
	}
	s := newSubmission(stage, o)
	defer s.close()
	if f.query {
		s.setQuery(r.Query)
		s.settle()
	} else {
		s.refuseQuery(r.Query)
	}
	if s.problems.any() {
		return batch.Options{}, s.problems.err()
	}
	in := readers.Get().(*bufio.Reader)
	defer readers.Put(in)
	in.Reset(b)
	defer in.Reset(nil)
	if err := skipBOM(in); err != nil {
		return batch.Options{}, err
	}
	if err := f.read(ctx, s, in); err != nil {
		return batch.Options{}, err
	}
	if err := s.finish(ctx); err != nil {
		return batch.Options{}, err
	}
	return s.options, nil
}
