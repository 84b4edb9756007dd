package signature

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

const (
	secretPrefix = "whsec_"
	redacted     = secretPrefix + "[redacted]"

	newSecretBytes = 32
	minSecretBytes = 24
	maxSecretBytes = 64
)

// ErrSecret is wrapped by every error of ParseSecret.
var ErrSecret = errors.New("not a webhook secret")

// Secret is a symmetric signing key. However it is printed, logged or encoded
// it shows no key; Reveal is the only way out. The zero Secret signs nothing
// and verifies nothing.
type Secret struct {
	// A function, because fmt shows an address for it even where it cannot
	// call our methods: in an unexported field of somebody's struct.
	key func() []byte
}

// NewSecret makes a secret of 32 random bytes.
func NewSecret() Secret {
	key := make([]byte, newSecretBytes)
	rand.Read(key) // never fails: crypto/rand ends the process instead
	return secretOf(key)
}

// ParseSecret reads "whsec_" and the padded standard base64 of 24 to 64 bytes,
// the one spelling every Standard Webhooks library agrees on. Its error says
// what is wrong with any other, and never repeats the secret.
func ParseSecret(text string) (Secret, error) {
	encoded, err := cutPrefix(text)
	if err != nil {
		return Secret{}, err
	}
	if err := checkAlphabet(encoded); err != nil {
		return Secret{}, err
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return Secret{}, fmt.Errorf("%w: what follows %s is not base64", ErrSecret, secretPrefix)
	}
	if len(key) < minSecretBytes || len(key) > maxSecretBytes {
		return Secret{}, fmt.Errorf("%w: the key is %d bytes long, %d to %d are allowed",
			ErrSecret, len(key), minSecretBytes, maxSecretBytes)
	}
	return secretOf(key), nil
}

func secretOf(key []byte) Secret { return Secret{key: func() []byte { return key }} }

func cutPrefix(text string) (string, error) {
	if encoded, ok := strings.CutPrefix(text, secretPrefix); ok {
		return encoded, nil
	}
	switch {
	case text == "":
		return "", fmt.Errorf("%w: it is empty", ErrSecret)
	case strings.TrimSpace(text) != text:
		return "", fmt.Errorf("%w: there is white space around it", ErrSecret)
	case strings.HasPrefix(text, version+","+secretPrefix):
		return "", fmt.Errorf("%w: leave out the leading %q", ErrSecret, version+",")
	case strings.HasPrefix(text, version+","):
		return "", fmt.Errorf("%w: this is a signature", ErrSecret)
	case strings.HasPrefix(text, "whsk_"), strings.HasPrefix(text, "whpk_"):
		return "", fmt.Errorf("%w: this is an ed25519 key; only symmetric secrets (%s…) are supported", ErrSecret, secretPrefix)
	default:
		return "", fmt.Errorf("%w: it does not begin with %s", ErrSecret, secretPrefix)
	}
}

// checkAlphabet names the usual ways to get base64 wrong.
func checkAlphabet(encoded string) error {
	switch {
	case len(encoded) > base64.StdEncoding.EncodedLen(maxSecretBytes):
		return fmt.Errorf("%w: it is longer than %d bytes in base64", ErrSecret, maxSecretBytes)
	case strings.ContainsAny(encoded, " \t\r\n"):
		return fmt.Errorf("%w: there is white space in it", ErrSecret)
	case strings.ContainsAny(encoded, "-_"):
		return fmt.Errorf("%w: it is URL-safe base64; use the standard alphabet with + and /", ErrSecret)
	case len(encoded)%4 != 0:
		return fmt.Errorf("%w: the base64 is cut short or lacks its = padding", ErrSecret)
	}
	return nil
}

// IsZero reports whether s holds no key.
func (s Secret) IsZero() bool { return s.key == nil }

// Reveal returns the secret in the form ParseSecret reads, "" for the zero
// Secret.
func (s Secret) Reveal() string {
	if s.key == nil {
		return ""
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(s.key())
}

// String returns a fixed text without the key.
func (s Secret) String() string { return redacted }

// GoString returns a fixed text without the key.
func (s Secret) GoString() string { return redacted }

// LogValue returns a fixed text without the key.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
