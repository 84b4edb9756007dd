package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/storage"
)

func newCheck(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check --store PATH",
		Short: "Say whether a store file is sound",
		Long: `Read every record of a store file, compare it with its checksum, and check what
must hold between records. No server may be using the file. What a crash left
behind is tidied up, as at any start; nothing else is changed.

Exits 0 only if the store is sound.`,
		Args: exactly(),
	}
	path := cmd.Flags().String("store", "", "`path` of the store file (default CALLBATCH_STORE)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		file := cmp.Or(*path, w.getenv(envPrefix+"STORE"))
		if file == "" {
			return usagef("which store? give its path with --store")
		}
		if _, err := os.Stat(file); err != nil { // opening would make it
			return fmt.Errorf("check: %w", err)
		}
		store, err := storage.Open(cmd.Context(), file, storage.Options{Logger: newLogger(w, logging{})})
		if err != nil {
			return fmt.Errorf("check: %w", err)
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		if err := store.Check(cmd.Context()); err != nil {
			return fmt.Errorf("check %s: %w", file, err)
		}
		_, err = fmt.Fprintf(w.stdout, "%s is sound\n", file)
		return err
	}
	return cmd
}
