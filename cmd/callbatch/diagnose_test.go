package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/callbatch/callbatch/callback/signature"
)

var diagnosedAt = time.Unix(1_780_000_000, 0)

// A key for tests whose base64 differs between the alphabets.
var diagnosedKey = bytes.Repeat([]byte{0xfb, 0xef, 0xff}, 8)

const diagnosedBody = `{"type":"batch.completed","data":{"b":"<é & \u001b>","a":[1.50,1e3,{}],"url":"a/b"}}`

// signedBy returns the headers of a webhook that was signed with a bare key.
func signedBy(key []byte, body string) http.Header {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "msg_1.%d.%s", diagnosedAt.Unix(), body)
	h := http.Header{}
	h.Set(signature.HeaderID, "msg_1")
	h.Set(signature.HeaderTimestamp, strconv.FormatInt(diagnosedAt.Unix(), 10))
	h.Set(signature.HeaderSignature, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	return h
}

func TestDiagnosis(t *testing.T) {
	const body = diagnosedBody
	key, text := diagnosedKey, base64.StdEncoding.EncodeToString(diagnosedKey)
	secret, stranger := "whsec_"+text, signature.NewSecret().Reveal()
	whole := bytes.Repeat(key[:4], 8)
	const other = "v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

	for name, tt := range map[string]struct {
		key     []byte // that signed
		secrets []string
		alter   func(http.Header)
		body    string // as received
		at      time.Duration
		want    reason
		says    string
	}{
		"as sent":              {want: fits, says: "sent at 2026-05-28T20:26:40Z"},
		"the second of two":    {secrets: []string{stranger, secret}, want: fits, says: "Secret 1 did not: who holds only that one refuses it. Secret 2 signed it."},
		"beside one malformed": {secrets: []string{secret, "hush"}, want: fits, says: "Secret 2 is not a webhook secret"},

		"no id":            {alter: func(h http.Header) { h.Del("webhook-id") }, want: headerMissing, says: "webhook-id"},
		"no timestamp":     {alter: func(h http.Header) { h.Del("webhook-timestamp") }, want: headerMissing, says: "webhook-timestamp"},
		"no signature":     {alter: func(h http.Header) { h.Del("webhook-signature") }, want: headerMissing, says: "webhook-signature"},
		"two ids":          {alter: func(h http.Header) { h.Add("webhook-id", "msg_2") }, want: headerRepeated, says: "webhook-id"},
		"a date":           {alter: func(h http.Header) { h.Set("webhook-timestamp", "2026-05-28") }, want: badTimestamp, says: "such as 1780000000"},
		"milliseconds":     {alter: func(h http.Header) { h.Set("webhook-timestamp", "1780000000000") }, want: badTimestamp, says: "milliseconds"},
		"stale":            {at: time.Hour, want: tooOld, says: "sent 1h0m0s ago, 5m0s is allowed. The signature fits."},
		"from the future":  {at: -time.Hour, want: tooNew, says: "sent 1h0m0s ahead of this clock"},
		"stale and forged": {at: time.Hour, secrets: []string{stranger}, want: noMatch},

		"joined by commas":           {alter: appended("," + other), want: badSignature, says: "separated by spaces"},
		"joined by commas, no match": {alter: appended("," + other), secrets: []string{stranger}, want: badSignature, says: "separated by spaces"},
		"a space after the comma":    {alter: spelled("v1,", "v1, "), want: badSignature, says: "v1, a comma and base64"},
		"cut short":                  {alter: func(h http.Header) { h.Set("webhook-signature", "v1,AAAA") }, want: badSignature, says: "cut short"},
		"of version v1a":             {alter: func(h http.Header) { h.Set("webhook-signature", "v1a,AAAA") }, want: unknownVersion, says: "It says v1a."},
		"called v2":                  {alter: spelled("v1,", "v2,"), want: unknownVersion, says: `a signature of version v1, but marked "v2,": write v1, and`},
		"with a wicked version":      {alter: func(h http.Header) { h.Set("webhook-signature", "\x1b]0;x\a,AAAA") }, want: unknownVersion, says: "It says \ufffd]0;x\ufffd."},

		"the secret lacks its prefix":     {secrets: []string{text}, want: secretMalformed, says: "Secret 1 signed this, but is wrongly written: it does not begin with whsec_"},
		"the secret is URL-safe":          {secrets: []string{"whsec_" + base64.URLEncoding.EncodeToString(key)}, want: secretMalformed, says: "Secret 1 signed this, but is wrongly written: it is URL-safe"},
		"the secret lacks its padding":    {key: key[:23], secrets: []string{"whsec_" + base64.RawStdEncoding.EncodeToString(key[:23])}, want: secretMalformed, says: "padding"},
		"the secret has v1 in front":      {secrets: []string{"v1," + secret}, want: secretMalformed, says: `leave out the leading "v1,"`},
		"the secret is in hex":            {secrets: []string{hex.EncodeToString(key)}, want: secretMalformed, says: "Secret 1 signed this, but is written in hex"},
		"the secret is in hex, prefixed":  {secrets: []string{"whsec_" + hex.EncodeToString(key)}, want: secretMalformed, says: "Secret 1 signed this, but is written in hex"},
		"the key is too short":            {key: key[:16], secrets: []string{"whsec_" + base64.StdEncoding.EncodeToString(key[:16])}, want: secretMalformed, says: "16 bytes"},
		"the key is text":                 {key: []byte("hush, hush"), secrets: []string{"hush, hush"}, want: secretMalformed, says: "The text of secret 1 itself was the key"},
		"the secret is malformed for all": {secrets: []string{"hush"}, want: secretMalformed, says: "does not begin with whsec_"},
		"the second secret is malformed":  {secrets: []string{stranger, "hush"}, want: secretMalformed, says: "Secret 2 of 2"},
		"signed with the secret's text":   {key: []byte(secret), want: secretMisread, says: "whsec_ and all"},
		"signed with the base64":          {key: []byte(text), want: secretMisread, says: "has to be decoded"},

		"the body alone was signed":        {alter: signing(key, body), want: contentMisread, says: "What was signed is the body alone. What is to be signed is webhook-id, a dot, webhook-timestamp, a dot, and the body."},
		"time and body were, as elsewhere": {alter: signing(key, "1780000000."+body), want: contentMisread, says: "What was signed is webhook-timestamp, a dot and the body, without webhook-id."},
		"id and body were signed":          {alter: signing(key, "msg_1."+body), want: contentMisread, says: "What was signed is webhook-id, a dot and the body, without webhook-timestamp."},
		"the body alone, by another key":   {alter: signing([]byte(secret), body), want: secretMisread, says: "whsec_ and all, as the key. The key is what follows whsec_, decoded from base64. What was signed is the body alone."},
		"the body alone, less a line end":  {alter: signing(key, body), body: body + "\n", want: contentMisread, says: "and the body. What was signed is the body without the line end"},
		"time and body, in another scheme": {alter: combined(signing(key, "1780000000."+body), recoded(hex.EncodeToString), spelled("v1,", "t=1780000000,v1=")), want: unknownVersion, says: `marked "v1=": write v1, and then the signature. The signature is written in hex: it has to be the padded standard base64. What was signed is webhook-timestamp`},

		"the signature is URL-safe":             {alter: recoded(base64.URLEncoding.EncodeToString), want: badSignature, says: "The signature is written in URL-safe base64: it has to be the padded standard base64."},
		"URL-safe, without padding":             {alter: recoded(base64.RawURLEncoding.EncodeToString), want: badSignature, says: "in URL-safe base64"},
		"without padding":                       {alter: recoded(base64.RawStdEncoding.EncodeToString), want: badSignature, says: "in base64 without its padding"},
		"the signature is in hex":               {alter: recoded(hex.EncodeToString), want: badSignature, says: "written in hex"},
		"in upper-case hex":                     {alter: recoded(func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }), want: badSignature, says: "written in hex"},
		"in hex, by another secret":             {alter: recoded(hex.EncodeToString), secrets: []string{stranger}, want: badSignature, says: "What follows v1 is written in hex, where it has to be the padded standard base64 of 32 bytes; and nothing that was given signed it"},
		"marked v1=":                            {alter: spelled("v1,", "v1="), want: unknownVersion, says: `What stands there is a signature of version v1, but marked "v1=": write v1, and then the signature.`},
		"marked sha256=":                        {alter: spelled("v1,", "sha256="), want: unknownVersion, says: `marked "sha256="`},
		"not marked":                            {alter: spelled("v1,", ""), want: unknownVersion, says: "but not marked as one: write v1, and then the signature."},
		"marked v1=, by another secret":         {alter: spelled("v1,", "v1="), secrets: []string{stranger}, want: unknownVersion, says: "It says v1=."},
		"the body alone, in another's header":   {alter: combined(signing(key, body), recoded(hex.EncodeToString), spelled("v1,", "sha256=")), want: unknownVersion, says: "What was signed is the body alone."},
		"the secret is cut short":               {key: whole, secrets: []string{"whsec_" + base64.StdEncoding.EncodeToString(whole)[:40]}, want: noMatch, says: "Most likely secret 1 was not copied exactly: its key is 30 bytes long, and Callbatch's own are always 32. Otherwise at least one of"},
		"the secret is cut short, body vouched": {key: whole, alter: digest(body), secrets: []string{"whsec_" + base64.StdEncoding.EncodeToString(whole)[:40]}, want: noMatch, says: "always 32. Otherwise another secret signed it"},

		"the body was changed":          {alter: digest(body), body: `{}`, want: bodyChanged, says: "not the one content-digest describes"},
		"the body was changed, unsaid":  {body: `{}`, want: noMatch, says: "at least one of secret, body, id and time"},
		"the body was written again":    {body: strings.Replace(body, ":", ": ", 1), alter: digest(body), want: bodyChanged, says: "as compact JSON"},
		"written again, by another key": {key: []byte(text), body: body + "\n", want: secretMisread, says: "has to be decoded from base64. What was signed is the body without the line end at its end"},
		"the body is empty":             {body: "-", want: noMatch, says: "it may have been read before"},
		"another secret":                {alter: digest(body), secrets: []string{stranger}, want: noMatch, says: "Most likely another secret signed it, or the id or the time"},
		"another id":                    {alter: func(h http.Header) { h.Set("webhook-id", "msg_2") }, want: noMatch},
		"rotation, and neither is ours": {alter: appended(" " + other), secrets: []string{stranger}, want: noMatch, says: "There are 2 signatures"},
		"malformed, and another body":   {alter: digest(body), body: "{}", secrets: []string{"hush"}, want: secretMalformed, says: "The body is not the one content-digest describes"},
		"another version, body vouched": {alter: func(h http.Header) { digest(body)(h); spelled("v1,", "v9,x")(h) }, want: unknownVersion, says: "The body is the one content-digest describes"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.key == nil {
				tt.key = key
			}
			if tt.secrets == nil {
				tt.secrets = []string{secret}
			}
			header := signedBy(tt.key, body)
			if tt.alter != nil {
				tt.alter(header)
			}
			switch tt.body {
			case "":
				tt.body = body
			case "-":
				tt.body = ""
			}
			f := diagnosis{header: header, body: []byte(tt.body), at: diagnosedAt.Add(tt.at), secrets: tt.secrets}.run()
			if f.Reason != tt.want || f.Valid != (tt.want == fits) || !strings.Contains(f.Detail, tt.says) {
				t.Errorf("got %+v\nwant %s, saying %q", f, tt.want, tt.says)
			}
			for _, s := range tt.secrets {
				if strings.Contains(f.Detail, strings.TrimPrefix(s, "whsec_")) {
					t.Errorf("the detail repeats a secret: %s", f.Detail)
				}
			}
		})
	}
}

