package callback

import (
	"errors"
	"net"
	"net/http/httptrace"
	"testing"
)

// A dial may be begun for an attempt that then finds a connection open, and go
// on beside it.
func TestADialBesideAnOpenConnectionIsNotTheAttempts(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()

	tr := new(tracker)
	hooks := tr.hooks()
	hooks.DNSStart(httptrace.DNSStartInfo{})
	hooks.DNSDone(httptrace.DNSDoneInfo{})
	hooks.ConnectStart("tcp", "203.0.113.9:443")
	hooks.ConnectDone("tcp", "203.0.113.9:443", nil)
	hooks.TLSHandshakeStart()
	if got := tr.stage(); got != handshake {
		t.Errorf("stage %d, want the handshake", got)
	}
	hooks.GotConn(httptrace.GotConnInfo{Conn: ours, Reused: true})
	hooks.ConnectStart("tcp", "203.0.113.10:443")
	hooks.ConnectDone("tcp", "203.0.113.10:443", errors.New("refused"))
	if took, remote, made := tr.summary(); took != (Took{}) || remote != ours.RemoteAddr().String() || !made || tr.stage() != connected {
		t.Errorf("took %+v, remote %s, made %t, stage %d", took, remote, made, tr.stage())
	}
}

// The hooks are told of connections to name servers like of any other.
func TestANameServerIsNotTheReceiver(t *testing.T) {
	tr := new(tracker)
	hooks := tr.hooks()
	hooks.DNSStart(httptrace.DNSStartInfo{})
	hooks.ConnectStart("tcp", "10.0.0.53:53")
	hooks.ConnectDone("tcp", "10.0.0.53:53", nil)
	if took, remote, made := tr.summary(); took.Connect != 0 || remote != "" || made || tr.stage() != resolving {
		t.Errorf("took %+v, remote %q, made %t, stage %d", took, remote, made, tr.stage())
	}
	hooks.DNSDone(httptrace.DNSDoneInfo{})
	hooks.ConnectStart("tcp", "203.0.113.9:443")
	if _, remote, _ := tr.summary(); remote != "203.0.113.9:443" || tr.stage() != connecting {
		t.Errorf("remote %q, stage %d", remote, tr.stage())
	}
}

// A receiver may have answered once more than it was asked, and the connection
// be taken for the next attempt before anybody noticed.
func TestAnAnswerThatWasThereBeforeTheRequestIsNotOneToIt(t *testing.T) {
	say := func(c net.Conn) { c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) }
	for name, tc := range map[string]struct {
		early bool
		steps []string
	}{
		"an answer to the request":           {false, []string{"take", "write", "read"}},
		"one read while nobody had it":       {true, []string{"take", "write", "read", "read", "take"}},
		"one read before the request":        {true, []string{"take", "read"}},
		"one read before, and noticed after": {true, []string{"take", "read", "write"}},
		"the next answer is in time again":   {false, []string{"take", "read", "take", "write", "read"}},
	} {
		ours, theirs := net.Pipe()
		conn := &meteredConn{Conn: ours}
		var tr *tracker
		for _, step := range tc.steps {
			switch step {
			case "take":
				tr = new(tracker)
				tr.hooks().GotConn(httptrace.GotConnInfo{Conn: conn})
			case "write":
				go theirs.Read(make([]byte, 100))
				conn.Write([]byte("POST / HTTP/1.1\r\n\r\n"))
			case "read":
				go say(theirs)
				conn.Read(make([]byte, 100))
			}
		}
		tr.hooks().GotFirstResponseByte()
		if got := tr.tooEarly(); got != tc.early {
			t.Errorf("%s: too early %t, want %t", name, got, tc.early)
		}
		ours.Close()
		theirs.Close()
	}
}
