package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	defaultDialTimeout = 10 * time.Second
	maxDialled         = 8 // of the addresses a name resolves to
)

// Resolver finds the addresses of a name. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Dialer opens TCP connections to where its policy permits. The zero value
// works.
type Dialer struct {
	// Policy to judge by; nil means the strictest.
	Policy *Policy

	// Timeout of looking a name up and connecting, together; 0 means 10 s.
	// It holds even if the context has no deadline.
	Timeout time.Duration

	// Resolver; nil means Go's own with the system's configuration.
	Resolver Resolver
}

// DialContext connects to host:port. It resolves a name itself, as an absolute
// one so that no search domain applies, and if any of its addresses is refused
// dials none. The error is a *Refusal, a *net.DNSError, a *net.OpError or that
// of the context, perhaps wrapped.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = defaultDialTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	targets, err := d.resolve(ctx, network, address)
	if err != nil {
		return nil, err
	}
	var firstErr error
	for i, target := range targets {
		conn, err := d.dial(ctx, network, target, len(targets)-i)
		if err == nil {
			return conn, nil
		}
		if refusal := (*Refusal)(nil); errors.As(err, &refusal) {
			return nil, err
		}
		if firstErr == nil {
			firstErr = err
		}
	}
	return nil, firstErr
}

// ControlContext judges a socket about to connect. It fits
// net.Dialer.ControlContext; DialContext uses it, too, as its last word.
func (d *Dialer) ControlContext(_ context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return refuse(Network, "", "only TCP is permitted")
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return refuse(Malformed, "", "its host is not an address")
	}
	return d.policy().Permit(target)
}

func (d *Dialer) policy() *Policy {
	if d.Policy == nil {
		return new(Policy)
	}
	return d.Policy
}

// dial connects to one address. It has its share of the time that is left, the
// others still to be tried counted in.
func (d *Dialer) dial(ctx context.Context, network string, target netip.AddrPort, left int) (net.Conn, error) {
	dialer := net.Dialer{ControlContext: d.ControlContext}
	if deadline, ok := ctx.Deadline(); ok {
		dialer.Timeout = max(time.Until(deadline)/time.Duration(left), time.Millisecond)
	}
	return dialer.DialContext(ctx, network, target.String())
}

// resolve returns the addresses to try, all of them permitted.
func (d *Dialer) resolve(ctx context.Context, network, address string) ([]netip.AddrPort, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, refuse(Malformed, "", "it is not a host and a port")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, refuse(Port, "", "its port is not a number from 1 to 65535")
	}
	if err := d.policy().permitPort(uint16(port)); err != nil {
		return nil, err // before the name is looked up: it need not be
	}
	addrs, err := d.addresses(ctx, network, host)
	if err != nil {
		return nil, err
	}
	targets := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		targets[i] = netip.AddrPortFrom(addr.Unmap(), uint16(port))
		if err := d.policy().Permit(targets[i]); err != nil {
			return nil, err
		}
	}
	return targets[:min(len(targets), maxDialled)], nil
}

// addresses returns what host stands for, at least one.
func (d *Dialer) addresses(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if isLocalhost(name) {
		return d.localhost(), nil
	}
	resolver := d.Resolver
	if resolver == nil {
		resolver = &net.Resolver{PreferGo: true} // cgo's would accept numeric spellings
	}
	addrs, err := resolver.LookupNetIP(ctx, "ip"+strings.TrimPrefix(network, "tcp"), name+".")
	if err != nil {
		return nil, fmt.Errorf("resolve: %w", err)
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// localhost answers for the localhost names without asking anybody (RFC 6761):
// with the loopback addresses the operator allows, or with one that is refused.
func (d *Dialer) localhost() []netip.Addr {
	v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	allowed := slices.DeleteFunc([]netip.Addr{v4, v6}, func(a netip.Addr) bool { return !d.policy().allows(a) })
	if len(allowed) == 0 {
		return []netip.Addr{v4}
	}
	return allowed
}