func appended(more string) func(http.Header) {
	return func(h http.Header) { h.Set("webhook-signature", h.Get("webhook-signature")+more) }
}

func spelled(from, to string) func(http.Header) {
	return func(h http.Header) {
		h.Set("webhook-signature", strings.Replace(h.Get("webhook-signature"), from, to, 1))
	}
}

// signing has a key sign what is not to be signed.
func signing(key []byte, content string) func(http.Header) {
	return func(h http.Header) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(content))
		h.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
}

// recoded writes the bytes of the signature otherwise.
func recoded(encode func([]byte) string) func(http.Header) {
	return func(h http.Header) {
		text, _ := strings.CutPrefix(h.Get("webhook-signature"), "v1,")
		mac, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			panic(err)
		}
		h.Set("webhook-signature", "v1,"+encode(mac))
	}
}

func combined(alter ...func(http.Header)) func(http.Header) {
	return func(h http.Header) {
		for _, a := range alter {
			a(h)
		}
	}
}

func digest(body string) func(http.Header) {
	return func(h http.Header) { h.Set("content-digest", signature.ContentDigest([]byte(body))) }
}

// Each pair is one body before and after something that happens to bodies.
func TestDiagnosisSeesWhatWasDoneToTheBody(t *testing.T) {
	const compact = `{"b":[1.50,{}],"a":"é<\u2028>"}`
	for name, tt := range map[string]struct{ sent, received, says string }{
		"a line end added":               {compact, compact + "\n", "without the line end"},
		"a CR LF added":                  {compact, compact + "\r\n", "without the line end"},
		"a line end removed":             {compact + "\n", compact, "with a line end"},
		"a CR LF removed":                {compact + "\r\n", compact, "with a CR LF"},
		"white space added around it":    {"text", "\n  text ", "without the white space"},
		"LF became CR LF":                {"a\nb", "a\r\nb", "with LF instead"},
		"CR LF became LF":                {"a\r\nb", "a\nb", "with CR LF instead"},
		"a byte order mark added":        {compact, "\ufeff" + compact, "without the byte order mark"},
		"a byte order mark removed":      {"\ufeff" + compact, compact, "with a byte order mark"},
		"spaces added, as Python does":   {compact, `{"b": [1.50, {}], "a": "é<\u2028>"}`, "as compact JSON"},
		"spaces removed":                 {`{"b": [1.50, {}], "a": "é"}`, `{"b":[1.50,{}],"a":"é"}`, "a space after commas"},
		"indented":                       {`{"b":[1,2]}`, "{\n  \"b\": [\n    1,\n    2\n  ]\n}", "as compact JSON"},
		"an indent of two removed":       {"{\n  \"b\": [\n    1,\n    2\n  ]\n}", `{"b":[1,2]}`, "by two spaces"},
		"an indent of four removed":      {"{\n    \"b\": 1\n}", `{"b":1}`, "by four spaces"},
		"an indent of tabs removed":      {"{\n\t\"b\": 1\n}\n", `{"b":1}`, "by tabs and with a line end"},
		"sorted keys lost":               {`{"a":1,"b":{"c":1,"d":2}}`, `{"b":{"d":2,"c":1},"a":1}`, "as compact JSON with sorted keys"},
		"escaped, as Python does":        {`{"a":"é🐢"}`, `{"a": "\u00e9\ud83d\udc22"}`, "no needless escapes"},
		"escapes of ASCII removed":       {`{"a": "\u00e9\ud83d\udc22"}`, `{"a":"é🐢"}`, "a space after commas and colons with all but ASCII escaped"},
		"escapes of Go removed":          {`{"a":"\u003cb\u003e \u0026"}`, `{"a":"<b> &"}`, "with <, > and & escaped"},
		"escapes of Go added":            {`{"a":"<b> &"}`, `{"a":"\u003cb\u003e \u0026"}`, "no needless escapes"},
		"mark, spaces and line end, all": {compact, "\ufeff{\"b\": [1.50, {}], \"a\": \"é<\\u2028>\"}\r\n", "as compact JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			d := diagnosis{
				header: signedBy(diagnosedKey, tt.sent), body: []byte(tt.received), at: diagnosedAt,
				secrets: []string{"whsec_" + base64.StdEncoding.EncodeToString(diagnosedKey)},
			}
			if f := d.run(); f.Reason != bodyChanged || !strings.Contains(f.Detail, tt.says) {
				t.Errorf("got %+v, want one that says %q", f, tt.says)
			}
		})
	}
}

// What is tried is bounded, however long the body is and however many secrets
// there are.
func TestDiagnosisEnds(t *testing.T) {
	item := `{"id": 1, "name": "é<b>", "list": [1, 2, 3]}`
	body := "[" + strings.Repeat(item+",\n", mostInput/(len(item)+2)-1) + item + "]"
	d := diagnosis{header: signedBy(diagnosedKey, "another"), body: []byte(body), at: diagnosedAt}
	for range 40 {
		d.secrets = append(d.secrets, signature.NewSecret().Reveal())
	}
	begun := time.Now()
	f := d.run()
	if took := time.Since(begun); f.Reason != noMatch || took > 20*time.Second { // a machine may be busy; unbounded it is minutes
		t.Errorf("it took %s and found %+v", took, f)
	}
}
