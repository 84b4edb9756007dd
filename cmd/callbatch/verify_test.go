package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVerifyReadsHeadersAsToolsShowThem(t *testing.T) {
	for name, text := range map[string]string{
		"plain":           "webhook-id: msg_1\nwebhook-signature: v1,a= v1,b=\n",
		"as on the wire":  "POST /hooks HTTP/1.1\r\nHost: 127.0.0.1\r\nWebhook-Id: msg_1\r\nWEBHOOK-SIGNATURE:v1,a= v1,b=\r\n",
		"by curl -v":      "* Connected to 127.0.0.1\n> POST / HTTP/1.1\n> webhook-id: msg_1\n> webhook-signature: v1,a= v1,b=\n>\n",
		"as received":     "< webhook-id: msg_1\r\n< webhook-signature: v1,a= v1,b=\r\n< \r\n",
		"in an object":    "{\n  'webhook-id': 'msg_1',\n  \"webhook-signature\": \"v1,a= v1,b=\",\n}\n",
		"after a request": "webhook-id:\tmsg_1 \nwebhook-signature: v1,a= v1,b=\n\n{\"a\": 1}",
	} {
		t.Run(name, func(t *testing.T) {
			header, _ := parseHeaders([]byte(text))
			got := []string{header.Get("webhook-id"), header.Get("webhook-signature")}
			if diff := cmp.Diff([]string{"msg_1", "v1,a= v1,b="}, got); diff != "" {
				t.Errorf("id and signature (-want +got):\n%s", diff)
			}
		})
	}
}

func TestVerifyTakesTheBodyOutOfARequest(t *testing.T) {
	for name, tt := range map[string]struct{ dump, want string }{
		"to its end":                   {"POST / HTTP/1.1\r\nwebhook-id: a\r\n\r\n{\r\n\r\n}", "{\r\n\r\n}"},
		"as long as it says":           {"content-length: 2\n\n{}\n", "{}"},
		"shorter than it says":         {"content-length: 9\n\n{}\n", "{}\n"},
		"of a length that is no such":  {"content-length: -1\n\n{}\n", "{}\n"},
		"in chunks":                    {"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", "{}"},
		"in chunks, but shown decoded": {"transfer-encoding: chunked\r\n\r\n{}", "{}"},
		"none":                         {"webhook-id: a\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			header, rest := parseHeaders([]byte(tt.dump))
			if got := requestBody(header, rest); string(got) != tt.want {
				t.Errorf("body %q, want %q", got, tt.want)
			}
		})
	}
}

// A verified is a run of callbatch verify.
type verified struct {
	code           int
	stdout, stderr string
}

func verify(t *testing.T, env []string, stdin string, args ...string) verified {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), append([]string{"verify"}, args...), env, strings.NewReader(stdin), &stdout, &stderr)
	return verified{code, stdout.String(), stderr.String()}
}

