package callback_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/callback"
	"github.com/callbatch/callbatch/callback/guard"
	"github.com/callbatch/callbatch/callback/signature"
)

var silent = log.New(io.Discard, "", 0)

func TestAnAttemptAsTheReceiverSeesIt(t *testing.T) {
	r := receive(t, nil)
	m := message(r.URL + "/hooks?token=s3cret")
	m.Attempt = 3
	m.Secrets = append(m.Secrets, signature.NewSecret())
	m.Headers = map[string]string{"authorization": "Bearer abc", "Host": "evil.example", "Webhook-Id": "msg_other", "Content-Type": "text/html"}

	result := sender(t, callback.Options{Version: "1.4.0"}).Send(t.Context(), m)
	if result.Verdict != callback.Delivered || result.Status != 204 || result.Category != "" || result.Detail != "" {
		t.Fatalf("%+v", result)
	}

	req, body := r.requests[0], r.bodies[0]
	if req.Method != "POST" || req.URL.String() != "/hooks?token=s3cret" || req.Host != strings.TrimPrefix(r.URL, "http://") || string(body) != string(m.Body) {
		t.Errorf("%s %s to %s: %s", req.Method, req.URL, req.Host, body)
	}
	for _, secret := range m.Secrets {
		if err := signature.Verify(req.Header, body, time.Now(), 0, secret); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"Webhook-Timestamp", "Webhook-Signature", "Content-Length"} {
		if req.Header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
		req.Header.Del(name)
	}
	want := http.Header{
		"Authorization":     {"Bearer abc"},
		"Callbatch-Attempt": {"3"},
		"Content-Digest":    {signature.ContentDigest(m.Body)},
		"Content-Type":      {"application/json"},
		"User-Agent":        {"Callbatch/1.4.0"},
		"Webhook-Id":        {m.ID},
	}
	if diff := cmp.Diff(want, req.Header); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestAnAttemptAsItIsRecorded(t *testing.T) {
	r := receiveTLS(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "session=s3cret")
		w.Header().Set("X-Trace", "t-1")
		w.Header()["Date"] = nil
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "come back\r\nlater \x1b[31m\xff")
	})
	s := sender(t, callback.Options{RootCAs: roots(r)})
	m := message(r.URL)
	m.Headers = map[string]string{"Authorization": "Bearer s3cret"}

	before := time.Now()
	first := s.Send(t.Context(), m)
	if first.Verdict != callback.Retry || first.Status != 503 || first.Category != callback.CategoryStatus || first.Detail != "503 Service Unavailable" {
		t.Errorf("%+v", first)
	}
	if string(first.ResponseBody) != "come back\nlater \ufffd[31m\ufffd" || first.Truncated {
		t.Errorf("body %q, truncated %t", first.ResponseBody, first.Truncated)
	}
	if diff := cmp.Diff(http.Header{"Set-Cookie": {"***"}, "X-Trace": {"t-1"}, "Content-Length": {"23"}, "Content-Type": {"text/plain; charset=utf-8"}}, first.ResponseHeaders); diff != "" {
		t.Errorf("response headers (-want +got):\n%s", diff)
	}
	if got := first.RequestHeaders; got.Get("Authorization") != "***" || got.Get("Webhook-Signature") != "***" || got.Get("Webhook-Id") != m.ID || len(got) != 8 {
		t.Errorf("request headers %v", got)
	}
	if first.RemoteAddr != r.Listener.Addr().String() || first.Started.Before(before) {
		t.Errorf("remote %s, started %s", first.RemoteAddr, first.Started)
	}
	if took := first.Took; took.Connect <= 0 || took.TLS <= 0 || took.FirstByte < took.Connect+took.TLS || took.Total < took.FirstByte {
		t.Errorf("took %+v", took)
	}

	second := s.Send(t.Context(), m)
	if took := second.Took; took.Connect != 0 || took.TLS != 0 || took.FirstByte <= 0 || second.RemoteAddr != first.RemoteAddr {
		t.Errorf("on the open connection: %+v from %s", took, second.RemoteAddr)
	}
}

