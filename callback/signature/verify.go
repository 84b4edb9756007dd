package signature

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultTolerance is how far the time of an attempt may lie from now, either
// way. Every official Standard Webhooks library uses it.
const DefaultTolerance = 5 * time.Minute

// maxUnix keeps arithmetic on a stranger's time far from overflow.
const maxUnix = 1 << 40

// What Verify may find wrong. ErrCommaList, ErrNoVersion and ErrBodyChanged
// explain an ErrNoMatch and come wrapped together with it.
var (
	ErrNoSecret       = errors.New("no secret to verify with")
	ErrMissingHeader  = errors.New("header missing")
	ErrRepeatedHeader = errors.New("header sent more than once")
	ErrBadTimestamp   = errors.New(HeaderTimestamp + " is not a number of seconds")
	ErrTooOld         = errors.New("message is too old")
	ErrTooNew         = errors.New("message is from the future")
	ErrNoMatch        = errors.New("no signature matches")
	ErrCommaList      = errors.New("signatures are joined by commas; they must be separated by spaces")
	ErrNoVersion      = errors.New("none of the signatures is of version " + version)
	ErrBodyChanged    = errors.New("the body is not the one " + HeaderDigest + " describes: verify the bytes as received, before any parsing")
)

// Verify reports whether body was sent, within tolerance of now, by somebody
// who holds one of the secrets. A tolerance of 0 means DefaultTolerance; a
// negative one leaves the time unchecked. It compares in constant time.
func Verify(header http.Header, body []byte, now time.Time, tolerance time.Duration, secrets ...Secret) error {
	var id, stamp, signatures string
	for _, h := range []struct {
		name  string
		value *string
	}{{HeaderID, &id}, {HeaderTimestamp, &stamp}, {HeaderSignature, &signatures}} {
		v, err := single(header, h.name)
		if err != nil {
			return err
		}
		*h.value = v
	}

	sent, err := parseTime(stamp)
	if err != nil {
		return err
	}
	if err := checkTime(sent, now, tolerance); err != nil {
		return err
	}
	matched, err := matches(signatures, signedHead(id, stamp), body, secrets)
	if err != nil || matched {
		return err
	}
	return explain(header, body, signatures)
}

func single(header http.Header, name string) (string, error) {
	switch values := header.Values(name); {
	case len(values) > 1:
		return "", fmt.Errorf("%w: %s", ErrRepeatedHeader, name)
	case len(values) == 0 || values[0] == "":
		return "", fmt.Errorf("%w: %s", ErrMissingHeader, name)
	default:
		return values[0], nil
	}
}

func parseTime(stamp string) (time.Time, error) {
	switch unix, err := strconv.ParseInt(stamp, 10, 64); {
	case err != nil || unix < 0:
		return time.Time{}, ErrBadTimestamp
	case unix > maxUnix:
		return time.Time{}, fmt.Errorf("%w: it looks like milliseconds or less", ErrBadTimestamp)
	default:
		return time.Unix(unix, 0), nil
	}
}

func checkTime(sent, now time.Time, tolerance time.Duration) error {
	if tolerance < 0 {
		return nil
	}
	if tolerance == 0 {
		tolerance = DefaultTolerance
	}
	switch age := now.Sub(sent); {
	case age > tolerance:
		return fmt.Errorf("%w: sent %s ago, %s is allowed", ErrTooOld, age.Round(time.Second), tolerance)
	case age < -tolerance:
		return fmt.Errorf("%w: sent %s ahead of this clock, %s is allowed", ErrTooNew, -age.Round(time.Second), tolerance)
	}
	return nil
}

// matches compares every signature with that of every secret.
func matches(signatures string, head, body []byte, secrets []Secret) (bool, error) {
	usable, found := 0, 0
	var buf [macLength]byte
	for _, s := range secrets {
		if s.key == nil {
			continue
		}
		usable++
		want := appendMAC(buf[:0], s, head, body)
		for entry := range strings.SplitSeq(signatures, " ") {
			if got, ok := strings.CutPrefix(entry, version+","); ok {
				found |= subtle.ConstantTimeCompare([]byte(got), want)
			}
		}
	}
	if usable == 0 {
		return false, ErrNoSecret
	}
	return found == 1, nil
}

// explain says why nothing matched, as far as that can be known.
func explain(header http.Header, body []byte, signatures string) error {
	versions := 0
	for entry := range strings.SplitSeq(signatures, " ") {
		if strings.Count(entry, ",") > 1 {
			return fmt.Errorf("%w: %w", ErrNoMatch, ErrCommaList)
		}
		if strings.HasPrefix(entry, version+",") {
			versions++
		}
	}
	if versions == 0 {
		return fmt.Errorf("%w: %w", ErrNoMatch, ErrNoVersion)
	}
	if agrees, known := CheckDigest(header, body); known && !agrees {
		return fmt.Errorf("%w: %w", ErrNoMatch, ErrBodyChanged)
	}
	return ErrNoMatch
}

// CheckDigest reports whether body is the one content-digest describes. It is
// not known where the header has no sha-256, and proves nothing of the sender.
func CheckDigest(header http.Header, body []byte) (agrees, known bool) {
	want := ContentDigest(body)
	algorithm, _, _ := strings.Cut(want, ":")
	for _, list := range header.Values(HeaderDigest) {
		for member := range strings.SplitSeq(list, ",") {
			member = strings.TrimSpace(member)
			if strings.HasPrefix(member, algorithm+":") {
				agrees, known = member == want, true // RFC 8941: the last one counts
			}
		}
	}
	return agrees, known
}
