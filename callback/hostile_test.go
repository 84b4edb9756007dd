package callback_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/callbatch/callbatch/callback"
	"github.com/callbatch/callbatch/callback/guard"
)

// What receivers do wrong, and the category each failure is given.
func TestHostileReceivers(t *testing.T) {
	tlsReceiver := receiveTLS(t, nil)
	for name, tc := range map[string]struct {
		talk     func(net.Conn)
		url      string
		category string
		detail   string
		verdict  callback.Verdict
		status   int
	}{
		"nobody listens":              {url: "http://" + nobody(t), category: callback.CategoryConnect, detail: "connection refused"},
		"hangs up without a word":     {talk: func(net.Conn) {}, category: callback.CategoryConnect, detail: "closed before an answer"},
		"resets":                      {talk: func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, category: callback.CategoryConnect, detail: "closed before an answer"},
		"hangs up inside its headers": {talk: say("HTTP/1.1 200 OK\r\nX-A: y\r\n"), category: callback.CategoryConnect, detail: "closed before an answer"},
		"speaks garbage":              {talk: say("220 mail.example ESMTP\r\n\r\n"), category: callback.CategoryConnect, detail: "not HTTP"},
		"speaks binary garbage":       {talk: say(strings.Repeat("\x00\xff", 2000) + "\n"), category: callback.CategoryConnect, detail: "not HTTP"},
		"sends a malformed header":    {talk: say("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), category: callback.CategoryConnect, detail: "not HTTP"},
		"sends 40 KiB of one header":  {talk: say("HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("x", 40<<10) + "\r\n\r\n"), category: callback.CategoryTooLarge, detail: "32 KiB"},
		"sends 10,000 headers":        {talk: say("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: y\r\n", 10_000) + "\r\n"), category: callback.CategoryTooLarge},
		"sends endless garbage":       {talk: flood(strings.Repeat("x", 1<<10)), category: callback.CategoryTooLarge},
		"floods with 1xx":             {talk: flood("HTTP/1.1 103 Early Hints\r\nX-A: y\r\n\r\n"), category: callback.CategoryTooLarge},
		"switches protocols": {talk: func(c net.Conn) {
			say("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")(c)
			untilClosed(c)
		}, category: callback.CategoryStatus, status: 101},
		"answers with a made-up status": {talk: say("HTTP/1.1 999 \x1b[31mred\r\nContent-Length: 0\r\n\r\n"), category: callback.CategoryStatus, detail: "999", status: 999},
		"answers 204 with a body":       {talk: say("HTTP/1.1 204 No Content\r\n\r\nsurprise"), verdict: callback.Delivered, status: 204},
		"cuts its body short":           {talk: say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), verdict: callback.Delivered, status: 200},
		"breaks its chunks":             {talk: say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), verdict: callback.Delivered, status: 200},
		"answers before reading":        {talk: say("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"), category: callback.CategoryTooLarge, verdict: callback.Gone, status: 413},
		"its certificate is unknown":    {url: tlsReceiver.URL, category: callback.CategoryTLS, detail: "unknown authority"},
		"speaks no TLS":                 {talk: say("HTTP/1.1 400 Bad Request\r\n\r\n"), url: "https", category: callback.CategoryTLS},
		"hangs up in the handshake":     {talk: func(net.Conn) {}, url: "https", category: callback.CategoryTLS},
	} {
		t.Run(name, func(t *testing.T) {
			url := tc.url
			if tc.talk != nil {
				url = rawReceiver(t, tc.talk)
			}
			if tc.url == "https" {
				url = strings.Replace(url, "http:", "https:", 1)
			}
			result := sender(t, callback.Options{}).Send(t.Context(), message(url))
			if result.Verdict != tc.verdict || result.Category != tc.category || result.Status != tc.status || !strings.Contains(result.Detail, tc.detail) {
				t.Errorf("%s, %q, %d, %q; want %s, %q, %d, %q", result.Verdict, result.Category, result.Status, result.Detail, tc.verdict, tc.category, tc.status, tc.detail)
			}
			if result.RemoteAddr == "" || result.Took.Total <= 0 {
				t.Errorf("remote address %q, took %+v", result.RemoteAddr, result.Took)
			}
		})
	}
}

func TestACertificateForAnotherHostIsNamed(t *testing.T) {
	r := receiveTLS(t, nil)
	_, port, _ := net.SplitHostPort(r.Listener.Addr().String())
	s := sender(t, callback.Options{RootCAs: roots(r)})
	for host, want := range map[string]string{"127.0.0.1": "", "localhost": "the certificate is for another host"} {
		if result := s.Send(t.Context(), message("https://"+host+":"+port)); result.Detail != want || (want != "") != (result.Category == callback.CategoryTLS) {
			t.Errorf("%s: %q, %q", host, result.Category, result.Detail)
		}
	}
}

func TestANameThatDoesNotResolveIsADNSFailure(t *testing.T) {
	for _, tc := range []struct {
		err    error
		detail string
	}{
		{&net.DNSError{Err: "s3cret", Name: "shop.example", IsNotFound: true}, "no such host"},
		{&net.DNSError{Err: "s3cret", Name: "shop.example", IsTimeout: true}, "the name was not resolved in time"},
		{fmt.Errorf("resolve: %w", &net.DNSError{Err: "s3cret", Name: "shop.example"}), "the name could not be resolved"},
	} {
		s := sender(t, callback.Options{
			Policy:      new(guard.Policy),
			DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, tc.err },
		})
		result := s.Send(t.Context(), message("https://shop.example/"))
		if result.Verdict != callback.Retry || result.Category != callback.CategoryDNS || result.Detail != tc.detail {
			t.Errorf("%v: %+v", tc.err, result)
		}
	}
}

