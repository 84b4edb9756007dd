package batch

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// marshal is encoding/json without its escaping of <, > and &.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'}), err
}

// AppendResult appends the result as one JSON object, without a newline.
// The client's bytes are copied, never parsed.
func AppendResult(dst []byte, r Result) []byte {
	if r.Status == ItemSucceeded {
		return appendResult(dst, r, "output")
	}
	return appendResult(dst, r, "error")
}

// appendResult calls the payload by a name.
func appendResult(dst []byte, r Result, payload string) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendInt(dst, int64(r.Index), 10)
	dst = append(dst, `,"id":`...)
	dst = appendID(dst, r.ID, r.Index)
	dst = append(dst, `,"status":"`...)
	dst = append(dst, r.Status.String()...)
	dst = append(append(append(dst, `","`...), payload...), `":`...)
	dst = append(dst, r.Payload...)
	dst = append(dst, `,"attempts":`...)
	dst = strconv.AppendInt(dst, int64(r.Attempts), 10)
	if r.Round > 1 {
		dst = append(dst, `,"round":`...)
		dst = strconv.AppendInt(dst, int64(r.Round), 10)
	}
	dst = append(dst, `,"finished_at":"`...)
	dst = r.Finished.UTC().AppendFormat(dst, timeLayout)
	return append(dst, `"}`...)
}

func appendID(dst []byte, id string, index int) []byte {
	if id == "" {
		dst = append(dst, '"')
		dst = strconv.AppendInt(dst, int64(index), 10)
		return append(dst, '"')
	}
	return appendString(dst, id)
}

func appendString(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			b, err := marshal(s)
			if err != nil {
				panic("batch: a string is plain data: " + err.Error())
			}
			return append(dst, b...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// AppendBody appends the body of m; results are those its refs name, in the
// order of the refs and of their index.
func AppendBody(dst []byte, m Message, results []Result) []byte {
	dst = append(dst, m.Head...)
	for i, r := range results {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendResult(dst, r)
	}
	return append(dst, m.Tail...)
}

// FormatTime returns t as the API and the messages show times: RFC 3339, UTC,
// with milliseconds.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }
