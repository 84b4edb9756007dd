package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/process/command"
	"github.com/callbatch/callbatch/batch/process/jq"
	"github.com/callbatch/callbatch/batch/process/upstream"
	"github.com/callbatch/callbatch/batch/schema"
	"github.com/callbatch/callbatch/batch/server"
)

// A processor is one of exactly one kind, and may say what its items have to
// look like: a JSON Schema as it stands, or {file: PATH}.
type processor struct {
	JQ     string         `koanf:"jq"`
	HTTP   *uphill        `koanf:"http"`
	Exec   *workshop      `koanf:"exec"`
	Schema map[string]any `koanf:"schema"`
}

// An uphill is the operator's own HTTP service that works on items.
type uphill struct {
	URL         string            `koanf:"url"`
	Concurrency int               `koanf:"concurrency"`
	Rate        float64           `koanf:"rate"`
	Timeout     span              `koanf:"timeout"`
	Headers     map[string]header `koanf:"headers"`
	Attempts    int               `koanf:"attempts"`
	Envelope    bool              `koanf:"envelope"`
}

// A workshop is the operator's own program that works on items.
type workshop struct {
	Command     words             `koanf:"command"`
	Concurrency int               `koanf:"concurrency"`
	Timeout     span              `koanf:"timeout"`
	Env         map[string]header `koanf:"env"`
	Dir         string            `koanf:"dir"`
	Attempts    int               `koanf:"attempts"`
}

// A header, and a variable of a worker, has its value written down or, as
// secrets do, in a variable of the server's environment.
type header struct {
	Value string `koanf:"value"`
	Env   string `koanf:"env"`
}

var processorName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// echo is what --dev works with when nothing is configured, so that the
// first request succeeds.
const echo = "echo"

// withEcho returns c with a processor that gives items back as they are, if
// it has none and is for trying things.
func (c config) withEcho() config {
	if c.Dev && len(c.Processors) == 0 {
		c.Processors = map[string]processor{echo: {JQ: "."}}
		c.DefaultProcessor = cmp.Or(c.DefaultProcessor, echo)
	}
	return c
}

// jqTimeout is how long a program may take over one item. Programs work in
// memory and take microseconds; one that does not end also takes memory until
// it is stopped, so as many run at once as there are processors, and not long.
const jqTimeout = 5 * time.Second

// build makes every configured processor. The ones that cannot be made are
// among the mistakes.
func (c config) build(w *world) (map[string]server.Processor, []mistake) {
	made := make(map[string]server.Processor, len(c.Processors))
	var all []mistake
	for _, name := range slices.Sorted(maps.Keys(c.Processors)) {
		if !processorName.MatchString(name) {
			all = append(all, mistake{"processors." + name, "a name is 1 to 64 letters, digits, dots, underscores or hyphens"})
		}
		p, wrong := c.Processors[name].build(w, "processors."+name, int(c.Limits.Output))
		made[name] = p
		all = append(all, wrong...)
	}
	return made, all
}

func (p processor) build(w *world, key string, output int) (server.Processor, []mistake) {
	made, all := p.buildKind(w, key, output)
	text, err := p.schema()
	if err == nil && text != nil {
		_, err = schema.Compile(text)
	}
	if err != nil {
		all = append(all, mistake{key + ".schema", err.Error()})
	}
	made.Schema = text
	return made, all
}