func TestVerifyTakesItsInputFromEverywhere(t *testing.T) {
	const body = `{"type":"callback.test"}`
	secret := "whsec_" + base64.StdEncoding.EncodeToString(diagnosedKey)
	header := signedBy(diagnosedKey, body)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var lines strings.Builder
	for name := range header {
		fmt.Fprintf(&lines, "< %s: %s\n", name, header.Get(name))
	}
	var (
		file     = write("body.json", body)
		headers  = write("headers.txt", "first\n\n"+lines.String())
		request  = write("request.txt", lines.String()+"\n"+body)
		keys     = write("secrets.txt", "whsec_"+strings.Repeat("A", 44)+"\n"+secret+"\n")
		empty    = write("empty.txt", "\n")
		long     = write("long.json", strings.Repeat(" ", mostInput+1))
		held     = []string{"CALLBATCH_SECRET=" + secret}
		at       = []string{"--at", "2026-05-28T20:26:40Z"}
		each     = []string{"--id", "msg_1", "--timestamp", "1780000000", "--signature", header.Get("webhook-signature")}
		stranger = "whsec_" + strings.Repeat("A", 44)
	)
	join := func(parts ...any) (args []string) {
		for _, p := range parts {
			switch p := p.(type) {
			case string:
				args = append(args, p)
			case []string:
				args = append(args, p...)
			}
		}
		return args
	}
	for name, tt := range map[string]struct {
		env   []string
		stdin string
		args  []string
		code  int
		says  string
	}{
		"file, headers, environment":  {held, "", join(file, "--headers", headers, at), 0, "accepted: The signature fits"},
		"standard input, three flags": {held, body, join("-", each, at), 0, "accepted"},
		"headers from standard input": {held, lines.String(), join(file, "--headers", "-", at), 0, "accepted"},
		"a request":                   {held, "", join("--request", request, at), 0, "accepted"},
		"a request, standard input":   {held, lines.String() + "\n" + body, join("--request", "-", at), 0, "accepted"},
		"a flag over a header":        {held, "", join("--request", request, at, "--id", "msg_2"), 1, "refused, no_match"},
		"a secret as a flag":          {nil, body, join("-", each, at, "--secret", secret), 0, "accepted"},
		"flags over the environment":  {held, body, join("-", each, at, "--secret", stranger), 1, "no_match"},
		"one of two secrets":          {nil, body, join("-", each, at, "--secret", stranger, "--secret", secret), 0, "Secret 2 signed it"},
		"one of a file of secrets":    {nil, body, join("-", each, at, "--secret-file", keys), 0, "Secret 2 signed it"},
		"as of Unix seconds":          {held, body, join("-", each, "--at", "1780000010"), 0, "accepted"},
		"of any time":                 {held, body, join("-", each, "--tolerance", "0"), 0, "accepted"},
		"of a narrower time":          {held, body, join("-", each, "--at", "1780000010", "--tolerance", "5s"), 1, "too_old"},
		"one header missing":          {held, body, join("-", each[:4], at), 1, "header_missing"},
		"another body":                {held, "{}", join("-", each, at), 1, "no_match"},

		"no body":                    {held, "", join(each), 2, "which body?"},
		"no headers":                 {held, body, join("-"), 2, "which headers?"},
		"no secret":                  {nil, body, join("-", each), 2, "which secret?"},
		"an empty secret":            {nil, body, join("-", each, "--secret", ""), 2, "--secret is empty"},
		"an empty file of secrets":   {nil, body, join("-", each, "--secret-file", empty), 2, "empty.txt is empty"},
		"no such file":               {held, "", join(filepath.Join(dir, "none"), each), 2, "none"},
		"far too long":               {held, "", join(long, each), 2, "longer than"},
		"a request, and a body":      {held, "", join(file, "--request", request), 2, "--request has headers and body"},
		"standard input for all":     {held, body, join("-", "--headers", "-"), 2, "only once"},
		"a time that is none":        {held, body, join("-", each, "--at", "noon"), 2, "not a time"},
		"a tolerance of less than 0": {held, body, join("-", each, "--tolerance", "-5m"), 2, "--tolerance is 0 or more"},
		"two bodies":                 {held, body, join(file, file, each), 2, "usage: callbatch verify"},
		"a flag with nothing in it":  {held, body, join("-", "--id", ""), 2, "--id is empty"},
		"an output that is none":     {held, body, join("-", each, "--output", "yaml"), 2, "json"},
		"no such file of secrets":    {nil, body, join("-", each, "--secret-file", filepath.Join(dir, "none")), 2, "--secret-file: open"},
	} {
		t.Run(name, func(t *testing.T) {
			got := verify(t, tt.env, tt.stdin, tt.args...)
			said, silent := got.stdout, got.stderr
			if tt.code == 2 {
				said, silent = silent, said
			}
			if got.code != tt.code || !strings.Contains(said, tt.says) || silent != "" {
				t.Errorf("got %+v, want code %d, saying %q", got, tt.code, tt.says)
			}
		})
	}
}

func TestVerifyWritesJSON(t *testing.T) {
	header := signedBy(diagnosedKey, "{}")
	args := []string{"-", "--output", "json", "--tolerance", "0", "--secret", "whsec_" + base64.StdEncoding.EncodeToString(diagnosedKey)}
	for _, name := range []string{"id", "timestamp", "signature"} {
		args = append(args, "--"+name, header.Get("webhook-"+name))
	}
	for body, want := range map[string]finding{
		"{}":   {true, fits, "The signature fits, sent at 2026-05-28T20:26:40Z."},
		"{}\n": {Valid: false, Reason: bodyChanged},
	} {
		got := verify(t, nil, body, args...)
		var f finding
		if err := json.Unmarshal([]byte(got.stdout), &f); err != nil {
			t.Fatalf("%v in %q", err, got.stdout)
		}
		if want.Detail == "" {
			want.Detail = f.Detail
		}
		if diff := cmp.Diff(want, f); diff != "" || f.Detail == "" {
			t.Errorf("body %q (-want +got):\n%s", body, diff)
		}
	}
}
