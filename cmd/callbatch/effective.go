package main

import (
	"bytes"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/server"
)

// render writes the settings in force as a configuration file, each with where
// it comes from, and says whether anything in it is masked.
func (s *settings) render() (text []byte, masked bool) {
	p := &printer{settings: s}
	root := p.section(reflect.ValueOf(s.config), reflect.ValueOf(defaults()), "")
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(root); err != nil {
		panic("config: a tree of plain values is written: " + err.Error())
	}
	return b.Bytes(), p.masked
}

// defaults are what holds where nothing is set, in the terms of the file. What
// depends on the machine is not among them.
func defaults() config {
	o := server.Options{}.WithDefaults()
	c := o.Callbacks
	return config{
		Listen: o.Listen, Store: o.Store,
		Limits: limits{
			Items: o.Limits.Items, ItemBytes: size(o.Limits.ItemBytes), Output: size(o.Limits.Output),
			Body: size(o.Limits.Body), Part: size(o.Limits.Part), Ratio: o.Limits.Ratio, MinWork: size(o.Limits.MinWork),
		},
		Callbacks: callbacks{
			Schedule: convert(c.Schedule, func(d time.Duration) wait { return wait(d) }),
			Window:   span(c.Window), Timeout: span(c.Timeout),
			Allow: []network{}, Ports: []uint16{},
			PageBytes: size(c.PageBytes), PageItems: c.PageItems,
			Hold: span(c.Hold), PerHost: c.PerHost, InFlight: c.InFlight,
		},
		Retention: span(o.Retention), Drain: span(o.Drain),
		Log: logging{Format: "auto"},
	}
}

// remarks stand beside defaults that are no value.
var remarks = map[string]string{
	"public_url":        "none",
	"default_processor": "none",
	"limits.min_free":   "1GiB or 5 % of the disk, whichever is more",
}

// A printer turns settings into a tree of YAML.
type printer struct {
	*settings
	masked bool // something is
}

// section writes a struct of settings, in the order of its fields.
func (p *printer) section(set, otherwise reflect.Value, prefix string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := range set.NumField() {
		name := set.Type().Field(i).Tag.Get("koanf")
		key, value := prefix+name, set.Field(i)
		var below *yaml.Node
		switch {
		case key == "processors":
			below = p.written([]string{key}, p.raw[key])
		case value.Kind() == reflect.Struct:
			below = p.section(value, otherwise.Field(i), key+".")
		case value.IsZero():
			below = p.scalar(key, otherwise.Field(i))
		default:
			below = p.scalar(key, value)
		}
		if below != nil {
			n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name}, below)
		}
	}
	return n
}

// scalar writes one setting.
func (p *printer) scalar(key string, v reflect.Value) *yaml.Node {
	from := p.origin(key)
	if key == "default_processor" && from == "default" && !v.IsZero() {
		from = p.origin("dev") // which brings one
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	if _, none := remarks[key]; !none || !v.IsZero() {
		n = p.value(key, v.Interface())
	}
	n.LineComment = from
	if remark := remarks[key]; v.IsZero() && remark != "" {
		n.LineComment += ": " + remark
	}
	return n
}

// written writes a part of the settings as it was written, each value with
// its place; nil if there is none.
func (p *printer) written(path []string, raw any) *yaml.Node {
	switch v := raw.(type) {
	case nil:
		return nil
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if below := p.written(append(slices.Clip(path), name), v[name]); below != nil {
				head := new(yaml.Node)
				head.SetString(name)
				n.Content = append(n.Content, head, below)
			}
		}
		return n
	default:
		n := p.value(strings.Join(path, "."), v)
		if isSecret(path) {
			n, p.masked = new(yaml.Node), true
			n.SetString(hidden)
		}
		n.LineComment = p.origin(strings.Join(path, "."))
		return n
	}
}

// value writes a value, lists in one line, without the secrets that a URL has.
func (p *printer) value(key string, v any) *yaml.Node {
	n := new(yaml.Node)
	if err := n.Encode(v); err != nil {
		panic("config: " + key + " is a plain value: " + err.Error())
	}
	parts := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		n.Style |= yaml.FlowStyle
		parts = n.Content
	}
	for _, part := range parts {
		if shown := maskURLs(part.Value, addresses.MatchString(key)); part.Kind == yaml.ScalarNode && shown != part.Value {
			p.masked = true
			part.SetString(shown)
		}
	}
	return n
}

var (
	addresses = regexp.MustCompile(`^(store|processors\..+\.http\.url)$`) // that are URLs as a whole
	userInfo  = regexp.MustCompile(`://[^/?#@\s]+@`)
)

// maskURLs leaves out who is named in a URL, with the password, and of an
// address the values of the query too.
func maskURLs(text string, address bool) string {
	if address && strings.Contains(text, "://") {
		if shown := batch.MaskURL(text); strings.ContainsAny(text, "?@") {
			return shown
		}
		return text
	}
	return userInfo.ReplaceAllString(text, "://"+hidden+"@")
}

// hidden stands for a secret.
const hidden = "***"

// isSecret reports whether what is at path is for the server, or its workers,
// alone: a header or a variable that is written down, not the name of a
// variable that has it.
func isSecret(path []string) bool {
	const named = 4 // after processors, its name, http and headers
	if len(path) <= named {
		return false
	}
	within := path[named-2] + "." + path[named-1]
	return (within == "http.headers" || within == "exec.env") && (len(path) == named+1 || path[named+1] == "value")
}
