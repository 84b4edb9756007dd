package guard_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/callback/guard"
)

func TestCheckURLNormalisesTheHost(t *testing.T) {
	for raw, want := range map[string]string{
		"https://shop.example/hooks":                        "shop.example:443",
		"HTTPS://Shop.EXAMPLE:443/Hooks?token=s3cret":       "shop.example:443",
		"https://shop.example":                              "shop.example:443",
		"https://shop.example:80/":                          "shop.example:80",
		"https://shop.example.:443/":                        "shop.example:443",
		"https://my_hooks.shop.example/":                    "my_hooks.shop.example:443",
		"https://bücher.example/":                           "xn--bcher-kva.example:443",
		"https://BÜCHER.example/":                           "xn--bcher-kva.example:443",
		"https://xn--bcher-kva.example/":                    "xn--bcher-kva.example:443",
		"https://аррӏе.example/":                            "xn--80ak6aa92e.example:443", // Cyrillic: shown as what it is
		"https://shop。example/":                             "shop.example:443",
		"https://ｓｈｏｐ.example/":                             "shop.example:443",
		"https://203.0.114.9/":                              "203.0.114.9:443",
		"https://２０３.０.１１４.９/":                              "203.0.114.9:443",
		"https://b%C3%BCcher.example/":                      "xn--bcher-kva.example:443",
		"https://[2606:4700::1111]/":                        "[2606:4700::1111]:443",
		"https://[2606:4700:0:0:0:0:0:1111]:80/":            "[2606:4700::1111]:80",
		"https://[::ffff:203.0.114.9]/":                     "203.0.114.9:443",
		"https://[64:ff9b::203.0.114.9]/":                   "[64:ff9b::cb00:7209]:443",
		"https://1e100.example/":                            "1e100.example:443",
		"https://0x7f.example/":                             "0x7f.example:443",
		"https://localhost.example/":                        "localhost.example:443",
		"https://internal.example/":                         "internal.example:443",
		"https://shop.example/a%20b?next=http%3A%2F%2Fx":    "shop.example:443",
		"https://shop.example/" + strings.Repeat("a", 8171): "shop.example:443",
	} {
		got, err := new(guard.Policy).CheckURL(raw)
		if err != nil || got != want {
			t.Errorf("CheckURL(%.60q) = %q, %v; want %q", raw, got, err, want)
		}
	}
}

