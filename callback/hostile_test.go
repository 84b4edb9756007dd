package callback_test

import (
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/callbatch/callbatch/callback"
	"github.com/callbatch/callbatch/callback/guard"
)

// hostile is what a receiver does wrong, and what becomes of an attempt at it.
type hostile struct {
	talk     func(net.Conn)
	url      string // for those that do not talk
	https    bool
	large    bool // whether it is sent 1 MiB
	verdict  callback.Verdict
	category string
	detail   string // a part of it
	status   int
	body     string // what is kept of the answer's
	host     callback.HostState
}

const (
	ok      = "HTTP/1.1 200 OK\r\n"
	failed  = "HTTP/1.1 503 Service Unavailable\r\n"
	chunked = "Transfer-Encoding: chunked\r\n\r\n"
	record  = "\x16\x03\x03\x40\x00" // of a TLS handshake, 16 KiB to follow
	warning = "\x15\x03\x03\x00\x02\x01\x5a"
	early   = "HTTP/1.1 103 Early Hints\r\nX-A: y\r\n\r\n"
)

// unconnected are the receivers no request gets to.
func unconnected(t *testing.T) map[string]hostile {
	old := prepare(nil)
	old.Config.ErrorLog = silent
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	t.Cleanup(old.Close)
	const connect, tls, nowhere = callback.CategoryConnect, callback.CategoryTLS, callback.HostUnreachable
	return map[string]hostile{
		"nobody listens":             {url: "http://" + nobody, category: connect, detail: "connection refused", host: nowhere},
		"its certificate is unknown": {url: receiveTLS(t, nil).URL, category: tls, detail: "unknown authority", host: nowhere},
		"speaks TLS 1.1 at most":     {url: old.URL, category: tls, detail: "broke the TLS handshake off", host: nowhere},
		"speaks no TLS":              {talk: say("HTTP/1.1 400 Bad Request\r\n\r\n"), https: true, category: tls, detail: "does not speak TLS", host: callback.HostDown},
		"hangs up in the handshake":  {talk: say(""), https: true, category: tls, detail: "handshake failed", host: callback.HostDown},
		"hangs in the handshake":     {talk: untilClosed, https: true, category: tls, detail: "in time", host: callback.HostDown},
		"drips its handshake":        {talk: drip(record, "\x0b"), https: true, category: tls, detail: "in time", host: callback.HostDown},
		"floods the handshake":       {talk: flood(record + strings.Repeat("\x0b", 16<<10)), https: true, category: tls, host: callback.HostDown},
		"warns without end":          {talk: flood(warning), https: true, category: tls, host: callback.HostDown},
	}
}