func TestAnAttemptCutShortByTheCallerIsInterrupted(t *testing.T) {
	arrived := make(chan struct{})
	r := receive(t, func(_ http.ResponseWriter, req *http.Request) {
		close(arrived)
		<-req.Context().Done()
	})
	s := sender(t, callback.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	for what, result := range map[string]callback.Result{"under way": s.Send(ctx, message(r.URL)), "before it began": s.Send(ctx, message(r.URL))} {
		if result.Verdict != callback.Interrupted || result.Category != callback.CategoryInterrupted || result.Status != 0 {
			t.Errorf("%s: %+v", what, result)
		}
	}
	if n, _ := r.counts(); n != 1 {
		t.Errorf("%d requests; a context that is done must send nothing", n)
	}
}

func TestAnAnswerCountsThoughTheCallerLeavesDuringItsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			io.WriteString(w, "thanks")
			w.(http.Flusher).Flush()
			<-req.Context().Done()
		})}
		go server.Serve(network)
		s := sender(t, callback.Options{Policy: &guard.Policy{AllowHTTP: true}, DialContext: network.dial})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			synctest.Wait() // until the sender waits for more of the body
			cancel()
		}()
		result := s.Send(ctx, message("http://shop.example/"))
		if result.Verdict != callback.Delivered || !result.Truncated || string(result.ResponseBody) != "thanks" {
			t.Errorf("%+v", result)
		}
		server.Close()
	})
}

func TestTheGuardIsAskedAtEveryAttempt(t *testing.T) {
	r := receive(t, nil)
	policy := local()
	s := sender(t, callback.Options{Policy: policy})
	if result := s.Send(t.Context(), message(r.URL)); result.Verdict != callback.Delivered {
		t.Fatalf("%+v", result)
	}
	for name, tc := range map[string]struct {
		policy *guard.Policy
		url    string
		says   string
	}{
		"an address no longer permitted": {&guard.Policy{AllowHTTP: true, AnyPort: true}, r.URL, "callbacks.allow"},
		"http no longer permitted":       {&guard.Policy{AnyPort: true, Allow: policy.Allow}, r.URL, "callbacks.allow_http"},
		"a port no longer permitted":     {&guard.Policy{AllowHTTP: true, Allow: policy.Allow}, r.URL, "callbacks.ports"},
		"a URL that is none":             {policy, "hooks", "absolute"},
		"no policy at all":               {new(guard.Policy), "https://10.0.0.1/", "callbacks.allow"},
	} {
		result := sender(t, callback.Options{Policy: tc.policy}).Send(t.Context(), message(tc.url))
		if result.Verdict != callback.Refused || result.Category != callback.CategoryBlocked || !strings.Contains(result.Detail, tc.says) {
			t.Errorf("%s: %+v", name, result)
		}
	}
	if n, _ := r.counts(); n != 1 {
		t.Errorf("%d requests, want the permitted one only", n)
	}
}

func TestTheDialIsJudgedThoughTheURLLooksHarmless(t *testing.T) {
	// localhost passes as a URL because a part of the loopback network is
	// allowed, the wrong one.
	policy := local()
	policy.Allow[0], _ = policy.Allow[0].Addr().Next().Next().Prefix(32)
	r := receive(t, nil)
	_, port, _ := strings.Cut(strings.TrimPrefix(r.URL, "http://"), ":")
	result := sender(t, callback.Options{Policy: policy}).Send(t.Context(), message("http://localhost:"+port))
	if result.Verdict != callback.Refused || result.Category != callback.CategoryBlocked || result.RemoteAddr != "" {
		t.Errorf("%+v", result)
	}
	if n, conns := r.counts(); n+conns != 0 {
		t.Errorf("%d requests over %d connections", n, conns)
	}
}

// answers is a resolver with an address for each time it is asked.
type answers []string

func (a *answers) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	next := netip.MustParseAddr((*a)[0])
	*a = (*a)[1:]
	return []netip.Addr{next}, nil
}

