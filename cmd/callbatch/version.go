package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// A build says what this binary was made from.
type build struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Commit  string `json:"commit"` // "unknown" where the build recorded none
	Go      string `json:"go"`
}

func readBuild() build {
	b := build{Name: "callbatch", Version: "dev", Commit: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	var dirty bool
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = cmp.Or(s.Value, b.Commit)
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty {
		b.Commit += " (modified)"
	}
	return b
}

func (b build) String() string {
	return fmt.Sprintf("%s %s, commit %s, %s", b.Name, b.Version, b.Commit, b.Go)
}

func newVersion(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Say which build this is",
		Args:  exactly(),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		b := readBuild()
		if *output == outputJSON {
			return writeDocument(w, b)
		}
		_, err := fmt.Fprintln(w.stdout, b)
		return err
	}
	return cmd
}
