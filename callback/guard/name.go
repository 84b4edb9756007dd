package guard

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxName  = 253
	maxLabel = 63
)

// lookup maps names as browsers and net/http do before they resolve them, so
// that 127。0。0。１ is judged as the 127.0.0.1 it would become. Its ASCII rules
// are left to checkLabels, which permits underscores.
var lookup = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// normalName returns a host name in lower case and ASCII.
func normalName(text string) (string, error) {
	name, err := lookup.ToASCII(text)
	if err != nil || name == "" || !utf8.ValidString(text) { // an escaped byte may be anything
		return "", refuse(BadName, "", "its host is not a valid name")
	}
	return name, nil
}

// checkLabels holds a name, without its final dot, to the rules of DNS.
func checkLabels(name string) error {
	if len(name) > maxName {
		return refuse(BadName, "", "its host is longer than %d characters", maxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return refuse(BadName, "", "its host is not a valid name")
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return refuse(BadName, "", "its host is not a valid name")
			}
		}
	}
	return nil
}

// endsInNumber reports whether the last label is a number, decimal or
// hexadecimal. No such top-level domain exists, and other programs read such a
// host as an IPv4 address.
func endsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		_, err := strconv.ParseUint("0"+hex, 16, 64)
		return err == nil || len(hex) > 15
	}
	return last != "" && strings.Trim(last, "0123456789") == ""
}

func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// isPrivateName reports whether name has a meaning on one network only.
func isPrivateName(name string) bool {
	if isLocalhost(name) {
		return false
	}
	if !strings.Contains(name, ".") {
		return true
	}
	for _, zone := range []string{".local", ".internal", ".svc", ".home.arpa", ".lan", ".localdomain"} {
		if strings.HasSuffix(name, zone) {
			return true
		}
	}
	return false
}
