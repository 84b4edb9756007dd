package signature_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/callbatch/callbatch/callback/signature"
)

// The two npm packages receivers use most verify what we sign, and refuse what
// they should. They are installed into a temporary folder.
func TestTheNodeLibrariesAgree(t *testing.T) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("CI") == "" {
			t.Skipf("%s is not in PATH", tool)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/node")); err != nil {
		t.Fatal(err)
	}
	runIn(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")

	cases, want := nodeCases(t)
	out := runIn(t, dir, cases, "node", "verify.mjs")
	var got []nodeVerdict
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var v nodeVerdict
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		got = append(got, v)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("verdicts differ (-want +got):\n%s", diff)
	}
}

type nodeVerdict struct {
	Name             string `json:"name"`
	StandardWebhooks bool   `json:"standardwebhooks"`
	Svix             bool   `json:"svix"`
}

// nodeCases returns the script's input, one case a line, and its due answers.
func nodeCases(t *testing.T) (input []byte, want []nodeVerdict) {
	t.Helper()
	secret, old, stranger := signature.NewSecret(), signature.NewSecret(), signature.NewSecret()
	now, body := time.Now(), []byte(`{"type":"batch.completed","data":{"metadata":{"shop":"Żółw 🐢"}}}`)
	for _, c := range []struct {
		name     string
		holds    signature.Secret
		headers  http.Header
		accepted bool
	}{
		{"one secret", secret, message("msg_1", now, body, secret), true},
		{"rotation, receiver has the new secret", secret, message("msg_2", now, body, secret, old), true},
		{"rotation, receiver has the old secret", old, message("msg_3", now, body, secret, old), true},
		{"receiver has another secret", stranger, message("msg_4", now, body, secret, old), false},
		{"an hour old", secret, message("msg_5", now.Add(-time.Hour), body, secret), false},
		{"signed for another body", secret, message("msg_6", now, []byte("{}"), secret), false},
	} {
		headers := map[string]string{}
		for name := range c.headers {
			headers[strings.ToLower(name)] = c.headers.Get(name)
		}
		line, err := json.Marshal(map[string]any{"name": c.name, "secret": c.holds.Reveal(), "headers": headers, "body": body})
		if err != nil {
			t.Fatal(err)
		}
		input = append(append(input, line...), '\n')
		want = append(want, nodeVerdict{c.name, c.accepted, c.accepted})
	}
	return input, want
}

func runIn(t *testing.T, dir string, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", name, err, out, stderr.Bytes())
	}
	return out
}
