package guard_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/callbatch/callbatch/callback/guard"
)

func TestOnlyGloballyRoutableAddressesArePermitted(t *testing.T) {
	for _, text := range []string{
		// Edges of the refused ranges and ordinary addresses between them.
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.254", "100.128.0.1", "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.1",
		"172.15.255.255", "172.32.0.1", "192.0.1.1", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.1", "198.17.255.255", "198.20.0.0", "203.0.112.255",
		"203.0.114.0", "223.255.255.255", "2606:4700::1111", "2a00:1450::1", "2001:200::1", "2003::1", "3ffe::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8", "2a00::5efe:8.8.8.8",
	} {
		if err := new(guard.Policy).Permit(at(text, 443)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.0.1", "172.16.0.1", "172.31.255.255",
		"192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
		"239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
		"100::1", "5f00::1", "fc00::1", "fdff::1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "2001::1", "2001:db8::1", "2001:2::1", "3fff::1",
		"64:ff9b:1::8.8.8.8", "fe80::5efe:8.8.8.8", "2a00::5efe:10.0.0.1", "2a00::200:5efe:127.0.0.1",
	} {
		wantRefusal(t, text, new(guard.Policy).Permit(at(text, 443)), guard.Address, "callbacks.allow")
	}
	wantRefusal(t, "zone", new(guard.Policy).Permit(at("fe80::1%eth0", 443)), guard.Zone, "")
	wantRefusal(t, "no address", new(guard.Policy).Permit(netip.AddrPortFrom(netip.Addr{}, 443)), guard.Malformed, "")
}

func TestMetadataServicesAreReachedByTheirOwnAddressOnly(t *testing.T) {
	around := &guard.Policy{Allow: prefixes("0.0.0.0/0", "::/0")}
	for _, text := range []string{
		"169.254.169.254", "169.254.170.2", "169.254.170.23", "168.63.129.16", "100.100.100.200", "169.254.0.23", "192.0.0.192", "169.254.42.42",
		"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "fe80::a9fe:a9fe",
	} {
		addr := netip.MustParseAddr(text)
		wantRefusal(t, text, new(guard.Policy).Permit(at(text, 80)), guard.Metadata, "callbacks.allow")
		wantRefusal(t, text, around.Permit(at(text, 80)), guard.Metadata, "callbacks.allow")
		named := &guard.Policy{Allow: []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}}
		if err := named.Permit(at(text, 80)); err != nil {
			t.Errorf("%s is allowed by name, yet: %v", text, err)
		}
		if !addr.Is4() {
			continue
		}
		for _, name := range []string{"IPv4-mapped", "NAT64"} {
			wantRefusal(t, name+" "+text, around.Permit(netip.AddrPortFrom(wrappings[name](addr), 80)), guard.Metadata, "callbacks.allow")
		}
	}
}