func (p processor) buildKind(w *world, key string, output int) (server.Processor, []mistake) {
	var kinds []string
	for kind, there := range map[string]bool{"jq": p.JQ != "", "http": p.HTTP != nil, "exec": p.Exec != nil} {
		if there {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) > 1 {
		slices.Sort(kinds)
		return server.Processor{}, []mistake{{key, "is of one kind, not of " + strings.Join(kinds, " and ")}}
	}
	switch {
	case p.JQ != "":
		program, err := jq.New(p.JQ, jq.Options{MaxOutput: output})
		if err != nil {
			return server.Processor{}, []mistake{{key + ".jq", err.Error()}}
		}
		return server.Processor{
			Do: program, Kind: "jq", Trusted: true, Concurrency: runtime.GOMAXPROCS(0), Timeout: jqTimeout,
		}, nil
	case p.HTTP != nil:
		return p.HTTP.build(w, key+".http", output)
	case p.Exec != nil:
		return p.Exec.build(w, key+".exec", output)
	default:
		return server.Processor{}, []mistake{{key, "needs a kind: jq, http or exec"}}
	}
}

// schema returns the text of what items have to look like, nil if it is not
// said.
func (p processor) schema() ([]byte, error) {
	path, named := p.Schema["file"].(string)
	switch {
	case p.Schema == nil:
		return nil, nil
	case named && len(p.Schema) == 1:
		return os.ReadFile(path)
	default:
		text, err := json.Marshal(p.Schema)
		if err != nil {
			return nil, errors.New("is not JSON: the names of its members have to be text")
		}
		return text, nil
	}
}

func (u uphill) build(w *world, key string, output int) (server.Processor, []mistake) {
	if u.URL == "" {
		return server.Processor{}, []mistake{{key + ".url", "is required"}}
	}
	headers, all := u.headers(w, key+".headers")
	if len(all) > 0 {
		return server.Processor{}, all
	}
	p, err := upstream.New(upstream.Options{
		URL: u.URL, Headers: headers, Envelope: u.Envelope, MaxOutput: output, Concurrency: u.Concurrency, Version: readBuild().Version,
	})
	if err != nil {
		return server.Processor{}, []mistake{{key, strings.TrimPrefix(err.Error(), "upstream: ")}}
	}
	return server.Processor{
		Do: p, Kind: "http", Trusted: true, Outside: true, Concurrency: u.Concurrency, Rate: u.Rate, Timeout: time.Duration(u.Timeout),
		Policy: batch.Policy{Attempts: u.Attempts},
	}, nil
}

// headers returns the headers of every request.
func (u uphill) headers(w *world, key string) (map[string]string, []mistake) {
	return valuesOf(u.Headers, w, key)
}

// passedOn are the variables of the server's environment that workers have
// unless they are set for them. The others may be secrets.
var passedOn = []string{"PATH", "HOME", "LANG", "TMPDIR"}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

func (s workshop) build(w *world, key string, output int) (server.Processor, []mistake) {
	env, all := s.environment(w, key+".env")
	if len(s.Command) == 0 || s.Command[0] == "" {
		all = append(all, mistake{key + ".command", "is required: the program and its arguments, such as [./ocr, --json]"})
	}
	if len(all) > 0 {
		return server.Processor{}, all
	}
	p, err := command.New(command.Options{Command: s.Command, Dir: s.Dir, Env: env, MaxOutput: output})
	if err != nil {
		return server.Processor{}, []mistake{{key, err.Error()}}
	}
	return server.Processor{
		Do: p, Kind: "exec", Trusted: true, Outside: true, Concurrency: cmp.Or(s.Concurrency, runtime.GOMAXPROCS(0)),
		Timeout: time.Duration(s.Timeout), Policy: batch.Policy{Attempts: s.Attempts},
	}, nil
}

// environment returns all that workers have of one.
func (s workshop) environment(w *world, key string) ([]string, []mistake) {
	values, all := valuesOf(s.Env, w, key)
	for name := range values {
		if !variableName.MatchString(name) {
			all = append(all, mistake{key + "." + name, "is not the name of a variable: letters, digits and underscores"})
		}
		if strings.Contains(values[name], "\x00") {
			all = append(all, mistake{key + "." + name, "has a zero byte in its value"})
		}
	}
	for _, name := range passedOn {
		if value := w.getenv(name); value != "" && values[name] == "" {
			values[name] = value
		}
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		env = append(env, name+"="+values[name])
	}
	return env, all
}

// valuesOf returns what is written down or stands in the environment.
func valuesOf(named map[string]header, w *world, key string) (map[string]string, []mistake) {
	values := make(map[string]string, len(named))
	var all []mistake
	for _, name := range slices.Sorted(maps.Keys(named)) {
		h := named[name]
		value := h.Value
		if h.Env != "" {
			value = w.getenv(h.Env)
		}
		switch {
		case h.Env != "" && h.Value != "":
			all = append(all, mistake{key + "." + name, "has a value or the name of a variable, not both"})
		case h.Env != "" && value == "":
			all = append(all, mistake{key + "." + name, fmt.Sprintf("the environment has no %s", h.Env)})
		}
		values[name] = value
	}
	return values, all
}
