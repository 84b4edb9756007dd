package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newBench(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine with this configuration",
		Long: `Measure what this machine does with the settings that serve would take: five
loads, one after the other, and what each came to. Whatever is not measured is
said, with the reason.

A server of its own is started for it, on loopback, with a store in a temporary
folder beside the one that is configured, on the same disk. Client, receiver and
upstream are in the same process and share its processors. It takes about a
minute and leaves nothing behind.

With --url a server that runs is measured instead, as far as that can be done
from outside: with its own processor, without memory, and with webhooks only if
it is on this machine. It keeps nothing of it if it can delete.`,
		Example: `  callbatch bench --config callbatch.yaml
  callbatch bench --quick --output json
  callbatch bench --url http://127.0.0.1:8080 --processor price`,
		Args: exactly(),
	}
	var b bench
	settingFlags(cmd.Flags())
	b.register(cmd.Flags())
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := b.complete(cmd.Flags()); err != nil {
			return err
		}
		return b.run(cmd.Context(), w, cmd.Flags(), *output)
	}
	return cmd
}

// A bench is what bench was told to do.
type bench struct {
	quick     bool
	url       string
	processor string
}

func (b *bench) register(f *pflag.FlagSet) {
	f.BoolVar(&b.quick, "quick", false, "smaller loads, once each: some seconds instead of a minute")
	f.StringVar(&b.url, "url", "", "measure the server at this `url`, with the key in CALLBATCH_KEY")
	f.StringVar(&b.processor, "processor", "", "with --url: `name` of the processor (default the server's)")
}

// complete judges the flags together.
func (b *bench) complete(f *pflag.FlagSet) error {
	if b.url == "" && b.processor != "" {
		return usagef("--processor is for --url: the server of bench has its own")
	}
	for _, name := range []string{"config", "listen", "store", "public-url", "dev"} {
		if b.url != "" && f.Changed(name) {
			return usagef("--%s is for a server of its own: leave it out, or --url", name)
		}
	}
	return nil
}

// An outcome is what became of one load.
type outcome struct {
	Load    string             `json:"load"`
	Values  map[string]float64 `json:"values"`  // by name and unit; nil: it was not measured
	Skipped string             `json:"skipped"` // why not; empty: it was

	shown  string // the values, for people
	failed bool   // it could have been measured
}

// A report is all that bench found.
type report struct {
	Version string    `json:"version"`
	CPUs    int       `json:"cpus"`
	Server  string    `json:"server"`  // its URL, or "embedded"
	Store   string    `json:"store"`   // the folder it is in; empty: another machine's
	SyncMS  float64   `json:"sync_ms"` // of a small write to the same disk; 0: not measured
	Quick   bool      `json:"quick"`
	Loads   []outcome `json:"loads"`
}

func (b *bench) run(ctx context.Context, w *world, f *pflag.FlagSet, o output) (err error) {
	r := report{Version: readBuild().Version, CPUs: runtime.GOMAXPROCS(0), Server: cmp.Or(b.url, "embedded"), Quick: b.quick}
	var s *stand
	if b.url != "" {
		s, err = b.reach(ctx, w)
	} else {
		s, err = b.embed(ctx, w, f, &r)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for i, t := range trials {
		fmt.Fprintf(w.stderr, "%d of %d: %s\n", i+1, len(trials), t.name)
		found := s.measure(ctx, t)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.Loads = append(r.Loads, found)
	}
	if o == outputJSON {
		err = writeDocument(w, r)
	} else {
		err = r.write(w)
	}
	if err == nil && slices.ContainsFunc(r.Loads, func(l outcome) bool { return l.failed }) {
		return errors.New("not everything could be measured")
	}
	return err
}

// write writes the report as a table.
func (r report) write(w *world) error {
	where := r.Server
	if r.Store != "" {
		where = fmt.Sprintf("store in %s (a sync takes %.2f ms)", r.Store, r.SyncMS)
	}
	fmt.Fprintf(w.stdout, "callbatch %s, %d CPUs, %s\n\n", r.Version, r.CPUs, printable(where, mostShown))
	t := tabwriter.NewWriter(w.stdout, 0, 0, 2, ' ', 0)
	for _, f := range r.Loads {
		shown := f.shown
		if f.Skipped != "" {
			shown = "not measured: " + printable(f.Skipped, mostShown)
		}
		fmt.Fprintf(t, "%s\t%s\n", f.Load, shown)
	}
	return t.Flush()
}

// isHere reports whether a server's URL leads to this machine, from where it
// reaches a receiver on loopback.
func isHere(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// thousands writes a number with a comma at every three digits.
func thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", v)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// benchPatience is how long one load may take.
const benchPatience = 2 * time.Minute