// unanswering are those that give no answer, or none that can be used.
func unanswering(released <-chan struct{}) map[string]hostile {
	const (
		connect, timeout, tooLarge = callback.CategoryConnect, callback.CategoryTimeout, callback.CategoryTooLarge
		closed, notHTTP, late      = "closed before an answer", "not HTTP", "no answer in time"
		down                       = callback.HostDown
	)
	return map[string]hostile{
		"hangs before it answers":      {talk: untilClosed, category: timeout, detail: late, host: down},
		"hangs inside its headers":     {talk: then(say(ok+"X-A: y\r\n"), untilClosed), category: timeout, detail: late, host: down},
		"says a byte a second":         {talk: drip("H"), category: timeout, detail: late, host: down},
		"puts off again and again":     {talk: drip(early), category: timeout, detail: late, host: down},
		"does not read a large body":   {talk: func(net.Conn) { <-released }, large: true, category: timeout, detail: late, host: down},
		"hangs up without a word":      {talk: say(""), category: connect, detail: closed, host: down},
		"hangs up on a large body":     {talk: say(""), large: true, category: connect, detail: closed, host: down},
		"hangs up inside its headers":  {talk: say(ok + "X-A: y\r\n"), category: connect, detail: closed, host: down},
		"hangs up after a 1xx":         {talk: say(early), category: connect, detail: closed, host: down},
		"resets":                       {talk: reset, category: connect, detail: closed, host: down},
		"resets on a large body":       {talk: reset, large: true, category: connect, detail: closed, host: down},
		"speaks garbage":               {talk: say("220 mail.example ESMTP\r\n\r\n"), category: connect, detail: notHTTP, host: down},
		"speaks binary garbage":        {talk: say(strings.Repeat("\x00\xff", 2000) + "\n"), category: connect, detail: notHTTP, host: down},
		"speaks HTTP 0.9":              {talk: say("<html>thanks</html>\n"), category: connect, detail: notHTTP, host: down},
		"has a status of two digits":   {talk: say("HTTP/1.1 20 OK\r\n\r\n"), category: connect, detail: notHTTP, host: down},
		"has a status with a sign":     {talk: say("HTTP/1.1 +20 OK\r\n\r\n"), category: connect, detail: notHTTP, host: down},
		"has the status 000":           {talk: say("HTTP/1.1 000 OK\r\n\r\n"), category: connect, detail: notHTTP, host: down},
		"sends a malformed header":     {talk: say(ok + "no colon\r\n\r\n"), category: connect, detail: notHTTP, host: down},
		"announces two lengths":        {talk: say(ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n12"), category: connect, detail: notHTTP, host: down},
		"announces a negative length":  {talk: say(ok + "Content-Length: -1\r\n\r\n"), category: connect, detail: notHTTP, host: down},
		"uses an unknown coding":       {talk: say(ok + "Transfer-Encoding: x\r\n\r\n"), category: connect, detail: notHTTP, host: down},
		"sends 40 KiB of one header":   {talk: say(ok + "X-A: " + strings.Repeat("x", 40<<10) + "\r\n\r\n"), category: tooLarge, detail: "32 KiB", host: down},
		"sends 10,000 headers":         {talk: say(ok + strings.Repeat("X-A: y\r\n", 10_000) + "\r\n"), category: tooLarge, detail: "32 KiB", host: down},
		"sends headers without end":    {talk: then(say(ok), flood("X-A: y\r\n")), category: tooLarge, detail: "32 KiB", host: down},
		"sends garbage without end":    {talk: flood(strings.Repeat("x", 1<<10)), category: tooLarge, detail: "32 KiB", host: down},
		"floods with 100 Continue":     {talk: flood("HTTP/1.1 100 Continue\r\n\r\n"), category: tooLarge, detail: "32 KiB", host: down},
		"floods with 103 Early Hints":  {talk: flood(early), category: tooLarge, detail: "32 KiB", host: down},
		"floods with a 1xx not listed": {talk: flood("HTTP/1.1 199 X\r\n\r\n"), category: tooLarge, detail: "32 KiB", host: down},
	}
}

// answering are those whose status is an answer, however bad the rest. home is
// where they redirect to.
func answering(home string) map[string]hostile {
	const (
		delivered, gone            = callback.Delivered, callback.Gone
		status, redirect, tooLarge = callback.CategoryStatus, callback.CategoryRedirect, callback.CategoryTooLarge
		up, down                   = callback.HostUp, callback.HostDown
	)
	return map[string]hostile{
		"hangs inside its body":            {talk: then(say(ok+"Content-Length: 99\r\n\r\nbegun"), untilClosed), verdict: delivered, status: 200, body: "begun", host: up},
		"drips its body":                   {talk: drip(ok+"Content-Length: 99999\r\n\r\n", "x"), verdict: delivered, status: 200, host: up},
		"hangs inside a failure":           {talk: then(say(failed+"Content-Length: 99\r\n\r\nbegun"), untilClosed), category: status, status: 503, body: "begun", host: down},
		"hangs inside a last chunk":        {talk: then(say(ok+chunked+"5\r\nbegun\r\n0\r\n"), untilClosed), verdict: delivered, status: 200, body: "begun", host: up},
		"hangs up inside its body":         {talk: say(ok + "Content-Length: 99\r\n\r\nbegun"), verdict: delivered, status: 200, body: "begun", host: up},
		"resets inside its body":           {talk: then(say(ok+"Content-Length: 99\r\n\r\n"), reset), verdict: delivered, status: 200, host: up},
		"sends more than announced":        {talk: say(ok + "Content-Length: 5\r\n\r\nbegun, and more"), verdict: delivered, status: 200, body: "begun", host: up},
		"answers 204 with a body":          {talk: say("HTTP/1.1 204 No Content\r\n\r\nsurprise"), verdict: delivered, status: 204, host: up},
		"answers twice":                    {talk: say(ok + "Content-Length: 0\r\n\r\n" + failed + "Content-Length: 0\r\n\r\n"), verdict: delivered, status: 200, host: up},
		"claims to speak HTTP 0.9":         {talk: say("HTTP/0.9 200 OK\r\n\r\nbegun"), verdict: delivered, status: 200, body: "begun", host: up},
		"sends a gibibyte":                 {talk: then(say(ok+"Content-Length: 1073741824\r\n\r\n"), flood(kilobyte)), verdict: delivered, status: 200, body: kept, host: up},
		"sends chunks without end":         {talk: then(say(ok+chunked), flood("400\r\n"+kilobyte+"\r\n")), verdict: delivered, status: 200, body: kept, host: up},
		"fails without end":                {talk: then(say(failed+"\r\n"), flood(kilobyte)), category: status, status: 503, body: kept, host: down},
		"sends a gzip bomb":                {talk: say(ok + "Content-Encoding: gzip\r\n\r\n" + bomb()), verdict: delivered, status: 200, host: up},
		"sends bad chunks":                 {talk: say(ok + chunked + "zz\r\n"), verdict: delivered, status: 200, host: up},
		"sends a chunk beyond all numbers": {talk: then(say(ok+chunked+"fffffffffffffffff\r\n"), flood(kilobyte)), verdict: delivered, status: 200, host: up},
		"extends a chunk without end":      {talk: then(say(ok+chunked+"5\r\nbegun\r\n5;x="), flood(kilobyte)), verdict: delivered, status: 200, body: "begun", host: up},
		"extends every chunk":              {talk: then(say(ok+chunked), flood("1;x="+kilobyte+"\r\nx\r\n")), verdict: delivered, status: 200, host: up},
		"sends trailers without end":       {talk: then(say(ok+chunked+"5\r\nbegun\r\n0\r\n"), flood("X-A: y\r\n")), verdict: delivered, status: 200, body: "begun", host: up},
		"answers before a large body":      {talk: say(ok + "Content-Length: 0\r\n\r\n"), large: true, verdict: delivered, status: 200, host: up},
		"refuses a large body unread":      {talk: say("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"), large: true, verdict: gone, category: tooLarge, status: 413, host: up},
		"redirects to this machine":        {talk: say("HTTP/1.1 307 X\r\nLocation: " + home + "\r\nContent-Length: 0\r\n\r\n"), category: redirect, status: 307, host: up},
		"switches protocols":               {talk: then(say("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), untilClosed), category: status, status: 101, host: up},
		"has a made-up status":             {talk: say("HTTP/1.1 999 \x1b[31mred\r\nContent-Length: 0\r\n\r\n"), category: status, detail: "999", status: 999, host: down},
	}
}

var (
	kilobyte = strings.Repeat("x", 1<<10)
	kept     = strings.Repeat("x", 16<<10)
)

// bomb is 10 MiB in 10 KiB.
func bomb() string {
	var packed strings.Builder
	zip := gzip.NewWriter(&packed)
	zip.Write(make([]byte, 10<<20))
	zip.Close()
	return packed.String()
}

// mostPushed is what any receiver gets rid of, the buffers of two kernels
// included, before we hang up. We read at most 32 KiB of headers and 16 KiB of
// body.
const mostPushed = 512 << 10

// Everything that receivers do wrong, at once and by one Sender. Each attempt
// ends, and as it should; and no other receiver notices.
func TestHostileReceivers(t *testing.T) {
	resting, released := receive(t, nil), make(chan struct{})
	all := unconnected(t)
	maps.Copy(all, unanswering(released))
	maps.Copy(all, answering(resting.URL))
	s := sender(t, callback.Options{Timeout: 3 * time.Second})

	deliver := func(r *receiver) {
		if result := s.Send(t.Context(), message(r.URL)); result.Verdict != callback.Delivered {
			t.Errorf("a healthy receiver beside them: %+v", result)
		}
	}
	deliver(resting)
	attacks := make(map[string]*attack, len(all))
	ended := make(chan struct{}, len(all))
	for name, h := range all {
		a := begin(t, h)
		attacks[name] = a
		go func() {
			a.result = s.Send(t.Context(), a.message)
			ended <- struct{}{}
		}()
	}
	busy := []*receiver{receive(t, nil), receive(t, nil), receive(t, nil)}
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for left := len(all); left > 0; {
		select {
		case <-ended:
			left--
		case <-pace.C:
			for _, r := range busy {
				deliver(r)
			}
		}
	}
	close(released)
	deliver(resting)

	for name, a := range attacks {
		t.Run(name, func(t *testing.T) { a.check(t, all[name]) })
	}
	if requests, connections := resting.counts(); requests != 2 || connections != 1 {
		t.Errorf("the resting receiver saw %d requests over %d connections, want 2 over the one it kept open", requests, connections)
	}
	for _, r := range busy {
		// net/http gives a connection up if the machine stalls it for 50 ms.
		if requests, connections := r.counts(); connections > 1+requests/50 {
			t.Errorf("a busy receiver saw %d requests over %d connections", requests, connections)
		}
	}
}

// attack is one attempt at a hostile receiver.
type attack struct {
	message callback.Message
	result  callback.Result
	pushed  atomic.Int64
	over    sync.WaitGroup // until the receiver has given up, too
}

func begin(t *testing.T, h hostile) *attack {
	a := &attack{message: message(h.url)}
	if h.talk != nil {
		a.over.Add(1)
		a.message.URL = rawReceiver(t, func(conn net.Conn) {
			defer a.over.Done()
			tcp := conn.(*net.TCPConn)
			tcp.SetWriteBuffer(4 << 10) // what waits there was never sent
			h.talk(wire{tcp, &a.pushed})
		})
	}
	if h.https {
		a.message.URL = strings.Replace(a.message.URL, "http:", "https:", 1)
	}
	if h.large {
		a.message.Body = []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
	}
	return a
}

func (a *attack) check(t *testing.T, want hostile) {
	got := a.result
	if got.Verdict != want.verdict || got.Category != want.category || got.Status != want.status || !strings.Contains(got.Detail, want.detail) || got.Host() != want.host {
		t.Errorf("%s, %q, %d, %q, host %s; want %s, %q, %d, %q, host %s", got.Verdict, got.Category, got.Status, got.Detail, got.Host(),
			want.verdict, want.category, want.status, want.detail, want.host)
	}
	if body := string(got.ResponseBody); want.body != "" && body != want.body || len(body) > 16<<10 {
		t.Errorf("%d bytes of body are kept: %.60q; want %.60q", len(body), body, want.body)
	}
	if got.RemoteAddr == "" || got.Took.Total <= 0 {
		t.Errorf("remote address %q, took %+v", got.RemoteAddr, got.Took)
	}
	a.over.Wait()
	if n := a.pushed.Load(); n > mostPushed {
		t.Errorf("it pushed %d bytes", n)
	}
}

// wire counts what a receiver gets rid of.
type wire struct {
	*net.TCPConn
	pushed *atomic.Int64
}

func (w wire) Write(p []byte) (int, error) {
	n, err := w.TCPConn.Write(p)
	w.pushed.Add(int64(n))
	return n, err
}

func TestACertificateOutOfDateIsNamed(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(-time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	r := prepare(nil)
	r.Config.ErrorLog = silent
	r.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	r.StartTLS()
	t.Cleanup(r.Close)
	result := sender(t, callback.Options{RootCAs: roots(r)}).Send(t.Context(), message(r.URL))
	if result.Category != callback.CategoryTLS || result.Detail != "the certificate has expired or is not yet valid" {
		t.Errorf("%q, %q", result.Category, result.Detail)
	}
}

func TestAReceiverThatWantsACertificateOfOursIsATLSFailure(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} { // in the handshake, and after it
		r := prepare(nil)
		r.Config.ErrorLog = silent
		r.TLS = &tls.Config{MaxVersion: version, ClientAuth: tls.RequireAnyClientCert}
		r.StartTLS()
		t.Cleanup(r.Close)
		result := sender(t, callback.Options{RootCAs: roots(r)}).Send(t.Context(), message(r.URL))
		if result.Category != callback.CategoryTLS || result.Detail != "the receiver broke the TLS handshake off" || result.Host() != callback.HostUnreachable {
			t.Errorf("%s: %q, %q", tls.VersionName(version), result.Category, result.Detail)
		}
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

func TestANameServerThatIsSilentIsADNSFailure(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	done := make(chan struct{})
	defer close(done)
	dialer := guard.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "udp", silent.LocalAddr().String())
		if err == nil {
			go func() { <-done; conn.Close() }() // Go's resolver waits for 5 s, wanted or not
		}
		return conn, err
	}}}
	s := sender(t, callback.Options{Timeout: 50 * time.Millisecond, Policy: new(guard.Policy), DialContext: dialer.DialContext})
	result := s.Send(t.Context(), message("https://shop.example/"))
	if result.Verdict != callback.Retry || result.Category != callback.CategoryDNS || result.Detail != "the name was not resolved in time" || result.Host() != callback.HostUnreachable {
		t.Errorf("%+v", result)
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

// say writes a text; a receiver that has nothing else to do hangs up.
func say(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

// then does the one and then the other.
func then(first, second func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		first(conn)
		second(conn)
	}
}

// reset makes hanging up a reset.
func reset(conn net.Conn) { conn.(wire).SetLinger(0) }

// nobody is an address nobody listens on, and no listener is given by chance.
const nobody = "127.0.0.1:1"

func roots(r *receiver) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.Certificate())
	return pool
}
