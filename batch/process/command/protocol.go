package command

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/callbatch/callbatch/batch"
)

// request returns the line that gives a worker its item:
// {"batch","index","id","attempt","key","item"}.
func request(c batch.Call) ([]byte, error) {
	item := jsontext.Value(c.Item)
	if bytes.ContainsAny(item, "\r\n") { // in JSON always white space
		item = bytes.Clone(item)
		if err := item.Compact(); err != nil {
			return nil, err
		}
	}
	head, err := json.Marshal(struct {
		Batch   string `json:"batch"`
		Index   int    `json:"index"`
		ID      string `json:"id"`
		Attempt int    `json:"attempt"`
		Key     string `json:"key"`
	}{c.Batch.String(), c.Index, c.ID, c.Attempt, c.Key()})
	if err != nil {
		return nil, err
	}
	line := make([]byte, 0, len(head)+len(item)+16)
	line = append(line, head[:len(head)-1]...)
	line = append(line, `,"item":`...)
	line = append(line, item...)
	return append(line, '}', '\n'), nil
}

// A protocolError is something a worker has written that is no answer. Its
// text goes on after "the worker's answer".
type protocolError struct{ text string }

func (e *protocolError) Error() string { return "its answer " + e.text }

// An answer is what a worker writes: {"output":…} or {"error":{…}}, with the
// key of the item, if it likes, so that it cannot be taken for another's.
type answer struct {
	Output jsontext.Value `json:"output"`
	Error  *refusal       `json:"error"`
	Key    *string        `json:"key"`
}

type refusal struct {
	Code       string `json:"code"`
	Message    string `json:"message"`
	Retry      bool   `json:"retry"`
	RetryAfter string `json:"retry_after"`
}

var codePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// parse reads the answer to the item of a key: an output, byte for byte, or
// the failure it is to be.
func parse(line []byte, key string) ([]byte, *batch.Failure, error) {
	var a answer
	if err := json.Unmarshal(line, &a, json.RejectUnknownMembers(true)); err != nil {
		if errors.Is(err, json.ErrUnknownName) {
			return nil, nil, &protocolError{"has a member besides output, error and key"}
		}
		return nil, nil, &protocolError{`is not a line like {"output":…} or {"error":{"code":…,"message":…}}`}
	}
	switch {
	case a.Key != nil && *a.Key != key:
		return nil, nil, &protocolError{"has the key of another item"}
	case (a.Output == nil) == (a.Error == nil):
		return nil, nil, &protocolError{"has to have one of output and error"}
	case a.Error != nil:
		f, err := a.Error.failure()
		return nil, f, err
	}
	if bytes.IndexByte(a.Output, '\r') >= 0 { // white space; a result is one line
		if err := a.Output.Compact(); err != nil {
			return nil, nil, &protocolError{"is not JSON"}
		}
	}
	return a.Output, nil, nil
}

// failure returns what the worker says of its item as a failure of ours. A
// code of its own begins with app., whatever it is.
func (r *refusal) failure() (*batch.Failure, error) {
	f := &batch.Failure{Message: r.Message, Retry: r.Retry}
	if r.Code != "" {
		if !codePattern.MatchString(r.Code) {
			return nil, &protocolError{"has an error code that is not 1 to 64 letters, digits, dots, underscores or hyphens"}
		}
		f.Code = "app." + strings.TrimPrefix(r.Code, "app.")
	}
	if r.RetryAfter != "" {
		wait, err := time.ParseDuration(r.RetryAfter)
		if err != nil || wait < 0 {
			return nil, &protocolError{`has a retry_after that is not a duration such as "5s"`}
		}
		f.RetryAfter = wait
	}
	return f, nil
}
