// Package signature signs and verifies webhooks as [Standard Webhooks] 1.0.0
// describes them (scheme v1, HMAC-SHA256). It imports the standard library
// only, so that a receiver can use it at no cost:
//
//	secret, err := signature.ParseSecret(os.Getenv("CALLBATCH_SECRET"))
//	...
//	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
//	...
//	if err := signature.Verify(r.Header, body, time.Now(), 0, secret); err != nil {
//		http.Error(w, err.Error(), http.StatusUnauthorized)
//		return
//	}
//
// What is signed is the id, the time of this attempt and the exact bytes of
// the body, joined by dots. Verify before parsing, and drop an id seen before:
// a message may arrive more than once, each time under the same webhook-id.
//
// While a secret is being rotated a message bears one signature for each live
// secret, and verifies with any of them.
//
// [Standard Webhooks]: https://www.standardwebhooks.com
package signature

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"time"
)

// The headers of a signed message. HTTP header names ignore case.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp" // Unix seconds of this attempt
	HeaderSignature = "webhook-signature"
	HeaderDigest    = "content-digest" // RFC 9530, unsigned; see ContentDigest
)

const (
	version   = "v1"
	macLength = 44 // base64 of 32 bytes
)

// Sign returns the value of the webhook-signature header for body sent as
// message id at the given time: one "v1,…" for each secret, separated by
// spaces. The webhook-timestamp header must carry at.Unix(). The id must not
// contain a dot. A zero Secret signs nothing.
func Sign(id string, at time.Time, body []byte, secrets ...Secret) string {
	head := signedHead(id, strconv.FormatInt(at.Unix(), 10))
	out := make([]byte, 0, len(secrets)*(len(version)+macLength+2))
	for _, s := range secrets {
		if s.key == nil {
			continue
		}
		if len(out) > 0 {
			out = append(out, ' ')
		}
		out = append(out, version+","...)
		out = appendMAC(out, s, head, body)
	}
	return string(out)
}

// ContentDigest returns the value of the content-digest header for body. It
// proves nothing about the sender; it tells a body changed on its way from a
// wrong secret.
func ContentDigest(body []byte) string {
	sum := sha256.Sum256(body)
	out := append(make([]byte, 0, len("sha-256=::")+macLength), "sha-256=:"...)
	out = base64.StdEncoding.AppendEncode(out, sum[:])
	return string(append(out, ':'))
}

// signedHead is what is signed in front of the body.
func signedHead(id, unix string) []byte { return []byte(id + "." + unix + ".") }

func appendMAC(out []byte, s Secret, head, body []byte) []byte {
	mac := hmac.New(sha256.New, s.key())
	mac.Write(head)
	mac.Write(body)
	var sum [sha256.Size]byte
	return base64.StdEncoding.AppendEncode(out, mac.Sum(sum[:0]))
}
