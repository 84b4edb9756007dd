package main

import (
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/callbatch/callbatch/batch/server"
)

// load is loadSettings for a file with this text, these variables and these
// flags of serve.
func load(t *testing.T, file string, env []string, flags ...string) (server.Options, logging, error) {
	t.Helper()
	w := &world{env: env, stdout: io.Discard, stderr: io.Discard}
	if file != "" {
		path := filepath.Join(t.TempDir(), "callbatch.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--config", path)
	}
	cmd := newServe(w)
	if err := cmd.ParseFlags(flags); err != nil {
		t.Fatal(err)
	}
	s, err := loadSettings(w, cmd.Flags())
	if err != nil {
		return server.Options{}, logging{}, err
	}
	return s.options(), s.config.Log, nil
}

// withoutProcessors leaves out what has functions in it.
var withoutProcessors = []cmp.Option{
	cmpopts.IgnoreFields(server.Options{}, "Processors"),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestConfig(t *testing.T) {
	t.Run("nothing set is the server's own default", func(t *testing.T) {
		o, log, err := load(t, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(server.Options{Processors: map[string]server.Processor{}}, o, withoutProcessors...); diff != "" {
			t.Errorf("options (-want +got):\n%s", diff)
		}
		if log != (logging{}) {
			t.Errorf("logging: %+v, want nothing set", log)
		}
	})

	t.Run("every key arrives where it belongs", func(t *testing.T) {
		o, log, err := load(t, `
listen: 127.0.0.1:9000
store: data/batches.db
public_url: https://batches.example
default_processor: price
processors:
  price: {jq: '{total: (.qty * .price)}'}
limits: {items: 1000, item_bytes: 64KiB, output_bytes: 65536, body_bytes: 1GiB, part_bytes: 8MiB, ratio: 50, min_free: 10MB, min_work: 5MiB}
callbacks:
  schedule: [0s, 5s, 5m]
  window: 24h
  timeout: 10s
  allow_http: true
  allow: [10.0.0.0/8, "fd00::/8"]
  ports: [8443, 9443]
  page_bytes: 32KiB
  page_items: 100
  hold: 5s
  per_host: 8
  in_flight: 32
retention: 720h
drain: 3s
log: {level: debug, format: text}
`, []string{"CALLBATCH_ADMIN_KEY_FILE=key.txt"})
		if err != nil {
			t.Fatal(err)
		}
		want := server.Options{
			Listen: "127.0.0.1:9000", Store: "data/batches.db", PublicURL: "https://batches.example",
			DefaultProcessor: "price", AdminKeyFile: "key.txt", Retention: 720 * time.Hour, Drain: 3 * time.Second,
			Limits: server.Limits{
				Items: 1000, ItemBytes: 64 << 10, Output: 64 << 10, Body: 1 << 30, Part: 8 << 20, Ratio: 50, MinFree: 10_000_000, MinWork: 5 << 20,
			},
			Callbacks: server.Callbacks{
				Schedule: []time.Duration{0, 5 * time.Second, 5 * time.Minute},
				Window:   24 * time.Hour, Timeout: 10 * time.Second, AllowHTTP: true,
				Allow:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
				Ports:     []uint16{8443, 9443},
				PageBytes: 32 << 10, PageItems: 100, Hold: 5 * time.Second, PerHost: 8, InFlight: 32,
			},
		}
		if diff := cmp.Diff(want, o, withoutProcessors...); diff != "" {
			t.Errorf("options (-want +got):\n%s", diff)
		}
		if p := o.Processors["price"]; p.Do == nil || p.Kind != "jq" {
			t.Errorf("processor price: %+v, want a jq program", p)
		}
		if slog.Level(log.Level).String() != "DEBUG" || log.Format != "text" {
			t.Errorf("logging: %+v", log)
		}
	})

	t.Run("flags go before the environment, the environment before the file", func(t *testing.T) {
		o, _, err := load(t, "listen: file:1\nstore: file.db\npublic_url: http://file\n",
			[]string{"CALLBATCH_LISTEN=env:1", "CALLBATCH_STORE=env.db"}, "--listen", "flag:1")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := []string{o.Listen, o.Store, o.PublicURL}, []string{"flag:1", "env.db", "http://file"}; !cmp.Equal(got, want) {
			t.Errorf("listen, store, public_url: %q, want %q", got, want)
		}
	})

	t.Run("every key but processors has a variable", func(t *testing.T) {
		o, log, err := load(t, "", []string{
			"CALLBATCH_DEV=true", "CALLBATCH_CALLBACKS_SCHEDULE=0s, 1s", "CALLBATCH_CALLBACKS_ALLOW=10.0.0.0/8,192.168.0.0/16",
			"CALLBATCH_CALLBACKS_PORTS=8443", "CALLBATCH_CALLBACKS_ALLOW_HTTP=1", "CALLBATCH_LIMITS_ITEM_BYTES=2KiB", "CALLBATCH_LOG_LEVEL=warn",
		})
		if err != nil {
			t.Fatal(err)
		}
		c := o.Callbacks
		if !o.Dev || !c.AllowHTTP || len(c.Schedule) != 2 || len(c.Allow) != 2 || len(c.Ports) != 1 || o.Limits.ItemBytes != 2048 || slog.Level(log.Level).String() != "WARN" {
			t.Errorf("options: %+v, logging: %+v", o, log)
		}
	})

	t.Run("an empty variable is as good as none", func(t *testing.T) {
		o, _, err := load(t, "drain: 3s\n", []string{"CALLBATCH_DRAIN=", "CALLBATCH_LISTEN="})
		if err != nil {
			t.Fatal(err)
		}
		if o.Drain != 3*time.Second || o.Listen != "" {
			t.Errorf("drain %v, listen %q, want the file's 3s and nothing", o.Drain, o.Listen)
		}
	})

	t.Run("a processor's name may have dots, underscores and hyphens", func(t *testing.T) {
		o, _, err := load(t, "processors: {A.b_c-"+strings.Repeat("9", 58)+": {jq: .}}", nil)
		if err != nil || len(o.Processors) != 1 {
			t.Errorf("processors %v, %v", o.Processors, err)
		}
	})

	t.Run("only variables that look like ours are called unknown", func(t *testing.T) {
		got := unknownVariables([]string{
			"CALLBATCH_CALLBACK_TIMEOUT=1s", "CALLBATCH_CALLBACKS_TIMEOUT=1s", "CALLBATCH_LISTN=x", "CALLBATCH_EMPTY=", "PATH=y", "CALLBATCHES=1",
			"CALLBATCH_URL=x", "CALLBATCH_KEY=x", "CALLBATCH_SECRET=x", "CALLBATCH_CONFIG=x", "CALLBATCH_ADMIN_KEY_FILE=x", "CALLBATCH_STORE=x",
			"CALLBATCH_PORT=tcp://10.1.2.3:8080", "CALLBATCH_PORT_8080_TCP_ADDR=10.1.2.3", "CALLBATCH_SERVICE_HOST=10.1.2.3",
		})
		if diff := cmp.Diff([]string{"CALLBATCH_CALLBACK_TIMEOUT", "CALLBATCH_LISTN"}, got); diff != "" {
			t.Errorf("unknown variables (-want +got):\n%s", diff)
		}
	})

	t.Run("variables of others are left alone", func(t *testing.T) {
		if _, _, err := load(t, "", []string{"CALLBATCH_PORT=tcp://10.1.2.3:8080", "CALLBATCH_URL=x", "PATH=y"}); err != nil {
			t.Error(err)
		}
	})

	t.Run("dev has a processor to begin with, unless one is configured", func(t *testing.T) {
		o, _, err := load(t, "", nil, "--dev")
		if err != nil {
			t.Fatal(err)
		}
		if o.DefaultProcessor != "echo" || o.Processors["echo"].Do == nil {
			t.Errorf("default processor %q of %v, want echo", o.DefaultProcessor, o.Processors)
		}
		o, _, err = load(t, "processors: {mine: {jq: .}}", nil, "--dev")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := o.Processors["echo"]; ok || o.DefaultProcessor != "" {
			t.Errorf("default processor %q of %v, want only mine", o.DefaultProcessor, o.Processors)
		}
	})
}

func TestProcessorConfig(t *testing.T) {
	t.Run("workers have no more of the environment than they need", func(t *testing.T) {
		s := workshop{Env: map[string]header{"MODEL": {Value: "fast"}, "KEY": {Env: "OCR_KEY"}, "LANG": {Value: "C"}}}
		w := &world{env: []string{"CALLBATCH_KEY=cbk_1", "OCR_KEY=k", "PATH=/bin", "HOME=/root", "LANG=de", "AWS_SECRET=s"}}
		got, wrong := s.environment(w, "env")
		if diff := cmp.Diff([]string{"HOME=/root", "KEY=k", "LANG=C", "MODEL=fast", "PATH=/bin"}, got); diff != "" || wrong != nil {
			t.Errorf("environment (-want +got):\n%s%v", diff, wrong)
		}
	})

	t.Run("a program arrives where it belongs", func(t *testing.T) {
		o, _, err := load(t, `
processors:
  ocr: {exec: {command: [./ocr, --json, "-n 1"], concurrency: 4, timeout: 60s, dir: work, attempts: 3, env: {A: b}}}
  plain: {exec: {command: [cat]}}
`, nil)
		if err != nil {
			t.Fatal(err)
		}
		ocr, plain := o.Processors["ocr"], o.Processors["plain"]
		if ocr.Kind != "exec" || ocr.Concurrency != 4 || ocr.Timeout != time.Minute || ocr.Policy.Attempts != 3 || !ocr.Trusted || ocr.Do == nil {
			t.Errorf("got %+v", ocr)
		}
		if plain.Concurrency != runtime.GOMAXPROCS(0) || plain.Timeout != 0 {
			t.Errorf("got %+v", plain)
		}
	})

	t.Run("a schema stands there or in a file, and loses no digit", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "item.schema.json")
		if err := os.WriteFile(file, []byte(`{"maximum": 12345678901234567890.5}`), 0o600); err != nil {
			t.Fatal(err)
		}
		o, _, err := load(t, `
processors:
  a: {jq: ., schema: {type: object, properties: {$x: {multipleOf: 0.01, maximum: 9007199254740993}}, required: [$x]}}
  b: {jq: ., schema: {file: '`+file+`'}}
  c: {jq: ., schema: {}}
  d: {jq: .}
`, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			"a": `{"properties":{"$x":{"maximum":9007199254740993,"multipleOf":0.01}},"required":["$x"],"type":"object"}`,
			"b": `{"maximum": 12345678901234567890.5}`, "c": `{}`, "d": ``,
		} {
			if got := string(o.Processors[name].Schema); got != want {
				t.Errorf("%s: got %s, want %s", name, got, want)
			}
		}
	})
}

