package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/callbatch/callbatch/batch/server"
)

func TestConfigPrint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "callbatch.yaml")
	write := func(t *testing.T, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("what it writes comes to the same settings", func(t *testing.T) {
		env := []string{"CALLBATCH_CALLBACKS_PORTS=8443,9443", "TOKEN=x"}
		flags := []string{"--listen", "127.0.0.1:9000"}
		text := `
store: data/batches.db
default_processor: up.price
processors:
  up.price: {http: {url: "http://x.example/", rate: 0.5, timeout: 90s, headers: {authorization: {env: TOKEN}}}}
limits: {items: 1000, item_bytes: 65537, body_bytes: 1536MiB, min_free: 10MB}
callbacks: {schedule: [0s, 90m, 1h1s], allow: ["fd00::/8"], hold: 1500ms}
log: {level: warn}
`
		want, wantLog, err := load(t, text, env, flags...)
		if err != nil {
			t.Fatal(err)
		}
		write(t, text)
		printed, stderr, code := invoke(t, env, append([]string{"config", "print", file}, flags...)...)
		if code != 0 || stderr != "" {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		got, gotLog, err := load(t, printed, []string{"TOKEN=x"})
		if err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		if diff := cmp.Diff(want.WithDefaults(), got.WithDefaults(), append(withoutProcessors, cmpopts.IgnoreFields(server.Options{}, "Logger"))...); diff != "" {
			t.Errorf("options (-want +got):\n%s", diff)
		}
		if wantLog.Level != gotLog.Level {
			t.Errorf("level %v, want %v", gotLog.Level, wantLog.Level)
		}
	})

	t.Run("without a file it shows what holds for every key there is", func(t *testing.T) {
		got, _, code := invoke(t, nil, "config", "print")
		for _, key := range scalarKeys(reflect.TypeFor[config](), "") {
			name := key[strings.LastIndexByte(key, '.')+1:]
			if !regexp.MustCompile(`(?m)^ *`+name+`: [^0"\s].* # default`).MatchString(got) || code != 0 {
				t.Errorf("exit %d; %s is not told in\n%s", code, key, got)
			}
		}
	})

	t.Run("each setting says where it comes from", func(t *testing.T) {
		write(t, "drain: 3s\nlisten: 127.0.0.1:1\nprocessors: {a: {jq: .}}\n")
		got, _, _ := invoke(t, []string{"CALLBATCH_LIMITS_RATIO=7"}, "config", "print", file, "--listen", "127.0.0.1:2")
		for _, want := range []string{
			"listen: 127.0.0.1:2 # --listen", "drain: 3s # " + file + ":1", "ratio: 7 # CALLBATCH_LIMITS_RATIO", "jq: . # " + file + ":3",
			"window: 168h # default", "public_url: null # default: none", "schedule: [0s, 5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h, 24h] # default",
		} {
			if !strings.Contains(got, want+"\n") {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
	})

	t.Run("secrets are masked, and that is said", func(t *testing.T) {
		write(t, `
processors:
  a.b:
    http:
      url: https://user:hush@x.example/?key=hush
      headers: {x-a: hush, x-b: {value: hush}, x-c: {env: TOKEN}}
  worker:
    exec: {command: [./work, "--store=postgres://me:hush@db.example/x"], env: {A: hush, B: {value: hush}, C: {env: TOKEN}}}
    schema: {properties: {headers: {const: shown}, url: {pattern: "^https?://"}}}
`)
		got, stderr, code := invoke(t, []string{"TOKEN=hush"}, "config", "print", file)
		if code != 0 || strings.Contains(got, "hush") || strings.Count(got, "env: TOKEN") != 2 || !strings.Contains(got, "const: shown") || !strings.Contains(got, "pattern: ^https?://") || !strings.Contains(stderr, "masked") {
			t.Errorf("exit %d: %s\n%s", code, stderr, got)
		}
	})
}
