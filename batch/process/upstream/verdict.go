package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/callbatch/callbatch/batch"
)

// refusal returns how an item fails that was not answered with 2xx. 502, 503
// and 504 say that the service as a whole is away; 500 may be about the item.
func (p *Processor) refusal(resp *http.Response) *batch.Failure {
	s := resp.StatusCode
	f := &batch.Failure{
		Code:           batch.CodeUpstreamStatus,
		Message:        "the upstream answered with status " + strconv.Itoa(s),
		UpstreamStatus: s,
		Body:           p.excerpt(resp),
	}
	switch {
	case s/100 == 3:
		f.Message += "; redirects are not followed"
	case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests, s >= 500:
		f.Retry = true
		f.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), time.Now())
		f.Down = s == http.StatusBadGateway || s == http.StatusServiceUnavailable || s == http.StatusGatewayTimeout
	}
	return f
}

// retryAfter reads the header of that name (RFC 9110, 10.2.3): seconds or a
// date. What is neither, or in the past, is 0.
func retryAfter(value string, now time.Time) time.Duration {
	const most = math.MaxInt64 / int64(time.Second)
	seconds, err := strconv.ParseUint(value, 10, 64) // takes no sign
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(most))) * time.Second
	}
	date, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return max(0, date.Sub(now))
}

// fault returns how an item fails whose answer did not come, or broke off
// after its header. A service that did send a header is not down.
func fault(ctx context.Context, err error, answered bool) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // our own stop, no fault of anybody's
	}
	f := &batch.Failure{Code: batch.CodeUpstreamUnreachable, Retry: true, Down: !answered}
	switch {
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		f.Code, f.Message = batch.CodeTimeout, "the upstream did not answer in time"
	case answered:
		f.Message = "the upstream broke off its answer"
	default:
		f.Message = "the upstream could not be reached: " + cause(err)
	}
	return f
}

// cause puts a fault of the network into words. The error's own text would
// name hosts and addresses, which are the operator's.
func cause(err error) string {
	var name *net.DNSError
	var op *net.OpError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &name):
		return "its name does not resolve"
	case errors.As(err, &certificate):
		return certificateCause(certificate)
	case errors.As(err, &alert), errors.As(err, &record):
		return "the TLS handshake failed"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "it refuses connections"
	case errors.As(err, &op) && op.Op == "dial":
		return "no connection could be made"
	default:
		return "the connection broke before there was an answer"
	}
}

func certificateCause(err error) string {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority):
		return "its certificate is signed by an unknown authority"
	case errors.As(err, &host):
		return "its certificate is for another host"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate has expired or is not yet valid"
	default:
		return "its certificate is not valid"
	}
}

func badOutput(format string, args ...any) *batch.Failure {
	return &batch.Failure{Code: batch.CodeBadOutput, Message: fmt.Sprintf(format, args...)}
}

func (p *Processor) tooLarge() *batch.Failure {
	return &batch.Failure{
		Code:    batch.CodeOutputTooLarge,
		Message: fmt.Sprintf("the upstream's answer makes an output larger than %d bytes", p.max),
	}
}
