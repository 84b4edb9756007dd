package callback_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbatch/callbatch/callback"
	"github.com/callbatch/callbatch/callback/guard"
	"github.com/callbatch/callbatch/callback/signature"
)

// Each of these shows one known trap of net/http or go-retryablehttp closed.

func TestAFailingHostDropsNoConnectionOfAHealthyOne(t *testing.T) {
	healthy := receive(t, nil)
	failing := receive(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	reset := rawReceiver(t, func(net.Conn) {})
	s := sender(t, callback.Options{})
	for range 5 {
		if result := s.Send(t.Context(), message(healthy.URL)); result.Verdict != callback.Delivered {
			t.Fatalf("%+v", result)
		}
		for _, url := range []string{failing.URL, reset, "http://" + nobody} {
			if result := s.Send(t.Context(), message(url)); result.Verdict != callback.Retry {
				t.Fatalf("%+v", result)
			}
		}
	}
	if requests, connections := healthy.counts(); requests != 5 || connections != 1 {
		t.Errorf("%d requests took %d connections, want 5 over 1", requests, connections)
	}
}

func TestOneSendIsOneRequestWhateverTheAnswer(t *testing.T) {
	for _, status := range []int{200, 400, 408, 409, 425, 429, 500, 501, 502, 503, 504, 599} {
		r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "9223372037") // overflows go-retryablehttp's arithmetic
			w.WriteHeader(status)
		})
		result := sender(t, callback.Options{}).Send(t.Context(), message(r.URL))
		if n, _ := r.counts(); n != 1 || result.Status != status {
			t.Errorf("%d requests, status %d; want 1, %d", n, result.Status, status)
		}
	}
}

func TestTheTransportNeverSendsAgainByItself(t *testing.T) {
	// The receiver takes a second request on an open connection and hangs up.
	// With an idempotency key Go's transport would send it a third time.
	seen := make(chan struct{}, 100)
	url := rawReceiver(t, func(conn net.Conn) {
		seen <- struct{}{}
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			seen <- struct{}{}
		}
	})
	s, m := sender(t, callback.Options{}), message(url)
	m.Headers = map[string]string{"Idempotency-Key": "k", "X-Idempotency-Key": "k"}
	if result := s.Send(t.Context(), m); result.Verdict != callback.Delivered || result.RequestHeaders.Get("Idempotency-Key") != "" {
		t.Fatalf("%+v", result)
	}
	if result := s.Send(t.Context(), m); result.Verdict != callback.Retry || result.Category != callback.CategoryConnect {
		t.Errorf("%+v", result)
	}
	if len(seen) != 2 {
		t.Errorf("%d requests for 2 sends", len(seen))
	}
}

// fragile is a connection that can be made to die unnoticed: not a byte goes
// out, and nothing comes in.
type fragile struct {
	net.Conn
	dead *atomic.Bool
}

func (c fragile) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

func TestAConnectionThatDiedIsReplacedIfNothingWasSent(t *testing.T) {
	r := receive(t, nil)
	var dead []*atomic.Bool
	refused := false
	s := sender(t, callback.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if refused {
			address = nobody
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		dead = append(dead, new(atomic.Bool))
		return fragile{conn, dead[len(dead)-1]}, err
	}})
	for want := 1; want <= 2; want++ {
		if result := s.Send(t.Context(), message(r.URL)); result.Verdict != callback.Delivered || result.Took.Connect <= 0 {
			t.Errorf("%+v", result)
		}
		if requests, connections := r.counts(); requests != want || connections != want {
			t.Errorf("%d requests over %d connections, want %d over as many", requests, connections, want)
		}
		dead[len(dead)-1].Store(true)
	}

	refused = true
	result := s.Send(t.Context(), message(r.URL))
	if result.Detail != "connection refused" || result.Connected || result.Host() != callback.HostUnreachable {
		t.Errorf("the old connection counts for the new one: %+v", result)
	}
}

// halved is a connection that takes the beginning of a request only.
type halved struct {
	net.Conn
	begun bool
}

func (c *halved) Write(p []byte) (int, error) {
	if c.begun {
		return 0, syscall.EPIPE
	}
	c.begun = true
	return c.Conn.Write(p)
}

