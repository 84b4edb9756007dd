package jq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/itchyny/gojq"

	"github.com/callbatch/callbatch/batch"
)

// maxMessage is how many bytes of a program's error a client reads.
const maxMessage = 1 << 10

func fail(code, message string) *batch.Failure {
	return &batch.Failure{Code: code, Message: message}
}

func (p *Processor) tooLarge() *batch.Failure {
	return fail(batch.CodeOutputTooLarge, fmt.Sprintf("the output is larger than %d bytes", p.max))
}

// failure returns how an item fails whose program ended with err.
func failure(ctx context.Context, err error) error {
	switch ctx.Err() {
	case nil:
		return fail(batch.CodeProcessorError, message(err))
	case context.DeadlineExceeded:
		return fail(batch.CodeTimeout, "the program ran longer than it may")
	default:
		return ctx.Err()
	}
}

// message returns what the program said: the text it gave to error, any
// other value as JSON, or gojq's own words.
func message(err error) string {
	var s string
	var raised gojq.ValueError
	if errors.As(err, &raised) {
		s = valueText(raised.Value()) // err.Error() would write it out whole, however large
	} else {
		s = err.Error()
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + "…"
}

func valueText(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b := bound{room: maxMessage}
	if b.take(v); b.over() {
		return gojq.Preview(v)
	}
	out, err := gojq.Marshal(v)
	if err != nil {
		return gojq.Preview(v)
	}
	return string(out)
}
