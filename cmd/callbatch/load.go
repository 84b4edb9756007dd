package main

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"github.com/callbatch/callbatch/batch/server"
)

// envPrefix begins the name of every variable that is ours.
const envPrefix = "CALLBATCH_"

// settingFlags adds the flags that set something of a server to a command.
func settingFlags(f *pflag.FlagSet) {
	f.String("config", "", "configuration `file` (YAML)")
	f.String("listen", "", "`address` to listen on; port 0 picks a free one (default 127.0.0.1:8080)")
	f.String("store", "", "`path` of the store file, made if it does not exist (default callbatch.db)")
	f.String("public-url", "", "`url` under which the world reaches this server, kept with every batch for links")
	f.Bool("dev", false, "for one's own machine: loopback only, no key needed, http callbacks to loopback allowed")
}

// A loader puts the layers together and remembers where each came from, so
// that an error can say what to change.
type loader struct {
	w     *world
	flags *pflag.FlagSet
	doc   *document
}

// settings are what the layers come to, without a mistake.
type settings struct {
	*loader
	config     config
	raw        map[string]any // as it was written
	processors map[string]server.Processor
}

// loadSettings reads the file that --config or CALLBATCH_CONFIG names, if any,
// and lays the environment and the flags over it. Its error names every
// mistake by file and line, variable or flag.
func loadSettings(w *world, flags *pflag.FlagSet) (*settings, error) {
	l := &loader{w: w, flags: flags}
	path, err := flags.GetString("config")
	if err != nil {
		return nil, err
	}
	if l.doc, err = readDocument(cmp.Or(path, w.getenv(envPrefix+"CONFIG"))); err != nil {
		return nil, usagef("configuration: %w", err)
	}
	s := &settings{loader: l}
	if s.raw, err = l.layers(); err != nil {
		return nil, usagef("configuration: %w", err)
	}
	c, mistakes := l.decode(s.raw)
	s.config = c.withEcho()
	var wrong []mistake
	s.processors, wrong = s.config.build(w)
	mistakes = append(append(mistakes, wrong...), s.config.mistakes()...)
	if l.doc != nil {
		mistakes = append(mistakes, l.doc.repeated...)
	}
	if len(mistakes) > 0 {
		return nil, usagef("configuration:\n%s", l.explain(mistakes))
	}
	return s, nil
}

// options returns what a server is to be run with.
func (s *settings) options() server.Options {
	o := s.config.options()
	o.Processors = s.processors
	o.AdminKeyFile = s.w.getenv(envPrefix + "ADMIN_KEY_FILE")
	return o
}

// oddities says what an operator can hardly have meant.
func (s *settings) oddities() (all []string) {
	for _, name := range unknownVariables(s.w.env) {
		all = append(all, "an environment variable looks like a setting, but is none: "+name)
	}
	if len(s.processors) == 0 {
		all = append(all, "no processor is configured: every batch will be refused")
	}
	return all
}

func (l *loader) layers() (map[string]any, error) {
	k := koanf.New(".")
	if l.doc != nil {
		if err := k.Load(l.doc, nil); err != nil {
			return nil, fmt.Errorf("%s: %w", l.doc.path, err)
		}
	}
	twins := environment()
	err := k.Load(env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return l.w.env },
		TransformFunc: func(name, _ string) (string, any) {
			if value := l.w.getenv(name); value != "" {
				return twins[name], value
			}
			return "", nil
		},
	}), nil)
	if err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	known := slices.Collect(maps.Values(twins))
	err = k.Load(posflag.ProviderWithFlag(l.flags, ".", nil, func(f *pflag.Flag) (string, any) {
		if key := flagKey(f); slices.Contains(known, key) {
			return key, posflag.FlagVal(l.flags, f)
		}
		return "", nil
	}), nil)
	if err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	return k.Raw(), nil
}

// A mistake is one thing wrong with one key.
type mistake struct{ key, text string }

func (l *loader) decode(raw map[string]any) (config, []mistake) {
	var c config
	d, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result: &c, TagName: "koanf",
		MatchName:  func(a, b string) bool { return a == b },
		DecodeHook: mapstructure.ComposeDecodeHookFunc(strictly, mapstructure.TextUnmarshallerHookFunc()),
	})
	if err != nil {
		panic("config: the decoder's own settings are wrong: " + err.Error())
	}
	mistakes := decodeMistakes(d.Decode(raw))
	return c, append(mistakes, unknownKeys(raw, reflect.TypeOf(c), "")...)
}

