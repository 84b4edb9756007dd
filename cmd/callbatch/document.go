package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A document is a configuration file that knows the line of each key.
type document struct {
	path     string
	root     yaml.Node
	lines    map[string]int // by dotted key
	repeated []mistake      // keys that stand there more than once
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
	d := &document{path: path, lines: make(map[string]int)}
	if err := yaml.Unmarshal(text, &d.root); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	d.index(&d.root, "")
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
		var once []*yaml.Node
		for pair := range slices.Chunk(n.Content, 2) {
			key := under(pair[0].Value)
			if first := d.lines[key]; first > 0 {
				d.repeated = append(d.repeated, mistake{key, fmt.Sprintf("stands in line %d too", pair[0].Line)})
				continue
			}
			d.lines[key] = pair[0].Line
			d.index(pair[1], key)
			once = append(once, pair...)
		}
		n.Content = once // or it would not be decoded
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

// Read and ReadBytes make a document a source of configuration.
func (d *document) Read() (values map[string]any, err error) {
	if d.root.IsZero() { // the file is empty
		return nil, nil
	}
	err = d.root.Decode(&values)
	return values, err
}

func (d *document) ReadBytes() ([]byte, error) {
	return nil, errors.New("a document is read as values")
}