func TestAnAnswerToHalfARequestIsNotLost(t *testing.T) {
	for status, want := range map[string]callback.Verdict{"204 No Content": callback.Delivered, "413 Too Large": callback.Gone, "503 Busy": callback.Retry} {
		url := rawReceiver(t, say("HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n"))
		s := sender(t, callback.Options{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return &halved{Conn: conn}, err
		}})
		m := message(url)
		m.Body = []byte(`"` + strings.Repeat("x", 1<<20) + `"`)
		if result := s.Send(t.Context(), m); result.Verdict != want || !strings.HasPrefix(status, strconv.Itoa(result.Status)) {
			t.Errorf("%s: %+v", status, result)
		}
	}
}

func TestRedirectsAreNeverFollowed(t *testing.T) {
	target := receive(t, nil)
	for _, status := range []int{300, 301, 302, 303, 304, 307, 308} {
		for _, location := range []string{target.URL + "/?token=s3cret", "/elsewhere", "http://169.254.169.254/", "http://[::1", "https://%zz/", ""} {
			r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
				if location != "" {
					w.Header().Set("Location", location)
				}
				w.WriteHeader(status)
			})
			result := sender(t, callback.Options{}).Send(t.Context(), message(r.URL))
			if result.Verdict != callback.Retry || result.Category != callback.CategoryRedirect || result.Status != status {
				t.Errorf("%d to %q: %+v", status, location, result)
			}
			tells := strings.Contains(result.Detail, target.Listener.Addr().String())
			if strings.HasPrefix(location, target.URL) && (tells != (status != 304) || strings.Contains(result.Detail, "s3cret")) {
				t.Errorf("the detail does not tell the host, or tells more: %s", result.Detail)
			}
			if got := result.ResponseHeaders.Get("Location"); got != location {
				t.Errorf("Location %q is shown as %q", location, got)
			}
			if n, _ := r.counts(); n != 1 {
				t.Errorf("%d to %q: %d requests", status, location, n)
			}
		}
	}
	if n, connections := target.counts(); n+connections != 0 {
		t.Errorf("the target saw %d requests over %d connections", n, connections)
	}
}

func TestAProxyFromTheEnvironmentIsIgnored(t *testing.T) {
	proxy := "http://" + nobody
	alone(t, "TestTheReceiverIsDialledItself", "HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy, "ALL_PROXY="+proxy, "http_proxy="+proxy)
}

func TestTheReceiverIsDialledItself(t *testing.T) {
	network := newPipes()
	server := &http.Server{Handler: http.NotFoundHandler()}
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(network) }()
	t.Cleanup(func() { server.Close(); <-served })

	s := sender(t, callback.Options{Policy: &guard.Policy{AllowHTTP: true}, DialContext: network.dial})
	defer s.Close()
	if result := s.Send(t.Context(), message("http://shop.example/")); result.Status != 404 {
		t.Errorf("%+v", result)
	}
	if got := strings.Join(network.dialed, " "); got != "shop.example:80" {
		t.Errorf("dialled %s", got)
	}
}

func TestTheTimeoutCoversTheWholeAttempt(t *testing.T) {
	for name, tc := range map[string]struct {
		url      string
		talk     func(net.Conn)
		verdict  callback.Verdict
		category string
	}{
		"hangs before answering":      {"http://shop.example/", untilClosed, callback.Retry, callback.CategoryTimeout},
		"hangs in the TLS handshake":  {"https://shop.example/", untilClosed, callback.Retry, callback.CategoryTLS},
		"drips its headers":           {"http://shop.example/", drip("H"), callback.Retry, callback.CategoryTimeout},
		"acknowledges, drips a body":  {"http://shop.example/", drip("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", "x"), callback.Delivered, ""},
		"acknowledges, hangs in body": {"http://shop.example/", drip("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", ""), callback.Delivered, ""},
		"refuses, drips a body":       {"http://shop.example/", drip("HTTP/1.1 503 X\r\nContent-Length: 99999\r\n\r\n", "x"), callback.Retry, callback.CategoryStatus},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sender(t, callback.Options{Timeout: 15 * time.Second, Policy: &guard.Policy{AllowHTTP: true}, DialContext: pipeTo(tc.talk)})
				result := s.Send(t.Context(), message(tc.url))
				if result.Verdict != tc.verdict || result.Category != tc.category || result.Truncated != (result.Status != 0) {
					t.Errorf("%+v", result)
				}
				if result.Took.Total != 15*time.Second {
					t.Errorf("took %s, want all of the 15 s", result.Took.Total)
				}
				time.Sleep(time.Minute) // in the bubble: the receiver sees that we have gone
			})
		})
	}
}

