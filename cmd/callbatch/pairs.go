package main

import (
	"errors"
	"strings"
)

// pairs are the keys and values of metadata, as the value of a flag that may
// be repeated.
type pairs map[string]string

// Set, String and Type make pairs the value of a flag.
func (p *pairs) Set(text string) error {
	k, v, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("it is key=value")
	}
	if *p == nil {
		*p = make(pairs)
	}
	(*p)[k] = v
	return nil
}

func (p *pairs) String() string {
	var all []string
	for k, v := range *p {
		all = append(all, k+"="+v)
	}
	return strings.Join(all, ",")
}

func (p *pairs) Type() string { return "key=value" }