// The corpus of bad callback URLs. Each is refused by the zero policy.
func TestCheckURLRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		reason  guard.Reason
		setting string
		urls    []string
	}{
		"what is not an absolute URL with a host": {guard.Malformed, "", []string{
			"", "hooks", "/hooks", "//shop.example/hooks", "shop.example/hooks", "https:", "https:opaque", "https:///hooks", "https://",
			"https://[::1", "https://[]/", "https://[shop.example]/", "https://[127.0.0.1]x/", "://shop.example", "https://shop.example/%zz", "https://:443/x", "https://sh%6fp.example/", "https://shop.example%2eevil/",
		}},
		"another scheme": {guard.Scheme, "", []string{
			"file:///etc/passwd", "gopher://shop.example/", "ftp://shop.example/", "javascript:alert(1)", "ws://shop.example/", "unix:///run/x.sock", "shop.example:443",
		}},
		"http while only https is permitted": {guard.Scheme, "callbacks.allow_http", []string{
			"http://shop.example/", "HTTP://shop.example/", "http:opaque",
		}},
		"user info": {guard.UserInfo, "", []string{
			"https://user:pw@shop.example/", "https://good.example@evil.example/", "https://@shop.example/", "https://1:2@[::1]:9876/",
		}},
		"a fragment": {guard.Fragment, "", []string{
			"https://shop.example/#x", "https://shop.example/#", "https://evil.example#@good.example/",
		}},
		"characters that programs read differently": {guard.BadCharacter, "", []string{
			"https://shop.example\\@evil.example/", "https://shop.example/a\tb", "https://shop.example/a b", " https://shop.example/", "https://shop.example/\n",
			"https://shop.example/a\r\nx: y", "https://shop.example/%0d%0ax:%20y", "https://shop.example/?a=%0A", "https://shop.example/%00", "https://shop.example/%7F",
			"https://shop.example/\x7f", "https://shop.example/\x00", "https://shop.example/\xff",
		}},
		"a port that is none": {guard.Port, "", []string{
			"https://shop.example:/", "https://shop.example:0/", "https://shop.example:99999/", "https://shop.example:65536/", "https://shop.example:0443/", "https://[2606:4700::1]:/",
		}},
		"a port not permitted": {guard.Port, "callbacks.ports", []string{
			"https://shop.example:22/", "https://shop.example:25/", "https://shop.example:6379/", "https://shop.example:8443/", "https://203.0.114.9:9200/",
		}},
		"an IPv6 zone": {guard.Zone, "", []string{
			"https://[fe80::1%25eth0]/", "https://[::1%25lo]/", "https://[2606:4700::1%251]/",
		}},
		"an address in an odd spelling": {guard.NumericHost, "", []string{
			"https://127.1/", "https://127.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0X7F.1/", "https://0x7f.0.0.0x1/", "https://0177.0.0.1/",
			"https://127.000.000.001/", "https://0/", "https://127.0.0.1./", "https://127.0.0.256/", "https://1.2.3.4.5/", "https://shop.example.1/", "https://0x/",
			"https://0x1ffffffffffffffffffff/", "https://１２７.1/", "https://⑫⑦.①/",
		}},
		"a name of this machine or its network": {guard.LocalName, "callbacks.allow", []string{
			"https://localhost/", "https://LOCALHOST/", "https://localhost./", "https://api.localhost/", "https://ｌｏｃａｌｈｏｓｔ/", "https://metadata.google.internal/",
			"https://vault/", "https://vault./", "https://printer.local/", "https://db.default.svc/", "https://db.default.svc.cluster.local/", "https://nas.home.arpa/", "https://nas.lan/",
		}},
		"an address that is not globally routable": {guard.Address, "callbacks.allow", []string{
			"https://127.0.0.1/", "https://127.0.0.2/", "https://[::1]/", "https://0.0.0.0/", "https://[::]/", "https://[0000:0000:0000:0000:0000:ffff:7f00:0001]/",
			"https://10.0.0.1/", "https://172.16.0.1/", "https://172.31.255.255/", "https://192.168.1.1/", "https://169.254.1.1/", "https://100.64.0.1/", "https://198.18.0.1/",
			"https://0.1.2.3/", "https://240.0.0.1/", "https://255.255.255.255/", "https://224.0.0.1/", "https://[fc00::1]/", "https://[fe80::1]/", "https://[fec0::1]/", "https://[ff02::1]/",
			"https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::7f00:1]/", "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/",
			"https://127。0。0。1/", "https://１２７.０.０.１/", "https://①②⑦.⓪.⓪.①/", "https://127｡0｡0｡1/",
		}},
		"a cloud's metadata service": {guard.Metadata, "callbacks.allow", []string{
			"https://169.254.169.254/latest/", "https://168.63.129.16/", "https://[fd00:ec2::254]/", "https://[::ffff:169.254.169.254]/", "https://[64:ff9b::a9fe:a9fe]/", "https://[64:ff9b::a83f:8110]/",
		}},
		"a name DNS cannot hold": {guard.BadName, "", []string{
			"https://xn--/", "https://xn--a.example/", "https://xn--bcher-kv.example.xn--zzzz-/", "https://" + strings.Repeat("a", 64) + ".example/",
			"https://" + strings.Repeat("a.", 126) + "example/", "https://shop..example/", "https://.shop.example/", "https://./", "https://-shop.example/",
			"https://shop-.example/", "https://sh!op.example/", "https://*.example/", "https://\u200b/", "https://a\u202eb.example/",
			"https://shop.example../", "https://sh%A0p.example/", "https://sh%EF%BF%BDp.example/", "https://shop.example%E2%80%AE/",
		}},
		"a URL too long": {guard.TooLong, "", []string{"https://shop.example/" + strings.Repeat("a", 8172)}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, raw := range tc.urls {
				host, err := new(guard.Policy).CheckURL(raw)
				wantRefusal(t, raw, err, tc.reason, tc.setting)
				if host != "" {
					t.Errorf("%.60q is refused, yet gives the host %q", raw, host)
				}
			}
		})
	}
}

