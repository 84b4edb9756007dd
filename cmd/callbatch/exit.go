package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/callbatch/callbatch/batch/client"
)

// The exit codes, for scripts.
const (
	exitFailure     = 1
	exitUsage       = 2 // command line, environment or configuration
	exitFailedItems = 3 // the batch ended, and not all of its items succeeded
	exitNotFound    = 4
	exitKey         = 5
	exitConflict    = 6
	exitUnreachable = 69
	exitTimeout     = 124
	exitInterrupted = 130
)

// A usage error is a mistake in what the command was given.
type usage struct{ error }

func (u usage) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usage{fmt.Errorf(format, args...)} }

// A quiet error has been explained already: only its exit code is wanted.
type quiet struct{ error }

func (q quiet) Unwrap() error { return q.error }

func isQuiet(err error) bool {
	var q quiet
	return errors.As(err, &q)
}

// errFailedItems says that a batch ended without all of its items succeeding.
var errFailedItems = errors.New("not every item succeeded")

// errWaited says that the time --timeout gave is over.
var errWaited = errors.New("waited too long")

// exitCode is where errors become exit codes.
func exitCode(err error) int {
	var refused *client.Error
	var away *client.Unreachable
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(usage)):
		return exitUsage
	case errors.Is(err, errFailedItems):
		return exitFailedItems
	case errors.Is(err, errWaited):
		return exitTimeout
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &refused):
		return exitCodeOf(refused)
	case errors.As(err, &away), errors.Is(err, context.DeadlineExceeded):
		return exitUnreachable
	default:
		return exitFailure
	}
}

// exitCodeOf is the exit code for a server's refusal. What somebody else does
// not find says nothing of our batch.
func exitCodeOf(e *client.Error) int {
	if e.Code == "" && e.Status < 500 {
		return exitFailure
	}
	switch e.Status {
	case http.StatusNotFound, http.StatusGone:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitKey
	case http.StatusConflict:
		return exitConflict
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exitUnreachable
	default:
		return exitFailure
	}
}
