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
	if took, remote := tr.summary(); took != (Took{}) || remote != ours.RemoteAddr().String() || tr.stage() != connected {
		t.Errorf("took %+v, remote %s, stage %d", took, remote, tr.stage())
	}
}
