package callback

import (
	"net/http"
	"strconv"
)

// HostState is how the host of a receiver did in one attempt, for whoever
// decides whether to try it again soon. What an application says there is
// another matter: it may refuse everything on a host that is up.
type HostState uint8

const (
	HostUnknown     HostState = iota // nothing was learned
	HostUp                           // it answered, below 500
	HostDown                         // connected, but no usable answer, or one of 500 and above
	HostUnreachable                  // not resolved, not connected, or its TLS refuses us; whoever asks
)

func (h HostState) String() string {
	switch h {
	case HostUnknown:
		return "unknown"
	case HostUp:
		return "up"
	case HostDown:
		return "down"
	case HostUnreachable:
		return "unreachable"
	}
	return "HostState(" + strconv.Itoa(int(h)) + ")"
}

// Host says how the receiver's host did.
func (r Result) Host() HostState {
	switch {
	case r.Status >= http.StatusInternalServerError:
		return HostDown
	case r.Status != 0:
		return HostUp
	}
	switch r.Category {
	case CategoryTimeout, CategoryTooLarge:
		return HostDown
	case CategoryDNS:
		return HostUnreachable
	case CategoryTLS: // else it may be one that speaks plain HTTP, and up for whoever does
		if r.SpokeTLS {
			return HostUnreachable
		}
		return HostDown
	case CategoryConnect:
		if r.Connected {
			return HostDown
		}
		return HostUnreachable
	}
	return HostUnknown
}
