package batch

import (
	"errors"
	"fmt"
)

// A Code says what kind of no an [Error] is. The API turns it into a status
// in one place; the store and the domain know no HTTP.
type Code string

// The codes the domain and the stores use. Intake and the API add finer ones
// (as [Error.Reason]) without a new kind.
const (
	Malformed   Code = "malformed"   // not what it says it is
	Invalid     Code = "invalid"     // well formed, but not acceptable
	TooLarge    Code = "too_large"   // over a limit that the message names
	Unsupported Code = "unsupported" // a content type or coding nobody here reads
	NotFound    Code = "not_found"   // unknown, or another tenant's
	Gone        Code = "gone"        // deleted or past its retention
	Conflict    Code = "conflict"    // the state does not allow it
	Full        Code = "full"        // the disk or the quota of the store is used up
	Unavailable Code = "unavailable" // draining, or the store is away
	Lost        Code = "lost"        // the lease is another's by now; nothing changed
	Damaged     Code = "damaged"     // a record does not match its checksum
)

// An Error is a refusal for a person to read. Everything else is internal,
// and its text never reaches a client.
type Error struct {
	Code    Code
	Reason  string    // finer than Code, as the client sees it: "wrong_state"; Code's own word if empty
	Message string    // what is wrong and what to do, without secrets
	Places  []Problem // where in the input, the first [MaxProblems]
	More    int       // how many problems there were beyond Places
}

// A Problem is one thing wrong with one place of an input. Index and Line
// are -1 where the place has none; Line counts from 1.
type Problem struct {
	Part    *int // Index and Line are those within it; nil: the input is not a part of another
	Index   int
	Line    int
	Pointer string // JSON pointer inside the item or the options
	Code    string
	Detail  string
}

// MaxProblems is how many problems an answer lists; the rest are counted.
const MaxProblems = 100

func (e *Error) Error() string { return e.Message }

// Word returns the word a client may switch on.
func (e *Error) Word() string {
	if e.Reason != "" {
		return e.Reason
	}
	return string(e.Code)
}

// Errorf makes an [Error] of a kind.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// Refuse makes an [Error] of a kind with the finer word clients switch on.
func Refuse(c Code, reason, format string, args ...any) *Error {
	return &Error{Code: c, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the kind of err, or "" if it is not an [Error].
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