func TestAnAllowedIPv4NetworkIsNotReachedThroughIPv6(t *testing.T) {
	inside := func(p *guard.Policy, wrapping, inner string) error {
		return p.Permit(netip.AddrPortFrom(wrappings[wrapping](netip.MustParseAddr(inner)), 443))
	}
	for _, inner := range []string{"127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8"} {
		listed := netip.PrefixFrom(netip.MustParseAddr(inner), 32)
		for name := range wrappings {
			none := inside(new(guard.Policy), name, inner)
			err := inside(&guard.Policy{Allow: []netip.Prefix{listed}}, name, inner)
			if name == "IPv4-mapped" {
				none = nil // it is dialled as the IPv4 address
			}
			if (err == nil) != (none == nil) {
				t.Errorf("%s as %s with %s allowed: %v, with nothing allowed: %v", inner, name, listed, err, none)
			}
		}
	}
	for _, c := range []struct {
		wrapping, inner, allow string
		want                   guard.Reason // "": permitted
	}{
		{"NAT64", "127.0.0.1", "64:ff9b::/96", ""},
		{"NAT64", "127.0.0.1", "64:ff9b::7f00:1/128", ""},
		{"NAT64", "127.0.0.1", "64:ff9b::7f00:2/128", guard.Address},
		{"ISATAP", "10.0.0.1", "2a00::/16", ""},
		{"ISATAP", "10.0.0.1", "10.0.0.0/8", guard.Address},
		{"IPv4-mapped", "127.0.0.1", "127.0.0.0/8", ""},
		{"IPv4-mapped", "127.0.0.1", "::/0", guard.Address},
		{"NAT64", "169.254.169.254", "64:ff9b::/96", guard.Metadata},
		{"NAT64", "169.254.169.254", "169.254.169.254/32", guard.Metadata},
		{"NAT64", "169.254.169.254", "64:ff9b::a9fe:a9fe/128", ""},
		{"ISATAP", "169.254.169.254", "2a00::/16", guard.Metadata},
	} {
		err := inside(&guard.Policy{Allow: prefixes(c.allow)}, c.wrapping, c.inner)
		if what := c.inner + " as " + c.wrapping + " with " + c.allow; c.want != "" {
			wantRefusal(t, what, err, c.want, "callbacks.allow")
		} else if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Dozzle's webhook guard trusted net.IP.IsPrivate and its kin, which look past
// IPv4 addresses wrapped by transition mechanisms.
func TestCVE_2026_73087_DozzleTransitionAddresses(t *testing.T) {
	refusesWrapped(t, "127.0.0.1", "10.0.0.1", "192.168.0.1", "169.254.169.254")
}

// Cloudreve's guard had the same gap.
func TestCVE_2026_79913_CloudreveTransitionAddresses(t *testing.T) {
	refusesWrapped(t, "172.16.0.1", "100.64.0.1", "100.100.100.200")
}

// So had that of the MCP registry.
func TestCVE_2026_44430_MCPRegistryTransitionAddresses(t *testing.T) {
	refusesWrapped(t, "127.0.0.1", "192.0.0.192", "198.18.0.1", "0.1.2.3", "240.0.0.1")
}

// refusesWrapped holds that none of the IPv4 addresses is reached through IPv6.
func refusesWrapped(t *testing.T, inner ...string) {
	t.Helper()
	for _, text := range inner {
		for name, wrap := range wrappings {
			addr := wrap(netip.MustParseAddr(text))
			if err := new(guard.Policy).Permit(netip.AddrPortFrom(addr, 443)); err == nil {
				t.Errorf("%s reaches %s by %s", addr, text, name)
			}
			if host, err := new(guard.Policy).CheckURL("https://[" + addr.String() + "]/"); err == nil {
				t.Errorf("%s reaches %s by %s, and passes as a URL: %s", addr, text, name, host)
			}
		}
	}
}

// wrappings are the ways an IPv4 address travels inside an IPv6 one.
var wrappings = map[string]func(netip.Addr) netip.Addr{
	"IPv4-mapped":     embed("::ffff:0:0", 12),
	"IPv4-compatible": embed("::", 12),
	"SIIT":            embed("::ffff:0:0:0", 12),
	"NAT64":           embed("64:ff9b::", 12),
	"local NAT64":     embed("64:ff9b:1::", 12),
	"6to4":            embed("2002::", 2),
	"Teredo server":   embed("2001::", 4),
	"Teredo client": func(a netip.Addr) netip.Addr {
		b := a.As4()
		return embed("2001::", 12)(netip.AddrFrom4([4]byte{^b[0], ^b[1], ^b[2], ^b[3]}))
	},
	"ISATAP":            embed("2a00::5efe:0:0", 12),
	"link-local ISATAP": embed("fe80::5efe:0:0", 12),
}

// embed puts the four bytes of an address at offset into the prefix.
func embed(prefix string, offset int) func(netip.Addr) netip.Addr {
	return func(inner netip.Addr) netip.Addr {
		outer, four := netip.MustParseAddr(prefix).As16(), inner.As4()
		copy(outer[offset:], four[:])
		return netip.AddrFrom16(outer)
	}
}

func TestWrappedAddressesInheritTheVerdictOrAreRefused(t *testing.T) {
	inherits := map[string]bool{"IPv4-mapped": true, "NAT64": true, "ISATAP": true}
	rapid.Check(t, func(t *rapid.T) {
		inner := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "inner")))
		plain := new(guard.Policy).Permit(netip.AddrPortFrom(inner, 443)) == nil
		for name, wrap := range wrappings {
			want := plain && inherits[name]
			if got := new(guard.Policy).Permit(netip.AddrPortFrom(wrap(inner), 443)) == nil; got != want {
				t.Errorf("%s wrapped as %s: permitted %t, want %t", inner, name, got, want)
			}
		}
	})
}

