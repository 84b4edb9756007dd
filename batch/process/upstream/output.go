package upstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// output makes the item's output of a 2xx answer.
func (p *Processor) output(ctx context.Context, resp *http.Response) ([]byte, error) {
	if encoded(resp) {
		return nil, badOutput("the upstream answered with a content-encoding that was not asked for")
	}
	if resp.ContentLength > int64(p.max) {
		return nil, p.tooLarge()
	}
	body, err := p.read(resp)
	switch {
	case err != nil:
		return nil, fault(ctx, err, true)
	case len(body) > p.max:
		return nil, p.tooLarge()
	}
	out, ok := encode(resp.Header.Get("Content-Type"), body)
	switch {
	case !ok:
		f := badOutput("the upstream's answer is not one JSON value, as its content-type says")
		f.Body = p.mask.printable(body)
		return nil, f
	case len(out) > p.max:
		return nil, p.tooLarge()
	}
	return out, nil
}

// encoded reports whether an answer is in a coding. None was asked for, and
// none is undone: a small answer cannot become a large one.
func encoded(resp *http.Response) bool {
	coding := resp.Header.Get("Content-Encoding")
	return coding != "" && !strings.EqualFold(coding, "identity")
}

// read returns the body, or one byte more than there may be.
func (p *Processor) read(resp *http.Response) ([]byte, error) {
	if resp.ContentLength < 0 {
		return io.ReadAll(io.LimitReader(resp.Body, int64(p.max)+1))
	}
	body := make([]byte, resp.ContentLength)
	_, err := io.ReadFull(resp.Body, body)
	return body, err
}

// encode returns body as one JSON value: itself if it is JSON, a string if it
// is text in UTF-8, else its bytes and their type. Nothing at all is null.
// Without a content-type it is the first of these that fits. ok is false if
// the type says JSON and the body is not.
func encode(contentType string, body []byte) (out []byte, ok bool) {
	if len(body) == 0 {
		return []byte("null"), true
	}
	typ, charset := mediaType(contentType)
	isJSON := isJSON(contentType)
	if isJSON || typ == "" {
		if out, ok := oneLine(body); ok || isJSON {
			return out, ok
		}
	}
	if typ == "" || isText(typ) && isUTF8(charset) {
		if s, err := jsontext.AppendQuote(nil, body); err == nil {
			return s, true
		}
	}
	return encodeBytes(contentType, body), true
}

// oneLine returns the JSON value in body byte for byte, but for white space
// around it. Results are lines, so a value spread over several is drawn
// together, strings and numbers untouched.
func oneLine(body []byte) ([]byte, bool) {
	v := jsontext.Value(bytes.Trim(body, " \t\r\n"))
	if !v.IsValid() {
		return nil, false
	}
	if bytes.IndexByte(v, '\n') >= 0 || bytes.IndexByte(v, '\r') >= 0 { // in valid JSON always white space
		return v, v.Compact() == nil
	}
	return v, true
}

func mediaType(contentType string) (typ, charset string) {
	if contentType == "application/json" {
		return contentType, ""
	}
	typ, params, err := mime.ParseMediaType(contentType)
	switch {
	case contentType == "":
		return "", ""
	case err != nil && typ == "":
		return "application/octet-stream", ""
	}
	return typ, strings.ToLower(params["charset"])
}

func isUTF8(charset string) bool {
	switch charset {
	case "", "utf-8", "utf8", "us-ascii":
		return true
	}
	return false
}

func isText(typ string) bool {
	switch typ {
	case "application/xml", "application/yaml", "application/javascript", "application/x-ndjson", "application/jsonl":
		return true
	}
	return strings.HasPrefix(typ, "text/") || strings.HasSuffix(typ, "+xml") || strings.HasSuffix(typ, "+yaml")
}

func encodeBytes(contentType string, body []byte) []byte {
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(body))+len(contentType)+64)
	out = append(out, `{"base64":"`...)
	out = base64.StdEncoding.AppendEncode(out, body)
	out = append(out, `","content_type":`...)
	out, err := jsontext.AppendQuote(out, strings.ToValidUTF8(contentType, "\uFFFD"))
	if err != nil {
		panic("upstream: a string is plain data: " + err.Error())
	}
	return append(out, '}')
}
