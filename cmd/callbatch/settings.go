package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newConfig(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config check|print [FILE]",
		Short: "Check a server's settings, or show what they come to",
		Long: `Check the settings of a server, or show what they come to, without starting one.
They come from where serve takes them: flags, the environment, the configuration
file and defaults, in this order. Give the flags that serve is given.`,
		Example: `  callbatch config check callbatch.yaml
  callbatch config print callbatch.yaml --dev`,
		DisableFlagsInUseLine: true,

		Args: cobra.ArbitraryArgs, // RunE says what there is
		RunE: func(cmd *cobra.Command, _ []string) error { return usagef("usage: %s", cmd.UseLine()) },
	}
	cmd.AddCommand(newConfigCheck(w), newConfigPrint(w))
	return cmd
}

func newConfigCheck(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say whether serve would take these settings",
		Long: `Say whether serve would take these settings. Every mistake is named with its file
and line, its variable or its flag, as serve names it, and the exit code is 2.
What can hardly be meant is said, and is no mistake.`,
	}
	cmd.RunE = onSettings(cmd, w, func(s *settings) error {
		for _, odd := range s.oddities() {
			fmt.Fprintf(w.stderr, "warning: %s\n", printable(odd, mostLine))
		}
		what := "the configuration"
		if s.doc != nil {
			what = s.doc.path
		}
		_, err := fmt.Fprintf(w.stdout, "%s is sound\n", printable(what, mostLine))
		return err
	})
	return cmd
}

func newConfigPrint(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "print [FILE]",
		Short: "Show the settings in force, and where each comes from",
		Long: `Show the settings in force as a configuration file, each with the flag, the
variable or the line it comes from. Secrets are masked; where none is, serve
takes the file that is written.`,
		Example: "  callbatch config print >effective.yaml",
	}
	cmd.RunE = onSettings(cmd, w, func(s *settings) error {
		text, masked := s.render()
		if masked {
			fmt.Fprintln(w.stderr, "secrets are masked: put them in before it is used")
		}
		_, err := w.stdout.Write(text)
		return err
	})
	return cmd
}

// onSettings adds the flags of serve to a command, with the file also as its
// argument, and runs it on the settings they come to.
func onSettings(cmd *cobra.Command, w *world, do func(*settings) error) func(*cobra.Command, []string) error {
	settingFlags(cmd.Flags())
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
	return func(cmd *cobra.Command, args []string) error {
		f := cmd.Flags()
		if len(args) == 1 {
			if f.Changed("config") {
				return usagef("the file is named twice: leave out --config")
			}
			if err := f.Set("config", args[0]); err != nil {
				return err
			}
		}
		s, err := loadSettings(w, f)
		if err != nil {
			return err
		}
		return do(s)
	}
}
