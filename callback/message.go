package callback

import (
	"net/http"
	"time"

	"github.com/callbatch/callbatch/callback/signature"
)

// Message is one attempt to be made. Body and ID are the same on every attempt;
// all else may have changed since the last.
type Message struct {
	ID      string
	Attempt int // from 1
	URL     string
	Body    []byte             // UTF-8 JSON; not changed, and not read after Send returns
	Headers map[string]string  // for the receiver's gateway; those CheckHeaders refuses are left out
	Secrets []signature.Secret // the live ones, newest first
}

// Result is what came of an attempt. Everything in it is bounded and fit to be
// stored and shown to the message's owner.
type Result struct {
	Verdict Verdict
	Status  int // of the answer; 0 if there was none

	// RetryAfter is what a 429 or 503 asked for, at most 30 days; 0 if it asked
	// for nothing.
	RetryAfter time.Duration

	Started    time.Time
	Took       Took
	RemoteAddr string // ip:port; "" if no connection was tried
	Connected  bool   // whether there was one, and TLS on it
	SpokeTLS   bool   // whether the TLS handshake that failed was one at all: the receiver said why, or what it is

	// RequestHeaders are those sent, the signature and the values of
	// Message.Headers masked.
	RequestHeaders http.Header

	ResponseHeaders http.Header // at most 8 KiB; cookies masked
	ResponseBody    []byte      // at most 16 KiB of printable UTF-8
	Truncated       bool        // whether ResponseBody lacks a part of the answer

	Category string // why it was not delivered, one of the categories; "" if it was
	Detail   string // the same for people, with the remedy where there is one
}

// The categories of a failed attempt.
const (
	CategoryDNS         = "dns"
	CategoryConnect     = "connect" // no connection, or one that broke or spoke no HTTP
	CategoryTLS         = "tls"
	CategoryTimeout     = "timeout" // connected, but no answer in time
	CategoryBlocked     = "blocked" // by the guard
	CategoryRedirect    = "redirect"
	CategoryStatus      = "status"
	CategoryTooLarge    = "too_large"   // the message for the receiver (413), or its headers for us
	CategoryInterrupted = "interrupted" // by the caller's context
)

// Took is how long the steps of an attempt took. DNS, Connect and TLS are 0 on
// a connection kept open; FirstByte and Total count from the start.
type Took struct {
	DNS, Connect, TLS, FirstByte, Total time.Duration
}