func TestTheDefaultTimeoutIs15Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := callback.NewSender(callback.Options{Policy: &guard.Policy{AllowHTTP: true}, DialContext: pipeTo(untilClosed)})
		defer s.Close()
		if result := s.Send(t.Context(), message("http://shop.example/")); result.Took.Total != 15*time.Second {
			t.Errorf("took %s", result.Took.Total)
		}
	})
}

func TestAGzipBombIsNotInflated(t *testing.T) {
	r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, bomb())
	})
	result := sender(t, callback.Options{}).Send(t.Context(), message(r.URL))
	if got := r.requests[0].Header.Get("Accept-Encoding"); got != "" {
		t.Errorf("we ask for %s", got)
	}
	if len(result.ResponseBody) > 16<<10 || !bytes.HasPrefix(result.ResponseBody, []byte("\ufffd\ufffd\ufffd")) {
		t.Errorf("kept %d bytes: %.20q", len(result.ResponseBody), result.ResponseBody)
	}
}

func TestASmallAnswerKeepsTheConnectionAndAHugeOneIsCutOff(t *testing.T) {
	for _, tc := range []struct {
		size, kept  int
		truncated   bool
		connections int
	}{
		{0, 0, false, 1},
		{100, 100, false, 1},
		{16 << 10, 16 << 10, false, 1},
		{32 << 10, 16 << 10, true, 3},
		{64 << 20, 16 << 10, true, 3},
	} {
		r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
			for left := tc.size; left > 0; left -= 1 << 10 {
				if _, err := io.WriteString(w, strings.Repeat("x", min(left, 1<<10))); err != nil {
					return
				}
			}
		})
		s := sender(t, callback.Options{})
		for range 3 {
			result := s.Send(t.Context(), message(r.URL))
			if result.Verdict != callback.Delivered || len(result.ResponseBody) != tc.kept || result.Truncated != tc.truncated {
				t.Errorf("an answer of %d bytes: kept %d, truncated %t", tc.size, len(result.ResponseBody), result.Truncated)
			}
		}
		if _, connections := r.counts(); connections != tc.connections {
			t.Errorf("three answers of %d bytes took %d connections, want %d", tc.size, connections, tc.connections)
		}
	}
}

func TestNothingIsLogged(t *testing.T) {
	if logged := alone(t, "TestNoResultTellsAQueryOrACredential"); logged != "" {
		t.Errorf("logged: %s", logged)
	}
}

// alone runs one test in a process of its own, for what the libraries look up
// but once: the environment's proxies, the standard error. It returns what was
// written to the latter.
func alone(t *testing.T, name string, env ...string) (stderr string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, logged bytes.Buffer
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &stdout, &logged
	if err := cmd.Run(); err != nil || !strings.Contains(stdout.String(), "--- PASS: "+name) {
		t.Fatalf("%s: %v\n%s%s", name, err, stdout.String(), logged.String())
	}
	return logged.String()
}

