// Package guard decides where a callback may point, so that nobody can make
// the server talk to its own network on their behalf.
//
// Two checks serve two purposes. [Policy.CheckURL] reads the text of a URL: it
// is a courtesy that tells a client at once what will never work. The real one
// is [Dialer], which judges the addresses a name resolves to at the moment of
// every dial, all of them, and once more the one the socket is about to
// connect to. What a name meant an hour ago, or meant to another resolver,
// plays no part, so rebinding gains nothing.
//
// The zero [Policy] is the strictest: https, ports 80 and 443, and only
// addresses the IANA registries call globally routable. A [Refusal] says why,
// and which setting of the operator would permit it. It never repeats the path
// or query of a URL, nor the address a name resolved to.
package guard

import (
	"net"
	"net/netip"
	"slices"
	"sync/atomic"

	"code.dny.dev/ssrf"
)

// Policy is what the operator allows. It is safe for concurrent use once its
// fields are set; a changed policy is a new Policy, for connections are kept
// open under the one that permitted them.
type Policy struct {
	// AllowHTTP permits http besides https (callbacks.allow_http).
	AllowHTTP bool

	// Allow lists networks that may be called though they are not globally
	// routable (callbacks.allow). An entry speaks of addresses as they are
	// dialled, an IPv4-mapped one as IPv4: 127.0.0.0/8 permits no IPv6 address
	// that leads there. Cloud metadata addresses are reached only by
	// naming the one address, not by a network around it. With a loopback
	// network listed, localhost names are permitted; with any network listed,
	// so are names of private zones, and what they resolve to decides.
	Allow []netip.Prefix

	// Ports lists ports permitted besides 80 and 443 (callbacks.ports).
	Ports []uint16

	// AnyPort permits every port. It is meant for development.
	AnyPort bool

	self atomic.Pointer[[]netip.AddrPort]
}

// SetSelf names the addresses this process listens on, which no callback may
// reach, whatever else is allowed. It may be called at any time, as listeners
// bind after the policy is made, and replaces what it was told before. An
// unspecified address (0.0.0.0, ::) stands for every address of this machine.
func (p *Policy) SetSelf(listeners ...netip.AddrPort) {
	self := make([]netip.AddrPort, len(listeners))
	for i, l := range listeners {
		self[i] = netip.AddrPortFrom(l.Addr().Unmap(), l.Port())
	}
	p.self.Store(&self)
}

// Permit judges the address of a connection about to be opened. Its error is a
// *Refusal.
func (p *Policy) Permit(target netip.AddrPort) error {
	if err := p.permitPort(target.Port()); err != nil {
		return err
	}
	if err := p.permitAddr(target.Addr()); err != nil {
		return err
	}
	if p.isSelf(target) {
		return refuse(OwnListener, "", "it is an address this server itself listens on")
	}
	return nil
}

func (p *Policy) permitPort(port uint16) error {
	switch {
	case port == 0:
		return refuse(Port, "", "port 0 does not exist")
	case port == 80, port == 443, p.AnyPort, slices.Contains(p.Ports, port):
		return nil
	}
	return refuse(Port, settingPorts, "port %d is not permitted", port)
}

func (p *Policy) permitAddr(addr netip.Addr) error {
	if !addr.IsValid() {
		return refuse(Malformed, "", "its host is not an address")
	}
	if addr.Zone() != "" {
		return refuse(Zone, "", "an address with a zone belongs to one machine's own links")
	}
	addr = addr.Unmap()
	inner, _ := embedded(addr)
	if slices.Contains(metadata, addr) || slices.Contains(metadata, inner) {
		if slices.Contains(p.Allow, netip.PrefixFrom(addr, addr.BitLen())) {
			return nil
		}
		return refuse(Metadata, settingAllow, "it is the address of a cloud's metadata service")
	}
	if p.allows(addr) || routable(addr) {
		return nil
	}
	return refuse(Address, settingAllow, "the address is not globally routable")
}

// routable reports whether an address is globally routable, and the IPv4
// address inside it as well. A NAT64 one is if the latter is.
func routable(addr netip.Addr) bool {
	inner, ok := embedded(addr)
	if ok && public.SafeAddr(inner) != nil {
		return false
	}
	return nat64.Contains(addr) || public.SafeAddr(addr) == nil
}

// allows reports whether the operator listed a network addr is in.
func (p *Policy) allows(addr netip.Addr) bool {
	return slices.ContainsFunc(p.Allow, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// allowsLoopback reports whether the operator listed a part of the loopback
// networks, or all of them.
func (p *Policy) allowsLoopback() bool {
	return slices.ContainsFunc(p.Allow, func(n netip.Prefix) bool {
		return n.Overlaps(loopback4) || n.Contains(netip.IPv6Loopback())
	})
}

// isSelf reports whether connecting to target would reach a listener of ours.
func (p *Policy) isSelf(target netip.AddrPort) bool {
	listeners := p.self.Load()
	if listeners == nil {
		return false
	}
	addr := reached(target.Addr())
	return slices.ContainsFunc(*listeners, func(l netip.AddrPort) bool {
		if l.Port() != target.Port() {
			return false
		}
		// Connecting to an unspecified address reaches this machine.
		return l.Addr() == addr || addr.IsUnspecified() || l.Addr().IsUnspecified() && isLocal(addr)
	})
}

// isLocal reports whether addr is one of this machine's. If its interfaces
// cannot be listed it says yes.
func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == addr
	})
}

var (
	public    = ssrf.New()
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	nat64     = netip.MustParsePrefix("64:ff9b::/96")

	// metadata lists the addresses where clouds hand credentials to whoever
	// asks. Some of them are globally routable as far as IANA knows.
	metadata = []netip.Addr{
		netip.MustParseAddr("169.254.169.254"), // AWS, Google Cloud, Azure and others
		netip.MustParseAddr("169.254.170.2"),   // AWS ECS
		netip.MustParseAddr("169.254.170.23"),  // AWS EKS
		netip.MustParseAddr("fd00:ec2::254"),   // AWS
		netip.MustParseAddr("fd00:ec2::23"),    // AWS EKS
		netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
		netip.MustParseAddr("168.63.129.16"),   // Azure
		netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
		netip.MustParseAddr("169.254.0.23"),    // Tencent Cloud
		netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
		netip.MustParseAddr("169.254.42.42"),   // Scaleway
		netip.MustParseAddr("fd00:42::42"),     // Scaleway
		netip.MustParseAddr("fe80::a9fe:a9fe"), // OpenStack
	}
)

// reached returns the address that is truly reached by connecting to addr: the
// IPv4 address inside an IPv4-mapped or a NAT64 one.
func reached(addr netip.Addr) netip.Addr {
	if addr = addr.Unmap(); nat64.Contains(addr) {
		return lastFour(addr)
	}
	return addr
}

// embedded returns the IPv4 address inside a NAT64 one, or that an ISATAP
// interface identifier names (RFC 5214); the prefix before it may be anybody's.
// Other wrappings (::/96, SIIT, 6to4, Teredo) are not globally routable and
// need no unwrapping.
func embedded(addr netip.Addr) (inner netip.Addr, ok bool) {
	if !addr.Is6() {
		return netip.Addr{}, false
	}
	b := addr.As16()
	isatap := b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
	if !isatap && !nat64.Contains(addr) {
		return netip.Addr{}, false
	}
	return lastFour(addr), true
}

func lastFour(addr netip.Addr) netip.Addr {
	b := addr.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}
