package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/callbatch/callbatch/callback/signature"
)

// A finding says whether a webhook is to be accepted and, if not, why.
type finding struct {
	Valid  bool   `json:"valid"`
	Reason reason `json:"reason"`
	Detail string `json:"detail"` // for people: what is the matter, and what to do about it
}

// A reason is what a finding comes to.
type reason string

const (
	fits            reason = "fits" // the only good one
	headerMissing   reason = "header_missing"
	headerRepeated  reason = "header_repeated"
	badTimestamp    reason = "bad_timestamp"
	tooOld          reason = "too_old" // but the signature fits; so with too_new
	tooNew          reason = "too_new"
	badSignature    reason = "bad_signature" // the header, not what is in it
	unknownVersion  reason = "unknown_version"
	secretMalformed reason = "secret_malformed" // as it was given
	secretMisread   reason = "secret_misread"   // by whoever signed
	contentMisread  reason = "content_misread"  // likewise: not id, time and body were signed
	bodyChanged     reason = "body_changed"
	noMatch         reason = "no_match" // by no usual mistake
)

// reasons are all that a finding can come to.
var reasons = []reason{
	fits, headerMissing, headerRepeated, badTimestamp, tooOld, tooNew,
	badSignature, unknownVersion, secretMalformed, secretMisread, contentMisread, bodyChanged, noMatch,
}

// A diagnosis is of one webhook.
type diagnosis struct {
	header    http.Header
	body      []byte
	at        time.Time
	tolerance time.Duration // as Verify has it
	secrets   []string      // as they were written, well or not
}

func (d diagnosis) run() finding {
	var secrets []signature.Secret
	for _, text := range d.secrets {
		s, _ := signature.ParseSecret(text) // what is malformed verifies nothing
		secrets = append(secrets, s)
	}
	err := signature.Verify(d.header, d.body, d.at, d.tolerance, secrets...)
	late := errors.Is(err, signature.ErrTooOld) || errors.Is(err, signature.ErrTooNew)
	off := err
	if late { // which matters less than a signature that does not fit at all
		err = signature.Verify(d.header, d.body, d.at, -1, secrets...)
	}
	switch {
	case err == nil && late:
		return d.offTime(off)
	case err == nil:
		return finding{true, fits, strings.Join(d.signers(secrets), " ")}
	case errors.Is(err, signature.ErrMissingHeader):
		return refuse(headerMissing, err, "A webhook has webhook-id, webhook-timestamp and webhook-signature; look for a proxy that drops one, or a log that does.")
	case errors.Is(err, signature.ErrRepeatedHeader):
		return refuse(headerRepeated, err, "Give the headers of one request only.")
	case errors.Is(err, signature.ErrBadTimestamp):
		return refuse(badTimestamp, err, "It has to be whole Unix seconds, such as %d, and the same ones that are signed.", d.at.Unix())
	}
	if m, ok := d.search(); ok {
		return d.explain(err, m)
	}
	return d.giveUp(err)
}