func TestANameThatTurnsPrivateIsBlockedAtItsNextDial(t *testing.T) {
	hangUp := false
	r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
		if hangUp {
			w.Header().Set("Connection", "close")
		}
	})
	_, port, _ := net.SplitHostPort(r.Listener.Addr().String())
	policy := local()
	dialer := guard.Dialer{Policy: policy, Resolver: &answers{"127.0.0.1", "169.254.169.254"}}
	s := sender(t, callback.Options{Policy: policy, DialContext: dialer.DialContext})
	m := message("http://shop.example:" + port + "/")

	for range 2 { // over the connection that was judged
		if result := s.Send(t.Context(), m); result.Verdict != callback.Delivered {
			t.Errorf("%+v", result)
		}
		hangUp = true
	}
	result := s.Send(t.Context(), m)
	if result.Verdict != callback.Refused || result.Category != callback.CategoryBlocked || result.RemoteAddr != "" || strings.Contains(result.Detail, "169.254") {
		t.Errorf("%+v", result)
	}
	if requests, connections := r.counts(); requests != 2 || connections != 1 {
		t.Errorf("%d requests over %d connections", requests, connections)
	}
}

func TestNoAttemptReachesOurOwnListener(t *testing.T) {
	r := receive(t, nil)
	own := netip.MustParseAddrPort(r.Listener.Addr().String())
	policy := local()
	policy.SetSelf(own)
	s := sender(t, callback.Options{Policy: policy})
	for _, host := range []string{"127.0.0.1", "localhost", "api.localhost", "[::ffff:127.0.0.1]"} {
		result := s.Send(t.Context(), message(fmt.Sprintf("http://%s:%d/v1/batches", host, own.Port())))
		if result.Verdict != callback.Refused || result.Category != callback.CategoryBlocked || !strings.Contains(result.Detail, "itself listens") {
			t.Errorf("%s: %+v", host, result)
		}
	}
	if n, connections := r.counts(); n+connections != 0 {
		t.Errorf("%d requests over %d connections", n, connections)
	}
}

func TestManyAttemptsAtOnce(t *testing.T) {
	r := receive(t, nil)
	s := sender(t, callback.Options{})
	done := make(chan callback.Verdict)
	const n = 64
	for range n {
		go func() { done <- s.Send(t.Context(), message(r.URL)).Verdict }()
	}
	for range n {
		if v := <-done; v != callback.Delivered {
			t.Errorf("verdict %s", v)
		}
	}
	if got, _ := r.counts(); got != n {
		t.Errorf("%d requests, want %d", got, n)
	}
}

// The whole road in fake time: a receiver that is down for more than three days
// has its message at last, signed afresh each time under the same id.
func TestAReceiverDownForThreeDaysHasItsMessageAtLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		var stamps []string
		m := message("http://shop.example/hooks")
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			if err := signature.Verify(req.Header, body, time.Now(), 0, m.Secrets...); err != nil || req.Header.Get("Webhook-Id") != m.ID {
				t.Errorf("attempt %s: %v", req.Header.Get("Callbatch-Attempt"), err)
			}
			stamps = append(stamps, req.Header.Get("Callbatch-Attempt")+"@"+req.Header.Get("Webhook-Timestamp"))
			if len(stamps) < 10 {
				w.WriteHeader(http.StatusBadGateway)
			}
		})}
		go server.Serve(network)
		s := sender(t, callback.Options{Policy: &guard.Policy{AllowHTTP: true}, DialContext: network.dial})

		made, verdict := time.Now(), callback.Retry
		for made := made; verdict == callback.Retry; m.Attempt++ {
			at, spent := callback.Schedule{}.Next(m.Attempt-1, 0, callback.Schedule{}.Until(made), time.Now(), nil)
			if spent != callback.NotSpent {
				t.Fatalf("spent: %s", spent)
			}
			time.Sleep(time.Until(at))
			verdict = s.Send(t.Context(), m).Verdict
		}
		if took := time.Since(made); verdict != callback.Delivered || took < 75*time.Hour || took > 84*time.Hour {
			t.Errorf("%s after %s", verdict, took)
		}
		seen := map[string]bool{}
		for _, s := range stamps {
			seen[s] = true
		}
		if len(seen) != 10 {
			t.Errorf("attempts and times %v, want ten different ones", stamps)
		}
		s.Close()
		server.Close()
	})
}