func TestCheckURLGoesByThePolicy(t *testing.T) {
	var (
		loopback = &guard.Policy{AllowHTTP: true, AnyPort: true, Allow: prefixes("127.0.0.0/8", "::1/128")}
		lan      = &guard.Policy{AllowHTTP: true, Ports: []uint16{8080}, Allow: prefixes("10.0.0.0/8", "fd00::/8")}
	)
	for _, tc := range []struct {
		policy *guard.Policy
		url    string
		want   string       // the host, if permitted
		reason guard.Reason // else
	}{
		{loopback, "http://localhost:8090/hook", "localhost:8090", ""},
		{loopback, "http://api.localhost/hook", "api.localhost:80", ""},
		{loopback, "http://127.0.0.1:8090/hook", "127.0.0.1:8090", ""},
		{loopback, "http://[::1]:8090/hook", "[::1]:8090", ""},
		{loopback, "http://[::ffff:127.0.0.1]:8090/", "127.0.0.1:8090", ""},
		{loopback, "http://[64:ff9b::7f00:1]:8090/", "", guard.Address},
		{loopback, "http://[2a00::5efe:7f00:1]:8090/", "", guard.Address},
		{loopback, "http://127.1:8090/", "", guard.NumericHost},
		{loopback, "http://10.0.0.1/", "", guard.Address},
		{loopback, "http://[::1%25lo]/", "", guard.Zone},
		{loopback, "http://localhost:0/", "", guard.Port},
		{lan, "http://10.1.2.3:8080/", "10.1.2.3:8080", ""},
		{lan, "http://10.1.2.3:8081/", "", guard.Port},
		{lan, "http://receiver:8080/", "receiver:8080", ""},
		{lan, "http://receiver.shop.svc.cluster.local/", "receiver.shop.svc.cluster.local:80", ""},
		{lan, "http://localhost/", "", guard.LocalName},
		{lan, "http://192.168.0.1/", "", guard.Address},
		{lan, "http://[fd12::1]/", "[fd12::1]:80", ""},
		{lan, "http://[fd00:ec2::254]/", "", guard.Metadata},
		{&guard.Policy{Allow: prefixes("0.0.0.0/0")}, "https://169.254.169.254/", "", guard.Metadata},
		{&guard.Policy{Allow: prefixes("169.254.169.254/32")}, "https://169.254.169.254/", "169.254.169.254:443", ""},
	} {
		host, err := tc.policy.CheckURL(tc.url)
		if host != tc.want {
			t.Errorf("CheckURL(%q) = %q, %v; want %q", tc.url, host, err, tc.want)
		}
		if tc.reason != "" {
			wantRefusal(t, tc.url, err, tc.reason, "*")
		}
	}
}

func TestARefusalNeverRepeatsPathQueryOrUserInfo(t *testing.T) {
	for _, raw := range []string{
		"http://shop.example/s3cret", "https://u:s3cret@shop.example/", "https://shop.example/%zz?token=s3cret", "https://10.0.0.1/?token=s3cret",
		"https://shop.example:99999/?token=s3cret", "s3cret", "https://shop.example/s3cret#", "https://s3cret\x00/",
	} {
		if _, err := new(guard.Policy).CheckURL(raw); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("CheckURL(%q): %v", raw, err)
		}
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{"https://shop.example:443/a?b=c", "https://[::ffff:1.2.3.4]/", "https://１２７.1/", "https://bücher.example./", "https://x@y/", "https://0x7f.1/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		policy := new(guard.Policy)
		host, err := policy.CheckURL(raw)
		if err != nil {
			if refusal := (*guard.Refusal)(nil); !errors.As(err, &refusal) {
				t.Fatalf("%q: %T is not a Refusal", raw, err)
			}
			return
		}
		if again, err := policy.CheckURL("https://" + host); again != host {
			t.Errorf("%q gives %q, which gives %q, %v", raw, host, again, err)
		}
		if target, err := netip.ParseAddrPort(host); err == nil {
			if err := policy.Permit(target); err != nil {
				t.Errorf("%q passes as %s, which would be refused: %v", raw, host, err)
			}
		}
	})
}

func prefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range text {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// wantRefusal holds err to be a refusal with that reason; setting "*" stands
// for any.
func wantRefusal(t *testing.T, what string, err error, reason guard.Reason, setting string) {
	t.Helper()
	var refusal *guard.Refusal
	switch {
	case !errors.As(err, &refusal):
		t.Errorf("%.60q: %v, want it refused", what, err)
	case refusal.Reason != reason || setting != "*" && refusal.Setting != setting:
		t.Errorf("%.60q: refused as %s (setting %q): %v; want %s (setting %q)", what, refusal.Reason, refusal.Setting, err, reason, setting)
	case !strings.Contains(err.Error(), refusal.Setting):
		t.Errorf("%.60q: %q does not name the setting %s", what, err, refusal.Setting)
	}
}