// refuse makes a finding of an error and of what to do about it.
func refuse(why reason, err error, remedy string, args ...any) finding {
	return finding{false, why, capital(err.Error()) + ". " + fmt.Sprintf(remedy, args...)}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// sent is what the webhook says of its time.
func (d diagnosis) sent() time.Time {
	unix, _ := strconv.ParseInt(d.header.Get(signature.HeaderTimestamp), 10, 64) // Verify could
	return time.Unix(unix, 0)
}

// offTime is for a signature that fits, but at another time.
func (d diagnosis) offTime(err error) finding {
	if errors.Is(err, signature.ErrTooNew) {
		return refuse(tooNew, err, "The signature fits. One of the two clocks is wrong: set it by NTP.")
	}
	return refuse(tooOld, err, "The signature fits. If this was kept for a while, verify it as of --at %s or with --tolerance 0; "+
		"if it has just arrived, a clock is wrong, or it was held up or replayed.", d.sent().UTC().Format(time.RFC3339))
}

// signers tells of several secrets which ones signed.
func (d diagnosis) signers(secrets []signature.Secret) []string {
	said := []string{fmt.Sprintf("The signature fits, sent at %s.", d.sent().UTC().Format(time.RFC3339))}
	for i, s := range secrets {
		err := signature.Verify(d.header, d.body, d.at, d.tolerance, s)
		switch _, malformed := signature.ParseSecret(d.secrets[i]); {
		case malformed != nil:
			said = append(said, fmt.Sprintf("Secret %d is %v.", i+1, malformed))
		case len(secrets) > 1 && err == nil:
			said = append(said, fmt.Sprintf("Secret %d signed it.", i+1))
		case len(secrets) > 1:
			said = append(said, fmt.Sprintf("Secret %d did not: who holds only that one refuses it.", i+1))
		}
	}
	return said
}

// explain tells of the mistakes by which the signature would fit.
func (d diagnosis) explain(err error, m match) finding {
	var f finding
	add := func(why reason, format string, args ...any) {
		if f.Reason == "" {
			f.Reason = why
		}
		f.Detail = strings.TrimSpace(f.Detail + " " + fmt.Sprintf(format, args...))
	}
	switch {
	case errors.Is(err, signature.ErrCommaList) && (m.mark == rightMark || m.mark == ""):
		add(badSignature, "The signatures are joined by commas: they have to be separated by spaces. Look for a proxy that joins headers.")
	case m.mark != rightMark && m.mark != "":
		add(unknownVersion, "What stands there is a signature of version v1, but marked %q: write %s and then the signature.", printable(m.mark, 16), rightMark)
	case errors.Is(err, signature.ErrNoVersion):
		add(unknownVersion, "What stands there is a signature of version v1, but not marked as one: write %s and then the signature.", rightMark)
	}
	if m.coding != "" {
		add(badSignature, "The signature is written %s: it has to be the padded standard base64.", m.coding)
	}
	if m.mistake != "" {
		add(m.why, "%s", m.mistake)
	}
	if m.content != "" {
		add(contentMisread, "What was signed is %s. What is to be signed is webhook-id, a dot, webhook-timestamp, a dot, and the body.", m.content)
	}
	if m.how != "" {
		add(bodyChanged, "What was signed is the body %s: it was changed, most likely parsed and written again. "+
			"Verify the bytes as they are received, before any parsing.", m.how)
	}
	if f.Reason == "" {
		add(badSignature, "The signature fits, but the header does not: it is v1, a comma and base64, and a single space before the next.")
	}
	return f
}

// giveUp says what is known where no usual mistake explains the signature.
func (d diagnosis) giveUp(err error) finding {
	agrees, known := signature.CheckDigest(d.header, d.body)
	entries := strings.Fields(d.header.Get(signature.HeaderSignature))
	var f finding
	switch {
	case errors.Is(err, signature.ErrCommaList):
		f = refuse(badSignature, err, "Look for a proxy that joins headers.")
	case errors.Is(err, signature.ErrNoVersion):
		f = refuse(unknownVersion, err, "%s Only v1, HMAC-SHA256 with a whsec_ secret, can be verified.", capital(d.versions()))
	case slices.ContainsFunc(entries, isV1) && !slices.ContainsFunc(entries, isWhole):
		f = refuse(badSignature, signature.ErrNoMatch, "What follows v1 is %s.", unlikeBase64(entries))
	case d.malformed() != nil:
		f = refuse(secretMalformed, d.malformed(), "A secret is whsec_ and the padded standard base64 of 24 to 64 bytes: copy the whole of it.")
	case known && !agrees:
		f = refuse(bodyChanged, signature.ErrNoMatch, "It was changed after it was sent, on its way or here: verify the bytes as they are received, before any parsing.")
	case known:
		f = refuse(noMatch, err, "%s another secret signed it, or the id or the time is not the one that was signed.", d.suspect())
	default:
		f = refuse(noMatch, err, "%s at least one of secret, body, id and time is not the one that was signed.", d.suspect())
	}
	switch {
	case known && !agrees:
		f.Detail += " The body is not the one content-digest describes."
	case known:
		f.Detail += " The body is the one content-digest describes."
	case len(d.body) == 0:
		f.Detail += " The body is empty: it may have been read before."
	}
	if f.Reason == noMatch && len(entries) > 1 {
		f.Detail += fmt.Sprintf(" There are %d signatures, so the secret is being rotated, and none is by what was given: take the new secret.", len(entries))
	}
	return f
}

func isV1(entry string) bool { return strings.HasPrefix(entry, rightMark) }

// isWhole reports whether an entry may be a signature of version v1.
func isWhole(entry string) bool {
	text, marked := strings.CutPrefix(entry, rightMark)
	mac, coding := decodeMAC(text)
	return marked && mac != "" && coding == ""
}

// unlikeBase64 says what follows v1, where none of it is as it has to be.
func unlikeBase64(entries []string) string {
	const right = "the padded standard base64 of 32 bytes"
	for _, entry := range entries {
		text, marked := strings.CutPrefix(entry, rightMark)
		if mac, coding := decodeMAC(text); marked && mac != "" {
			return "written " + coding + ", where it has to be " + right + "; and nothing that was given signed it, however it is read"
		}
	}
	return "not " + right + ": it was cut short or altered"
}

// ownKey is how long the key of a secret is that Callbatch made, in bytes.
const ownKey = 32

// suspect begins to say what is most likely the matter where nothing is known:
// first of all a secret of a length that Callbatch does not make.
func (d diagnosis) suspect() string {
	for i, text := range d.secrets {
		if r := readings(i+1, text)[0]; r.mistake == "" && len(r.key) != ownKey {
			return fmt.Sprintf("Most likely secret %d was not copied exactly: its key is %d bytes long, and Callbatch's own are always %d. Otherwise",
				i+1, len(r.key), ownKey)
		}
	}
	return "Most likely"
}

// malformed is what is wrong with the first secret that is not as it should be.
func (d diagnosis) malformed() error {
	_, err := parseSecrets(d.secrets)
	return err
}

// versions names the versions of the signatures.
func (d diagnosis) versions() string {
	var names []string
	for _, entry := range strings.Fields(d.header.Get(signature.HeaderSignature)) {
		name, _, ok := strings.Cut(entry, ",")
		if mark, _ := cutMark(name); mark != "" {
			name = mark
		} else if !ok {
			name = "none"
		}
		if name = printable(name, 16); !slices.Contains(names, name) && len(names) < 4 {
			names = append(names, name)
		}
	}
	return "it says " + strings.Join(names, ", ") + "."
}

// A reading is one way to make a key of the text of a secret.
type reading struct {
	key     []byte
	why     reason
	mistake string // empty: that is how it is to be read
}

// readings returns the ways in which the text of secret n may have been read,
// the right one first.
func readings(n int, text string) []reading {
	_, err := signature.ParseSecret(text)
	bare := strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(text), "v1,"), "whsec_")
	var all []reading
	add := func(key []byte, why reason, format string, args ...any) {
		all = append(all, reading{key, why, fmt.Sprintf(format, args...)})
	}
	plain := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(bare), "=")
	if key, bad := base64.RawStdEncoding.DecodeString(plain); bad == nil && err == nil {
		add(key, "", "")
	} else if bad == nil {
		wrong := strings.TrimPrefix(err.Error(), signature.ErrSecret.Error()+": ")
		add(key, secretMalformed, "Secret %d signed this, but is wrongly written: %s. It is whsec_ and the padded standard base64 of 24 to 64 bytes.", n, wrong)
	}
	if key, bad := hex.DecodeString(bare); bad == nil {
		add(key, secretMalformed, "Secret %d signed this, but is written in hex. It is whsec_ and the standard base64 of the key.", n)
	}
	if bare == text {
		add([]byte(text), secretMalformed, "The text of secret %d itself was the key. A secret is whsec_ and the standard base64 of the key.", n)
		return all
	}
	add([]byte(text), secretMisread, "Whoever signed took the text of secret %d, whsec_ and all, as the key. The key is what follows whsec_, decoded from base64.", n)
	add([]byte(bare), secretMisread, "Whoever signed took what follows whsec_ in secret %d as the key as it stands. It has to be decoded from base64.", n)
	return all
}