func TestOnlyGlobalUnicastIsPermitted(t *testing.T) {
	var (
		unicast = netip.MustParsePrefix("2000::/3")
		inherit = prefixes("::ffff:0:0/96", "64:ff9b::/96")
		never   = prefixes("2002::/16", "2001::/32", "2001:db8::/32", "3fff::/20")
		drawn   = append(append(prefixes("::/0", "::/8", "::/64", "::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "64:ff9b::/32", "fc00::/7", "fe80::/9", "ff00::/8"), inherit...), never...)
	)
	within := func(addr netip.Addr, nets []netip.Prefix) bool {
		return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(addr) })
	}
	rapid.Check(t, func(t *rapid.T) {
		b := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
		prefix := rapid.SampledFrom(drawn).Draw(t, "prefix")
		head := prefix.Addr().As16()
		for i := range prefix.Bits() {
			mask := byte(0x80) >> (i % 8)
			b[i/8] = b[i/8]&^mask | head[i/8]&mask
		}
		addr := netip.AddrFrom16(b)
		permitted := new(guard.Policy).Permit(netip.AddrPortFrom(addr, 443)) == nil
		switch inner := netip.AddrFrom4([4]byte(b[12:])); {
		case within(addr, inherit):
			if want := new(guard.Policy).Permit(netip.AddrPortFrom(inner, 443)) == nil; permitted != want {
				t.Errorf("%s: permitted %t, %s inside it %t", addr, permitted, inner, want)
			}
		case permitted && (!unicast.Contains(addr) || within(addr, never)):
			t.Errorf("%s is permitted", addr)
		}
	})
}

func TestNoCallbackReachesOurOwnListener(t *testing.T) {
	own := ownAddress(t)
	for _, tc := range []struct {
		listener, target string
		refused          bool
	}{
		{"127.0.0.1:8080", "127.0.0.1:8080", true},
		{"127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", true},
		{"[::ffff:127.0.0.1]:8080", "127.0.0.1:8080", true},
		{"127.0.0.1:8080", "0.0.0.0:8080", true},
		{"127.0.0.1:8080", "127.0.0.1:8081", false},
		{"127.0.0.1:8080", "127.0.0.2:8080", false},
		{"0.0.0.0:8080", "127.0.0.9:8080", true},
		{"[::]:8080", "127.0.0.1:8080", true},
		{"[::]:8080", "[::1]:8080", true},
		{"[::]:8080", netip.AddrPortFrom(own, 8080).String(), true},
		{"[::]:8080", "203.0.114.9:8080", false},
		{"203.0.114.9:8080", "[64:ff9b::203.0.114.9]:8080", true},
	} {
		policy := &guard.Policy{AnyPort: true, Allow: prefixes("0.0.0.0/0", "::/0")}
		policy.SetSelf(netip.MustParseAddrPort("192.0.2.1:1"))
		policy.SetSelf(netip.MustParseAddrPort(tc.listener))
		err := policy.Permit(netip.MustParseAddrPort(tc.target))
		if tc.refused {
			wantRefusal(t, tc.target, err, guard.OwnListener, "")
		} else if err != nil {
			t.Errorf("listening on %s, calling %s: %v", tc.listener, tc.target, err)
		}
	}
}

// ownAddress returns an address of this machine, the least special there is.
func ownAddress(t *testing.T) netip.Addr {
	t.Helper()
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	best := netip.MustParseAddr("127.0.0.1")
	for _, a := range own {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			best = p.Addr()
		}
	}
	return best
}

func at(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}
