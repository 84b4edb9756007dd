package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A document is a configuration file that knows the line of each key.
type document struct {
	path  string
	text  []byte
	lines map[string]int // by dotted key
}

// readDocument reads the file at path; without a path there is none.
func readDocument(path string) (*document, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	d := &document{path: path, text: text, lines: make(map[string]int)}
	d.index(&root, "")
	return d, nil
}

func (d *document) index(n *yaml.Node, at string) {
	under := func(name string) string {
		if at == "" {
			return name
		}
		return at + "." + name
	}
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			d.index(c, at)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := under(n.Content[i].Value)
			d.lines[key] = n.Content[i].Line
			d.index(n.Content[i+1], key)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			key := under(strconv.Itoa(i))
			d.lines[key] = c.Line
			d.index(c, key)
		}
	}
}

// line returns the line of key, or of the nearest key above it that the file
// has: 0 if there is none.
func (d *document) line(key string) int {
	if d == nil {
		return 0
	}
	for {
		if n := d.lines[key]; n > 0 {
			return n
		}
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return 0
		}
		key = key[:i]
	}
}

// ReadBytes and Read make a document a source of configuration.
func (d *document) ReadBytes() ([]byte, error) { return d.text, nil }

func (d *document) Read() (map[string]any, error) {
	return nil, fmt.Errorf("a document is read as bytes")
}