func TestADialThatHangsIsAConnectFailure(t *testing.T) {
	s := sender(t, callback.Options{
		Timeout:     50 * time.Millisecond,
		Policy:      new(guard.Policy),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
	})
	result := s.Send(t.Context(), message("https://shop.example/"))
	if result.Category != callback.CategoryConnect || result.Detail != "no connection in time" {
		t.Errorf("%+v", result)
	}
}

func TestWhatIsKeptOfAnAnswerIsBoundedAndPrintable(t *testing.T) {
	r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		for i := range 100 {
			w.Header().Set(fmt.Sprintf("X-%03d", i), strings.Repeat("\xff\u202e", 50))
		}
		io.WriteString(w, strings.Repeat("\x00\xff\u202eż\x1b]0;title\x07", 2000))
	})
	result := sender(t, callback.Options{}).Send(t.Context(), message(r.URL))
	size := 0
	for name, values := range result.ResponseHeaders {
		for _, value := range values {
			size += len(name) + len(value)
			if !shown(name) || !shown(value) {
				t.Errorf("%q: %q", name, value)
			}
		}
	}
	if size == 0 || size > 8<<10 {
		t.Errorf("%d bytes of headers are kept", size)
	}
	if body := string(result.ResponseBody); !shown(body) || len(body) > 16<<10 || len(body) < 16<<10-3 || !result.Truncated {
		t.Errorf("%d bytes of body are kept (truncated %t): %.60q", len(body), result.Truncated, body)
	}
}

func TestACredentialEchoedAcrossTheCutIsNotKeptInPart(t *testing.T) {
	const secret = "a-very-long-credential-of-the-receiver"
	r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, strings.Repeat("x", 16<<10-20)+secret)
	})
	m := message(r.URL)
	m.Headers = map[string]string{"X-Key": secret}
	result := sender(t, callback.Options{}).Send(t.Context(), m)
	if body := string(result.ResponseBody); body != strings.Repeat("x", 16<<10-20) || !result.Truncated {
		t.Errorf("kept %q at the end", body[len(body)-30:])
	}
}

// shown reports whether s is UTF-8 that a terminal shows as it is.
func shown(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) && r != '\n' && r != '\t' }) < 0
}

// say writes a text and hangs up.
func say(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

// nobody returns an address nobody listens on.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func roots(r *receiver) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.Certificate())
	return pool
}
