package main

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/process/jq"
	"github.com/callbatch/callbatch/batch/process/upstream"
	"github.com/callbatch/callbatch/batch/server"
)

// A processor is one of exactly one kind.
type processor struct {
	JQ   string  `koanf:"jq"`
	HTTP *uphill `koanf:"http"`
}

// An uphill is the operator's own HTTP service that works on items.
type uphill struct {
	URL         string            `koanf:"url"`
	Concurrency int               `koanf:"concurrency"`
	Rate        float64           `koanf:"rate"`
	Timeout     span              `koanf:"timeout"`
	Headers     map[string]header `koanf:"headers"`
	Attempts    int               `koanf:"attempts"`
}

// A header has its value written down or, as secrets do, in a variable of
// the environment.
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
	switch {
	case p.JQ != "" && p.HTTP != nil:
		return server.Processor{}, []mistake{{key, "is of one kind: jq or http, not both"}}
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
	default:
		return server.Processor{}, []mistake{{key, "needs a kind: jq or http"}}
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
		URL: u.URL, Headers: headers, MaxOutput: output, Concurrency: u.Concurrency, Version: readBuild().Version,
	})
	if err != nil {
		return server.Processor{}, []mistake{{key, strings.TrimPrefix(err.Error(), "upstream: ")}}
	}
	return server.Processor{
		Do: p, Kind: "http", Trusted: true, Concurrency: u.Concurrency, Rate: u.Rate, Timeout: time.Duration(u.Timeout),
		Policy: batch.Policy{Attempts: u.Attempts},
	}, nil
}

// headers returns the headers of every request.
func (u uphill) headers(w *world, key string) (map[string]string, []mistake) {
	values := make(map[string]string, len(u.Headers))
	var all []mistake
	for _, name := range slices.Sorted(maps.Keys(u.Headers)) {
		h := u.Headers[name]
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
