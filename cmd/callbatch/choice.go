package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// A choice is one of a few words, as the value of a flag; empty if the flag
// is not given.
type choice struct {
	word  string
	words []string
}

// register adds the flag to a command, with what a shell completes it to.
func (c *choice) register(cmd *cobra.Command, name, usage string) {
	cmd.Flags().Var(c, name, usage+": "+c.list())
	if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(c.words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("the flag was added the line before: " + err.Error())
	}
}

func (c *choice) list() string {
	last := len(c.words) - 1
	return strings.Join(c.words[:last], ", ") + " or " + c.words[last]
}

// Set, String and Type make a choice the value of a flag.
func (c *choice) Set(word string) error {
	if !slices.Contains(c.words, word) {
		return fmt.Errorf("must be %s", c.list())
	}
	c.word = word
	return nil
}

func (c *choice) String() string { return c.word }
func (c *choice) Type() string   { return "word" }
