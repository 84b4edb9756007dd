package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newDelete(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete ID",
		Short: "Remove a batch with all that belongs to it",
		Long: `Remove a batch that has ended, or that is still open for its parts, with its
items, results and messages. It cannot be brought back. While messages are owed
to its callback it is a conflict; --force gives them up.`,
		Args: exactly("ID"),
	}
	force := cmd.Flags().Bool("force", false, "also if messages are owed, which are then never sent")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		c, err := connect(w)
		if err != nil {
			return err
		}
		if err := c.Delete(cmd.Context(), args[0], *force); err != nil {
			return err
		}
		_, err = fmt.Fprintf(w.stdout, "%s is deleted\n", args[0])
		return err
	}
	return cmd
}
