package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// An output is how a command writes its results.
type output string

const (
	outputText output = "text"
	outputJSON output = "json"
)

// Set, String and Type make an output the value of a flag.
func (o *output) Set(s string) error {
	switch output(s) {
	case outputText, outputJSON:
		*o = output(s)
		return nil
	}
	return fmt.Errorf(`must be "text" or "json"`)
}

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "text|json" }

// outputFlag adds --output to a command.
func outputFlag(cmd *cobra.Command) *output {
	o := outputText
	cmd.Flags().VarP(&o, "output", "", "how to write results: text or json")
	return &o
}