// unknownKeys returns the keys under raw that t has no place for.
func unknownKeys(raw any, t reflect.Type, prefix string) []mistake {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	values, _ := raw.(map[string]any)
	var all []mistake
	for key, value := range values {
		switch t.Kind() {
		case reflect.Map:
			all = append(all, unknownKeys(value, t.Elem(), prefix+key+".")...)
		case reflect.Struct:
			f, known := t.FieldByNameFunc(func(name string) bool {
				f, _ := t.FieldByName(name)
				return f.Tag.Get("koanf") == key
			})
			if !known {
				all = append(all, mistake{prefix + key, "unknown key"})
				continue
			}
			all = append(all, unknownKeys(value, f.Type, prefix+key+".")...)
		}
	}
	return all
}

func decodeMistakes(err error) []mistake {
	switch e := err.(type) {
	case nil:
		return nil
	case interface{ Unwrap() []error }:
		var all []mistake
		for _, err := range e.Unwrap() {
			all = append(all, decodeMistakes(err)...)
		}
		return all
	case *mapstructure.DecodeError:
		return []mistake{{dotted(e.Name()), e.Unwrap().Error()}}
	case interface{ Unwrap() error }: // the decoder's heading over them all
		return decodeMistakes(e.Unwrap())
	default:
		return []mistake{{"", err.Error()}}
	}
}

// dotted turns the decoder's way to name a place, "processors[price].jq[0]",
// into the one used here, "processors.price.jq.0".
func dotted(name string) string {
	return strings.NewReplacer("[", ".", "]", "").Replace(name)
}

// explain lists mistakes, each at its place, in the order of the file.
func (l *loader) explain(mistakes []mistake) string {
	line := func(m mistake) int { return l.doc.line(m.key) }
	slices.SortStableFunc(mistakes, func(a, b mistake) int {
		return cmp.Or(cmp.Compare(line(a), line(b)), cmp.Compare(a.key, b.key))
	})
	var lines []string
	for _, m := range mistakes {
		lines = append(lines, l.place(m.key)+": "+m.text)
	}
	return strings.Join(lines, "\n")
}

// place says where to change key: in the layer that won.
func (l *loader) place(key string) string {
	if from := l.layer(key); from != "" {
		return from
	}
	if line := l.doc.line(key); line > 0 {
		return fmt.Sprintf("%s:%d: %s", l.doc.path, line, key)
	}
	return key
}

// origin says where key, and nothing above it, got its value.
func (l *loader) origin(key string) string {
	if from := l.layer(key); from != "" {
		return from
	}
	if l.doc != nil && l.doc.lines[key] > 0 {
		return fmt.Sprintf("%s:%d", l.doc.path, l.doc.lines[key])
	}
	return "default"
}

// layer returns the flag or the variable that sets key; empty: neither.
func (l *loader) layer(key string) string {
	var flag string
	l.flags.Visit(func(f *pflag.Flag) {
		if flagKey(f) == key {
			flag = "--" + f.Name
		}
	})
	if flag != "" {
		return flag
	}
	if l.w.getenv(twin(key)) != "" {
		return twin(key)
	}
	return ""
}

func flagKey(f *pflag.Flag) string { return strings.ReplaceAll(f.Name, "-", "_") }

// twin returns the name of the variable that sets key.
func twin(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// environment returns the key that each of our variables sets.
func environment() map[string]string {
	twins := make(map[string]string)
	for _, key := range scalarKeys(reflect.TypeFor[config](), "") {
		twins[twin(key)] = key
	}
	return twins
}

// unknownVariables returns the names of those that begin like ours and that no
// command reads: mistyped ones, most likely. What Kubernetes sets for a service
// called callbatch is not among them.
func unknownVariables(env []string) []string {
	twins := environment()
	var unknown []string
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || value == "" || twins[name] != "" || slices.Contains([]string{"CONFIG", "ADMIN_KEY_FILE", "URL", "KEY", "SECRET"}, rest) {
			continue
		}
		if rest != "PORT" && !strings.HasPrefix(rest, "PORT_") && !strings.HasPrefix(rest, "SERVICE_") {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// scalarKeys returns the keys under t that hold a single value or a list.
func scalarKeys(t reflect.Type, prefix string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		key := prefix + f.Tag.Get("koanf")
		switch f.Type.Kind() {
		case reflect.Struct:
			keys = append(keys, scalarKeys(f.Type, key+".")...)
		case reflect.Map:
		default:
			keys = append(keys, key)
		}
	}
	return keys
}
