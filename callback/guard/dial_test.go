package guard_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/callbatch/callbatch/callback/guard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDialJudgesEveryAddressOfAName(t *testing.T) {
	listener := listen(t, "127.0.0.1:0")
	dialer := guard.Dialer{
		Policy: &guard.Policy{AnyPort: true, Allow: prefixes("127.0.0.1/32")},
		Resolver: nameserver(t, nil, map[string][][]string{
			"good.example.":       {{"127.0.0.1"}},
			"bad.example.":        {{"10.0.0.1"}},
			"mixed.example.":      {{"127.0.0.1", "10.0.0.1"}},
			"mixed-v6.example.":   {{"127.0.0.1", "fd00::1"}},
			"nat64.example.":      {{"127.0.0.1", "64:ff9b::a00:1"}},
			"metadata.example.":   {{"169.254.169.254"}},
			"alias.example.":      {{"good.example."}},
			"bad-alias.example.":  {{"bad.example."}},
			"chain.example.":      {{"bad-alias.example."}},
			"no-address.example.": {{}},
		}),
	}
	dial := func(host string) error {
		conn, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort(host, listener.port))
		if err == nil {
			conn.Close()
		}
		return err
	}

	for _, host := range []string{"good.example", "good.example.", "GOOD.example", "alias.example", "127.0.0.1", "localhost", "api.localhost"} {
		if err := dial(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	reached := listener.accepted(7)
	for _, host := range []string{"bad.example", "mixed.example", "mixed-v6.example", "nat64.example", "bad-alias.example", "chain.example", "127.0.0.2", "::1"} {
		wantRefusal(t, host, dial(host), guard.Address, "callbacks.allow")
	}
	wantRefusal(t, "metadata.example", dial("metadata.example"), guard.Metadata, "callbacks.allow")
	for _, host := range []string{"missing.example", "no-address.example", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"} {
		if dnsErr := (*net.DNSError)(nil); !errors.As(dial(host), &dnsErr) {
			t.Errorf("%s: %v, want a DNS error", host, dial(host))
		}
	}
	if now := listener.accepted(reached); now != reached {
		t.Errorf("a refused dial reached the listener: %d connections, want %d", now, reached)
	}
}

// A name that means another address each time it is looked up is judged by the
// one lookup whose answer is dialled; there is no second.
func TestRebindingGainsNothing(t *testing.T) {
	listener, asked := listen(t, "127.0.0.1:0"), make(chan string, 100)
	policy := &guard.Policy{AnyPort: true, Allow: prefixes("127.0.0.1/32")}
	zone := map[string][][]string{}
	for i, bad := range []string{"127.0.0.2", "10.0.0.1", "169.254.169.254", "168.63.129.16", "::1", "fd00:ec2::254", "64:ff9b::169.254.169.254", "::ffff:10.0.0.1"} {
		zone["good-then-bad-"+strconv.Itoa(i)+".example."] = [][]string{{"127.0.0.1"}, {bad}}
		zone["bad-then-good-"+strconv.Itoa(i)+".example."] = [][]string{{bad}, {"127.0.0.1"}}
	}
	dialer := guard.Dialer{Policy: policy, Resolver: nameserver(t, asked, zone)}
	reached := 0
	for name := range zone {
		host := strings.TrimSuffix(name, ".") + ":" + listener.port
		if _, err := policy.CheckURL("https://" + host + "/"); err != nil {
			t.Errorf("%s: a name is judged when it is dialled, yet: %v", host, err)
		}
		for turn := range 2 {
			conn, err := dialer.DialContext(t.Context(), "tcp", host)
			if good := strings.HasPrefix(name, "good") == (turn == 0); good {
				if err != nil {
					t.Fatalf("%s: %v", host, err)
				}
				conn.Close()
				reached++
			} else if refusal := (*guard.Refusal)(nil); !errors.As(err, &refusal) {
				t.Errorf("%s: %v, want it refused", host, err)
			}
			if questions := []string{<-asked, <-asked}; len(asked) != 0 || questions[0] == questions[1] {
				t.Errorf("%s: asked %v and %d more; want one A and one AAAA", host, questions, len(asked))
			}
		}
	}
	if got := listener.accepted(reached); got != reached {
		t.Errorf("%d connections, want %d", got, reached)
	}
}

func TestNoNameReachesOurOwnListener(t *testing.T) {
	listener := listen(t, "127.0.0.1:0")
	for _, bound := range []string{"127.0.0.1:", "0.0.0.0:", "[::]:"} {
		policy := &guard.Policy{AnyPort: true, Allow: prefixes("127.0.0.0/8", "0.0.0.0/32")}
		policy.SetSelf(netip.MustParseAddrPort(bound + listener.port))
		dialer := guard.Dialer{Policy: policy, Resolver: nameserver(t, nil, map[string][][]string{
			"own.example.": {{"127.0.0.1"}}, "mapped.example.": {{"::ffff:127.0.0.1"}}, "unspecified.example.": {{"0.0.0.0"}}, "mixed.example.": {{"127.0.0.9", "127.0.0.1"}},
		})}
		for _, host := range []string{"127.0.0.1", "localhost", "api.localhost", "0.0.0.0", "own.example", "mapped.example", "unspecified.example", "mixed.example"} {
			_, err := dialer.DialContext(t.Context(), "tcp", net.JoinHostPort(host, listener.port))
			wantRefusal(t, bound+" "+host, err, guard.OwnListener, "")
		}
	}
	if got := listener.accepted(0); got != 0 {
		t.Errorf("%d connections", got)
	}
}

func TestDialAsksForAbsoluteNamesOnly(t *testing.T) {
	var asked []string
	dialer := guard.Dialer{Resolver: resolverFunc(func(_, host string) ([]netip.Addr, error) {
		asked = append(asked, host)
		return nil, &net.DNSError{IsNotFound: true, Name: host}
	})}
	for _, host := range []string{"shop.example", "shop.example.", "Vault"} {
		if _, err := dialer.DialContext(t.Context(), "tcp", host+":443"); err == nil {
			t.Errorf("%s: connected", host)
		}
	}
	if got := strings.Join(asked, " "); got != "shop.example. shop.example. vault." {
		t.Errorf("asked for %s; without the final dot search domains apply", got)
	}
}

func TestDialRefusesAPortWithoutLookingTheNameUp(t *testing.T) {
	dialer := guard.Dialer{Resolver: resolverFunc(func(_, host string) ([]netip.Addr, error) {
		t.Errorf("asked for %s", host)
		return nil, nil
	})}
	_, err := dialer.DialContext(t.Context(), "tcp", "shop.example:6379")
	wantRefusal(t, "port 6379", err, guard.Port, "callbacks.ports")
}

func TestDialTriesTheNextAddress(t *testing.T) {
	listener := listen(t, "127.0.0.2:0")
	dialer := guard.Dialer{
		Policy:   &guard.Policy{AnyPort: true, Allow: prefixes("127.0.0.0/8")},
		Resolver: nameserver(t, nil, map[string][][]string{"two.example.": {{"127.0.0.1", "127.0.0.2"}}, "dead.example.": {{"127.0.0.1", "127.0.0.3"}}}),
	}
	conn, err := dialer.DialContext(t.Context(), "tcp", "two.example:"+listener.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != "127.0.0.2:"+listener.port {
		t.Errorf("connected to %s", got)
	}
	_, err = dialer.DialContext(t.Context(), "tcp", "dead.example:"+listener.port)
	if opErr := (*net.OpError)(nil); !errors.As(err, &opErr) || opErr.Op != "dial" {
		t.Errorf("nobody listens, yet the error is %v", err)
	}
}

func TestDialEndsInTimeThoughTheResolverStalls(t *testing.T) {
	stalled := stalledResolver{}
	dialer := guard.Dialer{Resolver: stalled, Timeout: 20 * time.Millisecond}
	if _, err := dialer.DialContext(context.Background(), "tcp", "shop.example:443"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline to end it", err)
	}
}

func TestTheSocketIsJudgedOnceMore(t *testing.T) {
	dialer := guard.Dialer{Policy: &guard.Policy{Ports: []uint16{8443}}}
	for _, tc := range []struct {
		network, address string
		reason           guard.Reason
	}{
		{"tcp4", "203.0.114.9:8443", ""},
		{"tcp6", "[2606:4700::1111]:443", ""},
		{"tcp4", "127.0.0.1:443", guard.Address},
		{"tcp6", "[::ffff:127.0.0.1]:443", guard.Address},
		{"tcp4", "203.0.114.9:25", guard.Port},
		{"udp4", "203.0.114.9:443", guard.Network},
		{"unix", "/run/docker.sock", guard.Network},
		{"tcp4", "shop.example:443", guard.Malformed},
		{"tcp6", "[fe80::1%eth0]:443", guard.Zone},
	} {
		err := dialer.ControlContext(t.Context(), tc.network, tc.address, nil)
		if tc.reason != "" {
			wantRefusal(t, tc.address, err, tc.reason, "*")
		} else if err != nil {
			t.Errorf("%s: %v", tc.address, err)
		}
	}
}

type resolverFunc func(network, host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	return f(network, host)
}

type stalledResolver struct{}

func (stalledResolver) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// counter is a listener that counts and closes what it accepts.
type counter struct {
	port string
	mu   sync.Mutex
	n    int
}

func listen(t *testing.T, address string) *counter {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c := &counter{port: port}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
			c.mu.Lock()
			c.n++
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return c
}

// accepted returns the count once it is at least n, or after some seconds.
func (c *counter) accepted(n int) int {
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		got := c.n
		c.mu.Unlock()
		if got >= n || time.Now().After(deadline) {
			return got
		}
	}
}

// nameserver serves a zone over UDP: for each name its answers, one for each
// time it is asked, the last one for ever, with a TTL of 0. An answer that is
// not an address is an alias. Questions go to asked, if there is one.
func nameserver(t *testing.T, asked chan<- string, zone map[string][][]string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		turns, buf := map[string]int{}, make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			question, reply, ok := answer(buf[:n], zone, turns)
			if asked != nil {
				asked <- question
			}
			if ok {
				conn.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func answer(query []byte, zone map[string][][]string, turns map[string]int) (question string, reply []byte, ok bool) {
	var msg dnsmessage.Message
	if msg.Unpack(query) != nil || len(msg.Questions) != 1 {
		return "", nil, false
	}
	q := msg.Questions[0]
	name := strings.ToLower(q.Name.String())
	question = name + " " + q.Type.String()
	msg.Response, msg.Additionals = true, nil
	if answers, known := zone[name]; known {
		msg.Answers = records(q.Name, answers[min(turns[question], len(answers)-1)], zone)
		turns[question]++
	} else {
		msg.RCode = dnsmessage.RCodeNameError
	}
	reply, err := msg.Pack()
	return question, reply, err == nil
}

// records returns A, AAAA and CNAME records, aliases followed.
func records(name dnsmessage.Name, data []string, zone map[string][][]string) []dnsmessage.Resource {
	var out []dnsmessage.Resource
	for _, text := range data {
		header := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET}
		addr, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			alias := dnsmessage.MustNewName(text)
			out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.CNAMEResource{CNAME: alias}})
			out = append(out, records(alias, zone[text][0], zone)...)
		case addr.Is4():
			out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: addr.As4()}})
		default:
			out = append(out, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	return out
}
