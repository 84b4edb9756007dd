package guard

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxURL is the longest callback URL, in bytes.
const maxURL = 8192

// CheckURL reads a callback URL and returns where it points as host:port, in
// lower case, names in their ASCII form and the port always there: the key of
// its delivery lane. Its error is a *Refusal.
//
// Passing here promises nothing about what a name resolves to; Dialer judges
// that at every dial.
func (p *Policy) CheckURL(raw string) (host string, err error) {
	if err := checkText(raw); err != nil {
		return "", err
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", refuse(Malformed, "", "it is not a URL") // err repeats the URL
	}
	if err := p.checkShape(u); err != nil {
		return "", err
	}
	port, err := p.checkPort(u)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(u.Host, "[") {
		return p.checkLiteral(u.Hostname(), port)
	}
	return p.checkName(u.Hostname(), port)
}

// checkText refuses what programs read in different ways, before any of them
// reads it.
func checkText(raw string) error {
	if len(raw) > maxURL {
		return refuse(TooLong, "", "it is longer than %d bytes", maxURL)
	}
	if !utf8.ValidString(raw) {
		return refuse(BadCharacter, "", "it is not UTF-8")
	}
	for i := range len(raw) {
		switch c := raw[i]; {
		case c <= ' ', c == 0x7f, c == '\\':
			return refuse(BadCharacter, "", "it contains a space, a control character or a backslash")
		case c == '#':
			return refuse(Fragment, "", "it has a fragment")
		case c == '%' && escapesControl(raw[i+1:]):
			return refuse(BadCharacter, "", "it contains an escaped control character")
		}
	}
	return nil
}

// escapesControl reports whether s, which follows a %, stands for a control
// character.
func escapesControl(s string) bool {
	if len(s) < 2 {
		return false
	}
	c, err := strconv.ParseUint(s[:2], 16, 8)
	return err == nil && (c < ' ' || c == 0x7f)
}

func (p *Policy) checkShape(u *url.URL) error {
	switch {
	case u.Scheme == "":
		return refuse(Malformed, "", "it is not an absolute URL")
	case u.Scheme == "http" && !p.AllowHTTP:
		return refuse(Scheme, settingHTTP, "http is not permitted; use https")
	case u.Scheme != "https" && u.Scheme != "http":
		return refuse(Scheme, "", "its scheme is not https")
	case u.Opaque != "" || u.Hostname() == "":
		return refuse(Malformed, "", "it has no host")
	case u.User != nil:
		return refuse(UserInfo, "", "it contains user info; send credentials in callback_headers")
	}
	return nil
}

func (p *Policy) checkPort(u *url.URL) (uint16, error) {
	text := u.Port()
	if text == "" {
		if strings.HasSuffix(u.Host, ":") {
			return 0, refuse(Port, "", "its port is empty")
		}
		if u.Scheme == "http" {
			return 80, nil
		}
		return 443, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || text[0] == '0' {
		return 0, refuse(Port, "", "its port is not a number from 1 to 65535")
	}
	return uint16(n), p.permitPort(uint16(n))
}

// checkLiteral judges an address written as such.
func (p *Policy) checkLiteral(text string, port uint16) (string, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return "", refuse(Malformed, "", "its host is not an address")
	}
	target := netip.AddrPortFrom(addr.Unmap(), port)
	if err := p.Permit(target); err != nil {
		return "", err
	}
	return target.String(), nil
}

func (p *Policy) checkName(text string, port uint16) (string, error) {
	name, err := normalName(text)
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return p.checkLiteral(name, port)
	}
	name = strings.TrimSuffix(name, ".")
	if endsInNumber(name) {
		return "", refuse(NumericHost, "", "its host is a number, but not an address in its usual spelling")
	}
	if err := checkLabels(name); err != nil {
		return "", err
	}
	if isLocalhost(name) && !p.allowsLoopback() || isPrivateName(name) && len(p.Allow) == 0 {
		return "", refuse(LocalName, settingAllow, "its host is a name of a local network")
	}
	return name + ":" + strconv.Itoa(int(port)), nil
}