func TestNoResultTellsAQueryOrACredential(t *testing.T) {
	echo := receive(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Echo", req.Header.Get("Authorization"))
		w.Header().Set("Location", "https://elsewhere.example"+req.RequestURI)
		w.WriteHeader(http.StatusInternalServerError)
		req.Header.Write(w)
		plain, _ := url.QueryUnescape(req.RequestURI)
		fmt.Fprintln(w, req.RequestURI, plain)
	})
	tlsReceiver := receiveTLS(t, nil)
	var results []callback.Result
	for _, url := range []string{
		echo.URL + "/?token=qu3rys3cret", echo.URL + "/?a=1&qu3rys3cret", echo.URL + "/?token=qu3ry%20%73ecret", "http://" + nobody + "/?token=qu3rys3cret", tlsReceiver.URL + "/?token=qu3rys3cret",
		"http://10.0.0.1/?token=qu3rys3cret", "http://u:qu3rys3cret@shop.example/", "http://127.0.0.1:1/?token=qu3rys3cret%zz", rawReceiver(t, func(net.Conn) {}) + "/?token=qu3rys3cret",
		rawReceiver(t, func(c net.Conn) { io.WriteString(c, "garbage\r\n\r\n") }) + "/?token=qu3rys3cret",
	} {
		m := message(url)
		m.Headers = map[string]string{"authorization": "Bearer h3ad3rs3cret"}
		result := sender(t, callback.Options{}).Send(t.Context(), m)
		if result.Verdict == callback.Delivered {
			t.Errorf("%s: %+v", url, result)
		}
		results = append(results, result)
		at, _ := time.Parse(time.RFC3339, "2026-01-01T00:00:00Z")
		_, mac, _ := strings.Cut(signature.Sign("x", at, nil, m.Secrets...), ",")
		for _, secret := range []string{"qu3rys3cret", "qu3ry secret", "qu3ry%20%73ecret", "h3ad3rs3cret", mac, m.Secrets[0].Reveal()} {
			if strings.Contains(fmt.Sprintf("%+v %s", result, result.ResponseBody), secret) {
				t.Errorf("%s: the result tells a secret: %+v %s", url, result, result.ResponseBody)
			}
		}
	}

	sent := echo.requests[0].Header.Get("Webhook-Signature")
	if body := string(results[0].ResponseBody); strings.Contains(body, strings.TrimPrefix(sent, "v1,")) || !strings.Contains(body, "Authorization: ***") {
		t.Errorf("an echo is kept as %s", body)
	}
}

func TestAnEchoedCredentialIsNotKeptWhateverItsSpelling(t *testing.T) {
	basic := func(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }
	for name, c := range map[string]struct{ header, echo, kept string }{
		"user and password":              {basic("shop:Hunt3r"), "no shop:Hunt3r here", "no *** here"},
		"the password alone":             {basic("shop:Hunt3r"), "wrong Hunt3r, shop", "wrong ***, shop"},
		"in another case":                {basic("shop:Hunt3r"), "SHOP:HUNT3R hunt3r", "*** ***"},
		"with a colon in the password":   {basic("shop:a:b:c:d"), "a:b:c:d", "***"},
		"without padding":                {strings.TrimRight(basic("shop:Hunt3r"), "="), "Hunt3r", "***"},
		"the scheme in another case":     {strings.Replace(basic("shop:Hunt3r"), "Basic", "bASIC", 1), "Hunt3r", "***"},
		"as it was sent, in lower case":  {basic("shop:Hunt3r"), strings.ToLower(basic("shop:Hunt3r")), "***"},
		"a token in upper case":          {"Bearer s3cr3t-token", "S3CR3T-TOKEN!", "***!"},
		"too short to be looked for":     {basic("u:pass5"), "u:pass5 pass5", "*** pass5"},
		"what is no base64 has no parts": {"Basic Hunt3r:Hunt3r", "Hunt3r", "Hunt3r"},
	} {
		t.Run(name, func(t *testing.T) {
			r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Echo", c.echo)
				w.WriteHeader(http.StatusUnauthorized)
				io.WriteString(w, c.echo)
			})
			m := message(r.URL)
			m.Headers = map[string]string{"Authorization": c.header}
			result := sender(t, callback.Options{}).Send(t.Context(), m)
			if body, header := string(result.ResponseBody), result.ResponseHeaders.Get("X-Echo"); body != c.kept || header != c.kept {
				t.Errorf("kept %q and %q, want %q", body, header, c.kept)
			}
		})
	}
}

func TestHTTP2IsNotSpoken(t *testing.T) {
	r := prepare(nil)
	r.EnableHTTP2 = true
	r.StartTLS()
	t.Cleanup(r.Close)
	result := sender(t, callback.Options{RootCAs: roots(r)}).Send(t.Context(), message(r.URL))
	if result.Verdict != callback.Delivered || r.requests[0].ProtoMajor != 1 {
		t.Errorf("%s over %s", result.Verdict, r.requests[0].Proto)
	}
}
