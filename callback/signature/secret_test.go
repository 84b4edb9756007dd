package signature_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/callbatch/callbatch/callback/signature"
)

func TestNewSecretsAreFreshAndReadBack(t *testing.T) {
	a, b := signature.NewSecret(), signature.NewSecret()
	if a.Reveal() == b.Reveal() {
		t.Error("two new secrets are the same")
	}
	if got := mustParse(t, a.Reveal()).Reveal(); got != a.Reveal() {
		t.Errorf("read back as %q", got)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(a.Reveal(), "whsec_"))
	if err != nil || len(key) != 32 {
		t.Errorf("the key is %d bytes (%v), want 32", len(key), err)
	}
	if a.IsZero() || !(signature.Secret{}).IsZero() || (signature.Secret{}).Reveal() != "" {
		t.Error("a new secret is zero, or the zero one is not")
	}
}

func TestParseSecretSaysWhatIsWrong(t *testing.T) {
	encode := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, n)) }
	for name, tc := range map[string]struct{ text, says string }{
		"empty":            {"", "empty"},
		"unprefixed":       {encode(32), "does not begin with whsec_"},
		"v1 in front":      {"v1,whsec_" + encode(32), `leave out the leading "v1,"`},
		"a signature":      {"v1," + encode(32), "a signature"},
		"ed25519":          {"whsk_" + encode(64), "ed25519"},
		"URL-safe":         {"whsec_" + base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xfb}, 32)), "URL-safe"},
		"unpadded":         {"whsec_" + strings.TrimRight(encode(32), "="), "padding"},
		"too short":        {"whsec_" + encode(23), "23 bytes"},
		"nothing after":    {"whsec_", "0 bytes"},
		"too long":         {"whsec_" + encode(65), "65 bytes"},
		"far too long":     {"whsec_" + encode(6500), "longer than 64 bytes"},
		"space around":     {" whsec_" + encode(32), "white space around"},
		"line end":         {"whsec_" + encode(32) + "\n", "white space in it"},
		"line end inside":  {"whsec_" + encode(24)[:16] + "\r\n" + encode(24)[16:], "white space in it"},
		"not base64":       {"whsec_" + strings.Repeat("!", 44), "not base64"},
		"stray final bits": {"whsec_" + strings.Repeat("A", 42) + "B=", "not base64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := signature.ParseSecret(tc.text)
			if !errors.Is(err, signature.ErrSecret) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("error %v, want one that says %q", err, tc.says)
			}
			if len(tc.text) > 20 && strings.Contains(err.Error(), tc.text[10:20]) {
				t.Errorf("the error repeats the secret: %v", err)
			}
		})
	}
	for _, n := range []int{24, 32, 64} {
		if _, err := signature.ParseSecret("whsec_" + encode(n)); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestSecretsNeverShowInPrintsAndLogs(t *testing.T) {
	key := []byte("a key of thirty-two plain bytes!")
	s := mustParse(t, "whsec_"+base64.StdEncoding.EncodeToString(key))
	type holder struct {
		Open   signature.Secret
		hidden signature.Secret // fmt cannot call methods on this one
	}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", &s)
		fmt.Fprintf(&out, verb+"\n", holder{s, s})
		fmt.Fprintf(&out, verb+"\n", []signature.Secret{s})
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", s, "holder", holder{s, s})
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", s, "holder", holder{s, s})
	if err := json.NewEncoder(&out).Encode(holder{s, s}); err != nil {
		t.Fatal(err)
	}

	for form, text := range map[string]string{
		"raw":     string(key),
		"base64":  base64.StdEncoding.EncodeToString(key),
		"hex":     fmt.Sprintf("%x", key[:8]),
		"HEX":     fmt.Sprintf("%X", key[:8]),
		"numbers": strings.Trim(fmt.Sprint(key[:8]), "[]"),
	} {
		if strings.Contains(out.String(), text) {
			t.Errorf("the key shows as %s in:\n%s", form, out.String())
		}
	}
}