func TestConfigMistakes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		file  string
		env   []string
		flags []string
		want  []string // in the error, where "FILE" stands for the file's path
	}{
		{"an unknown key", "listen: x\nlisten_on: y\n", nil, nil, []string{"FILE:2: listen_on: unknown key"}},
		{"an unknown key further in", "callbacks:\n  timeout: 1s\n  timout: 2s\n", nil, nil, []string{"FILE:3: callbacks.timout: unknown key"}},
		{"an unknown key of a processor", "processors:\n  a:\n    jq: .\n    sql: ls\n", nil, nil, []string{"FILE:4: processors.a.sql: unknown key"}},
		{"an unknown key of a program", "processors:\n  a:\n    exec: {cmd: [ls]}\n", nil, nil, []string{"FILE:3: processors.a.exec.cmd: unknown key", "FILE:3: processors.a.exec.command: is required"}},
		{"a program for a shell to read", "processors:\n  a:\n    exec:\n      command: ./ocr --json\n", nil, nil, []string{"FILE:4: processors.a.exec.command: must be a list of a program and its arguments, not ./ocr --json: no shell reads it"}},
		{"a program of nothing", "processors: {a: {exec: {command: []}}}\n", nil, nil, []string{"processors.a.exec.command: is required"}},
		{"a variable that is not there", "processors:\n  a:\n    exec:\n      command: [ls]\n      env: {KEY: {env: OCR_KEY}}\n", nil, nil, []string{"FILE:5: processors.a.exec.env.KEY: the environment has no OCR_KEY"}},
		{"a variable nobody can name", "processors: {a: {exec: {command: [ls], env: {A-B: x}}}}\n", nil, nil, []string{"processors.a.exec.env.A-B: is not the name of a variable"}},
		{"a schema that is none", "processors:\n  a:\n    jq: .\n    schema:\n      properties: {qty: {type: int}}\n", nil, nil, []string{`FILE:4: processors.a.schema: the schema is not one: at "/properties/qty/type"`}},
		{"a schema somewhere else", "processors:\n  a:\n    jq: .\n    schema: {$ref: 'http://x.example/schema'}\n", nil, nil, []string{`FILE:4: processors.a.schema: the schema refers to "http://x.example/schema": nothing is loaded`}},
		{"a schema in a file that is not there", "processors:\n  a:\n    jq: .\n    schema: {file: no/such.json}\n", nil, nil, []string{"FILE:4: processors.a.schema: open no/such.json"}},
		{"a schema that is a name", "processors:\n  a:\n    jq: .\n    schema: item.json\n", nil, nil, []string{"FILE:4: processors.a.schema: must be a map of keys, not item.json"}},
		{"a key in capitals", "Listen: x\n", nil, nil, []string{"FILE:1: Listen: unknown key"}},
		{"a key twice", "listen: x\nlisten: y\n", nil, nil, []string{"FILE:1: listen: stands in line 2 too"}},
		{"not YAML", "listen: [x\n", nil, nil, []string{"FILE", "line"}},
		{"not a map", "- listen\n", nil, nil, []string{"FILE"}},
		{"a number without its unit", "callbacks: {timeout: 15}\n", nil, nil, []string{"FILE:1: callbacks.timeout: give a unit, as in 15s"}},
		{"a duration of nothing", "drain: 0s\n", nil, nil, []string{"FILE:1: drain: must be more than 0"}},
		{"a duration in the past", "drain: -1s\n", nil, nil, []string{`drain: "-1s" is not a duration`}},
		{"a bad step of the schedule", "callbacks:\n  schedule:\n  - 0s\n  - soon\n", nil, nil, []string{`FILE:4: callbacks.schedule.1: "soon" is not a duration`}},
		{"a bad size", "limits: {item_bytes: 1 zillion}\n", nil, nil, []string{`limits.item_bytes: "1 zillion" is not a size`}},
		{"a size too large for a number", "limits: {body_bytes: 99999999TiB}\n", nil, nil, []string{"limits.body_bytes", "not a size"}},
		{"half an item", "limits: {items: 1.5}\n", nil, nil, []string{"limits.items: must be a whole number, not 1.5"}},
		{"no items", "limits: {items: 0}\n", nil, nil, []string{"limits.items: 0 is out of range"}},
		{"a port out of range", "callbacks: {ports: [70000]}\n", nil, nil, []string{"callbacks.ports.0: 70000 is out of range"}},
		{"a number without its unit in a variable", "", []string{"CALLBATCH_DRAIN=20"}, nil, []string{"CALLBATCH_DRAIN: give a unit, as in 20s"}},
		{"a map where a duration belongs", "drain: {a: b}\n", nil, nil, []string{"FILE:1: drain: must be text, not a map"}},
		{"a schedule without a step", "callbacks:\n  schedule: []\n", nil, nil, []string{"FILE:2: callbacks.schedule: needs at least one step"}},
		{"a schedule without a step in a variable", "", []string{"CALLBATCH_CALLBACKS_SCHEDULE=,"}, nil, []string{"CALLBATCH_CALLBACKS_SCHEDULE: needs at least one step"}},
		{"not a CIDR", "callbacks: {allow: [localhost]}\n", nil, nil, []string{`callbacks.allow.0: "localhost" is not a network such as "10.0.0.0/8"`}},
		{"not an address to listen on", "listen: foo\n", nil, nil, []string{`FILE:1: listen: must look like "127.0.0.1:8080", not "foo"`}},
		{"an address without a port", "", nil, []string{"--listen", "127.0.0.1:"}, []string{"--listen: must look like"}},
		{"a port that is none", "", nil, []string{"--listen", "127.0.0.1:99999"}, []string{"--listen: must look like"}},
		{"dev for others to reach", "", nil, []string{"--dev", "--listen", ":8080"}, []string{"--listen: --dev needs no key, so it serves loopback only"}},
		{"text where a truth value belongs", "dev: perhaps\n", nil, nil, []string{"dev: must be true or false, not perhaps"}},
		{"a number where text belongs", "listen: 8080\n", nil, nil, []string{"listen: must be text, not 8080"}},
		{"a value where a map belongs", "callbacks: yes\n", nil, nil, []string{"callbacks: must be a map of keys"}},
		{"a value where a list belongs", "callbacks: {ports: 80}\n", nil, nil, []string{"callbacks.ports: must be a list"}},
		{"an unknown log level", "log: {level: loud}\n", nil, nil, []string{`log.level: must be "debug", "info", "warn" or "error"`}},
		{"an unknown log format", "log: {format: xml}\n", nil, nil, []string{`log.format: must be "auto", "json" or "text"`}},
		{"a processor without a kind", "processors:\n  a: {}\n", nil, nil, []string{"FILE:2: processors.a: needs a kind"}},
		{"a processor of two kinds", "processors: {a: {jq: ., http: {url: http://x}}}\n", nil, nil, []string{"processors.a: is of one kind, not of http and jq"}},
		{"a broken program", "processors:\n  a:\n    jq: '{total: '\n", nil, nil, []string{"FILE:3: processors.a.jq: jq program at line 1"}},
		{"a secret that is not there", "processors:\n  a:\n    http:\n      url: http://x.example\n      headers:\n        authorization: {env: IMAGES_TOKEN}\n", nil, nil, []string{"FILE:6: processors.a.http.headers.authorization: the environment has no IMAGES_TOKEN"}},
		{"a secret that is empty", "processors: {a: {http: {url: http://x.example, headers: {x-key: {env: IMAGES_TOKEN}}}}}\n", []string{"IMAGES_TOKEN="}, nil, []string{"headers.x-key: the environment has no IMAGES_TOKEN"}},
		{"a header with a value and a variable", "processors: {a: {http: {url: http://x.example, headers: {x-key: {env: A, value: b}}}}}\n", []string{"A=a"}, nil, []string{"headers.x-key: has a value or the name of a variable, not both"}},
		{"an upstream that is none", "processors:\n  a:\n    http: {url: ftp://x.example}\n", nil, nil, []string{"FILE:3: processors.a.http: url: not an http or https URL"}},
		{"an upstream without a URL", "processors:\n  a:\n    http: {rate: 1}\n", nil, nil, []string{"FILE:3: processors.a.http.url: is required"}},
		{"a name of nothing", "processors:\n  '': {jq: .}\n", nil, nil, []string{"FILE:2: processors.: a name is 1 to 64 letters"}},
		{"a name with a blank", "processors:\n  a b: {jq: .}\n", nil, nil, []string{"FILE:2: processors.a b: a name is 1 to 64 letters"}},
		{"a name too long", "processors: {" + strings.Repeat("a", 65) + ": {jq: .}}\n", nil, nil, []string{"a name is 1 to 64 letters"}},
		{"a rate of nothing", "processors: {a: {http: {url: http://x, rate: 0}}}\n", nil, nil, []string{"processors.a.http.rate: must be a number more than 0"}},
		{"an item larger than a store takes", "limits: {item_bytes: 2MiB}\n", nil, nil, []string{"limits.item_bytes: must be 1 to 1048576, not 2097152"}},
		{"a page smaller than an envelope", "callbacks: {page_bytes: 100}\n", nil, nil, []string{"callbacks.page_bytes: must be 1024 to 1048576, not 100"}},
		{"a page of more than a range", "callbacks: {page_items: 257}\n", nil, nil, []string{"callbacks.page_items: must be 1 to 256, not 257"}},
		{"a public URL without a scheme", "public_url: batches.example\n", nil, nil, []string{"FILE:1: public_url: must look like"}},
		{"a public URL with a password", "", []string{"CALLBATCH_PUBLIC_URL=https://a:b@c.example"}, nil, []string{"CALLBATCH_PUBLIC_URL: must look like"}},
		{"a default nobody has", "default_processor: b\nprocessors: {a: {jq: .}}\n", nil, nil, []string{`FILE:1: default_processor: no processor is called "b"`}},
		{"a mistake in a variable", "drain: 1s\n", []string{"CALLBATCH_DRAIN=soon"}, nil, []string{`CALLBATCH_DRAIN: "soon" is not a duration`}},
		{"several at once, in the file's order", "drain: x\nlisten: 1\nlog: {level: q}\n", nil, nil, []string{"FILE:1: drain", "\nFILE:2: listen", "\nFILE:3: log.level"}},
		{"a file that is not there", "", []string{"CALLBATCH_CONFIG=no/such.yaml"}, nil, []string{"no/such.yaml"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := load(t, tt.file, tt.env, tt.flags...)
			if err == nil {
				t.Fatal("no error")
			}
			if code := exitCode(err); code != exitUsage {
				t.Errorf("exit code %d, want %d", code, exitUsage)
			}
			got := regexp.MustCompile(`\S*callbatch\.yaml`).ReplaceAllString(err.Error(), "FILE")
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("error:\n%s\nwant in it: %s", got, want)
				}
			}
		})
	}
}
