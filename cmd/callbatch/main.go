// Callbatch accepts batches of work over HTTP and sends every result, signed,
// to a callback until it is acknowledged. This command is its server and its
// client; `callbatch demo` shows both at work.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	log.SetOutput(io.Discard)    // net/http quotes there what strangers sent
	context.AfterFunc(ctx, stop) // the first signal asks to stop, the second is not caught: it ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	w := &world{env: env, stdin: stdin, stdout: stdout, stderr: stderr}
	root := NewRoot(w)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !isQuiet(err) {
		explain(w, err)
	}
	return exitCode(err)
}

// A world is all that a command knows of its surroundings.
type world struct {
	env    []string // NAME=value
	stdin  io.Reader
	stdout io.Writer // results, and nothing else
	stderr io.Writer // progress, logs and errors
}

// getenv returns the value of an environment variable, the last one winning.
// One that is empty is as good as none.
func (w *world) getenv(name string) (value string) {
	for _, e := range w.env {
		if k, v, found := strings.Cut(e, "="); found && k == name {
			value = v
		}
	}
	return value
}

// terminal returns out as a terminal, if it is one.
func (w *world) terminal(out io.Writer) (f *os.File, ok bool) {
	f, ok = out.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// lively reports whether out may be coloured and redrawn.
func (w *world) lively(out io.Writer) bool {
	_, ok := w.terminal(out)
	return ok && w.getenv("NO_COLOR") == "" && w.getenv("TERM") != "dumb"
}

// NewRoot returns the command tree.
func NewRoot(w *world) *cobra.Command {
	root := &cobra.Command{
		Use:   "callbatch",
		Short: "A webhook-callback batch processor",
		Long: `Callbatch accepts batches of items over HTTP, works on every item, and sends
the results, signed, to a callback URL until they are acknowledged.

  callbatch demo       see all of it work, in one command
  callbatch serve      run a server
  callbatch submit     send it a batch

The client commands talk to the server at CALLBATCH_URL (by default
` + defaultURL + `) with the key in CALLBATCH_KEY.

Exit codes: 0 fine, 1 failure, 2 usage, 3 the batch ended with failed items,
4 not found, 5 key, 6 conflict, 69 server not reachable, 124 waited too long.`,
		Version:       readBuild().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs, // RunE knows better what to say

		SuggestionsMinimumDistance: 2,
		PersistentPreRunE:          func(cmd *cobra.Command, _ []string) error { return refuseEmpty(cmd.Flags()) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			cmd.SetOut(w.stderr)
			return quiet{errors.Join(usagef("no command"), cmd.Help())}
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetIn(w.stdin)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(newServe(w), newDemo(w), newSubmit(w), newStatus(w), newWatch(w), newList(w), newResults(w),
		newPause(w), newResume(w), newCancel(w), newRetry(w), newDelete(w),
		newMessages(w), newRedeliver(w), newListen(w), newVerify(w), newSecret(w), newConfig(w), newCheck(w), newBench(w), newVersion(w))
	return root
}

// refuseEmpty refuses flags given with nothing in them, which is what
// --callback-url "$HOOKS" becomes where HOOKS is not set.
func refuseEmpty(flags *pflag.FlagSet) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if f.Value.String() == "" {
			err = usagef("--%s is empty: give it a value, or leave it out", f.Name)
		}
	})
	return err
}

// exactly is cobra.ExactArgs with the arguments' names in its error, which is
// one of usage.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

func unknownCommand(root *cobra.Command, name string) error {
	if like := root.SuggestionsFor(name); len(like) > 0 {
		return usagef("unknown command %q; did you mean %s?", name, strings.Join(like, " or "))
	}
	return usagef("unknown command %q; see callbatch --help", name)
}
