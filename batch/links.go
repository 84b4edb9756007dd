package batch

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
)

// Links signs the links in messages: a receiver follows them without a key,
// for as long as the batch is there. A link opens the one path it names.
type Links struct {
	Key []byte // 32 random bytes, made with the store
}

// LinkParam is the query parameter that makes a path a link.
const LinkParam = "link"

const linkBytes = 16 // of the tenant, and of the signature

// ResultsURL returns the link to all results of a batch, or "" if the server
// does not know how the world reaches it.
func (l Links) ResultsURL(s Spec) string {
	return l.url(s, "/v1/batches/"+s.ID.String()+"/results")
}

// OutputURL returns the link to the output of one item, or "" as above.
func (l Links) OutputURL(s Spec, index int) string {
	return l.url(s, "/v1/batches/"+s.ID.String()+"/items/"+strconv.Itoa(index)+"/output")
}

func (l Links) url(s Spec, path string) string {
	if s.BaseURL == "" || len(l.Key) == 0 {
		return ""
	}
	return strings.TrimSuffix(s.BaseURL, "/") + path + "?" + LinkParam + "=" + l.sign(s.Tenant, path)
}

func (l Links) sign(t TenantID, path string) string {
	return base64.RawURLEncoding.EncodeToString(append(t[:], l.mac(t, path)...))
}

func (l Links) mac(t TenantID, path string) []byte {
	h := hmac.New(sha256.New, l.Key)
	h.Write(t[:])
	h.Write([]byte(path))
	return h.Sum(nil)[:linkBytes]
}

// Tenant returns whose path a link opens. ok is false if it opens none or
// another one.
func (l Links) Tenant(path, link string) (t TenantID, ok bool) {
	text := base64.RawURLEncoding.Strict()
	if len(link) != text.EncodedLen(2*linkBytes) || len(l.Key) == 0 {
		return t, false
	}
	b, err := text.DecodeString(link)
	if err != nil || len(b) != 2*linkBytes { // line breaks are passed over
		return t, false
	}
	claimed := TenantID(b[:linkBytes])
	if !hmac.Equal(b[linkBytes:], l.mac(claimed, path)) {
		return t, false
	}
	return claimed, true
}
