package callback

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"github.com/callbatch/callbatch/callback/guard"
)

// describe sorts the error of an attempt that brought no answer. It goes by
// types and by how far the attempt got; the error's own text is never used,
// for it repeats the URL with its query.
func describe(err error, at stage) (category, detail string) {
	var (
		refusal *guard.Refusal
		dnsErr  *net.DNSError
		late    = isTimeout(err)
	)
	switch {
	case errors.As(err, &refusal):
		return CategoryBlocked, refusal.Error()
	case at == resolving, errors.As(err, &dnsErr):
		return CategoryDNS, dnsDetail(dnsErr, late)
	case at == handshake, isAlert(err):
		return CategoryTLS, tlsDetail(err, late)
	case at == unsent, at == connecting:
		return CategoryConnect, connectDetail(err, late)
	case late:
		return CategoryTimeout, "no answer in time"
	case at == overflowed:
		return CategoryTooLarge, "the headers of the answer are longer than 32 KiB"
	case isClosed(err):
		return CategoryConnect, "the connection was closed before an answer"
	default:
		return CategoryConnect, "the answer is not HTTP"
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// isAlert reports whether the receiver ended TLS. It may do so after the
// handshake, if it does not like our part of it.
func isAlert(err error) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error" // as crypto/tls calls it
}

func isClosed(err error) bool {
	for _, closed := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, closed) {
			return true
		}
	}
	return false
}

func dnsDetail(err *net.DNSError, late bool) string {
	switch {
	case err != nil && err.IsNotFound:
		return "no such host"
	case late:
		return "the name was not resolved in time"
	}
	return "the name could not be resolved"
}

func connectDetail(err error, late bool) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to the host"
	case late:
		return "no connection in time"
	}
	return "could not connect"
}

// spokeTLS reports whether the receiver that a handshake failed with is one
// that speaks TLS.
func spokeTLS(err error) bool {
	var (
		hostname  x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
	)
	return errors.As(err, &hostname) || errors.As(err, &authority) || errors.As(err, &invalid) || isAlert(err)
}

func tlsDetail(err error, late bool) string {
	var (
		hostname  x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &hostname):
		return "the certificate is for another host"
	case errors.As(err, &authority):
		return "the certificate is signed by an unknown authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired or is not yet valid"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "the receiver does not speak TLS"
	case isAlert(err):
		return "the receiver broke the TLS handshake off"
	case late:
		return "no TLS handshake in time"
	}
	return "the TLS handshake failed"
}
