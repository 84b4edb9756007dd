package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/batch/server"
)

func newServe(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: `Run a server until it is told to stop (SIGINT or SIGTERM). It then takes no new
work, gives what is under way some time to finish, and ends; a second signal
ends it at once, and nothing that was acknowledged is lost. SIGHUP is only
logged: settings are read at the start, a restart applies changed ones.

Settings come from flags, the environment, the configuration file and defaults,
in this order. Every key of the file has a variable: callbacks.allow_http is
CALLBATCH_CALLBACKS_ALLOW_HTTP. CALLBATCH_ADMIN_KEY_FILE names the file that
holds the first key, or is to hold it; without it the key is printed once.`,
		Example: `  callbatch serve --dev
  callbatch serve --config callbatch.yaml --store /var/lib/callbatch/callbatch.db`,
		Args: exactly(),
	}
	settingFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := loadSettings(w, cmd.Flags())
		if err != nil {
			return err
		}
		o := s.options()
		o.Version = readBuild().Version
		o.Logger = newLogger(w, s.config.Log)
		o.Announce = func(key string) { announce(w, key) }
		o.Ready = func(addr net.Addr) { ready(w, o, addr) }
		defer surviveHangUp(o.Logger)()
		for _, odd := range s.oddities() {
			o.Logger.Warn(odd)
		}
		w.trade()
		return server.Run(cmd.Context(), o)
	}
	return cmd
}

// surviveHangUp keeps SIGHUP, by which an operator asks for changed settings,
// from ending the process. It returns how to end that.
func surviveHangUp(log *slog.Logger) (end func()) {
	signals, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range signals {
			log.Warn("SIGHUP: settings are read at the start only, a restart applies changed ones")
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
		<-done
	}
}

// trade gives memory for time: little stays alive in a server, so that by
// default the collector would run at every few megabytes. It costs some tens
// of megabytes and is worth a quarter of the speed. GOGC and GOMEMLIMIT in the
// environment go before.
func (w *world) trade() {
	if w.getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if w.getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(1 << 30)
	}
}

// newLogger writes JSON, but for a person at a terminal.
func newLogger(w *world, l logging) *slog.Logger {
	_, terminal := w.terminal(w.stderr)
	if l.Format == "text" || l.Format != "json" && terminal {
		return slog.New(tint.NewTextHandler(w.stderr, &tint.Options{
			Level: slog.Level(l.Level), TimeFormat: time.TimeOnly, NoColor: !w.lively(w.stderr),
		}))
	}
	return slog.New(slog.NewJSONHandler(w.stderr, &slog.HandlerOptions{
		Level: slog.Level(l.Level),
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			switch a.Value.Kind() {
			case slog.KindTime:
				a.Value = slog.TimeValue(a.Value.Time().UTC())
			case slog.KindDuration:
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		},
	}))
}

// announce shows the first key of a new store, this once.
func announce(w *world, key string) {
	fmt.Fprintf(w.stderr, `
The first key of this store, shown this once; the store keeps only its hash:

    %s

The client commands take it from the environment:

    export CALLBATCH_KEY=%s

`, key, key)
}

// ready logs where the server answers, and helps whoever is trying it.
func ready(w *world, o server.Options, addr net.Addr) {
	o.Logger.Info("ready", "addr", addr.String(), "dev", o.Dev)
	if _, terminal := w.terminal(w.stderr); !o.Dev || !terminal || o.DefaultProcessor == "" {
		return
	}
	fmt.Fprintf(w.stderr, `
Try it from another terminal:

    curl -s http://%s/v1/batches -H 'content-type: application/json' -d '{"items":["hello","world"]}'

`, addr)
}
