package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/batch"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value string
		want  time.Duration
	}{
		{"", 0},
		{"0", 0},
		{"7", 7 * time.Second},
		{"007", 7 * time.Second},
		{"1000000000", 1e9 * time.Second},
		{"9223372037", math.MaxInt64 / time.Second * time.Second}, // would overflow
		{"18446744073709551616", math.MaxInt64 / time.Second * time.Second},
		{strings.Repeat("9", 1000), math.MaxInt64 / time.Second * time.Second},
		{"-1", 0},
		{"+1", 0},
		{"1.5", 0},
		{"1_000", 0},
		{"0x10", 0},
		{"5s", 0},
		{"NaN", 0},
		{"Mon, 23 Nov 2026 12:02:00 GMT", 2 * time.Minute},
		{"Monday, 23-Nov-26 12:02:00 GMT", 2 * time.Minute},
		{"Mon Nov 23 12:02:00 2026", 2 * time.Minute},
		{"Mon, 23 Nov 2026 11:59:59 GMT", 0},
		{"Fri, 31 Dec 9999 23:59:59 GMT", math.MaxInt64},
		{"tomorrow", 0},
	} {
		if got := retryAfter(c.value, now); got != c.want {
			t.Errorf("retryAfter(%.40q) = %v, want %v", c.value, got, c.want)
		}
	}
}

func FuzzRetryAfterIsNeverNegative(f *testing.F) {
	for _, s := range []string{"1", "-1", "9223372037", "Mon, 23 Nov 2026 12:02:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d := retryAfter(s, time.Now()); d < 0 {
			t.Errorf("retryAfter(%q) = %v", s, d)
		}
	})
}

func TestAFaultIsPutIntoWords(t *testing.T) {
	certificate := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	dial := func(err error) error { return &net.OpError{Op: "dial", Err: err} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{dial(&net.DNSError{Name: "secret.internal", IsNotFound: true}), "its name does not resolve"},
		{dial(errors.New("no route to secret.internal")), "no connection could be made"},
		{certificate(x509.UnknownAuthorityError{}), "its certificate is signed by an unknown authority"},
		{certificate(x509.HostnameError{Host: "secret.internal", Certificate: &x509.Certificate{}}), "its certificate is for another host"},
		{certificate(x509.CertificateInvalidError{Reason: x509.Expired}), "its certificate has expired or is not yet valid"},
		{certificate(x509.CertificateInvalidError{Reason: x509.TooManyIntermediates}), "its certificate is not valid"},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(40)}, "the TLS handshake failed"},
		{tls.RecordHeaderError{Msg: "secret.internal"}, "the TLS handshake failed"},
		{errors.New("http2: secret.internal"), "the connection broke before there was an answer"},
	} {
		var f *batch.Failure
		err := fault(t.Context(), c.err, false)
		if !errors.As(err, &f) || f.Message != "the upstream could not be reached: "+c.want || !f.Retry || !f.Down {
			t.Errorf("%T: got %v, want %s", c.err, err, c.want)
		}
	}
	t.Run("a deadline the network noticed first is a timeout", func(t *testing.T) {
		var f *batch.Failure
		if err := fault(t.Context(), dial(context.DeadlineExceeded), false); !errors.As(err, &f) || f.Code != batch.CodeTimeout {
			t.Errorf("got %v", err)
		}
	})
}
