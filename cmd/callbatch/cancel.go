package main

import (
	"github.com/spf13/cobra"
)

func newCancel(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "End a batch early",
		Long: `End a batch early: items that have not been started are canceled, those being
worked on finish and are recorded. Canceling twice is as good as once; a batch
that has ended already is a conflict.`,
		Args: exactly("ID"),
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkID(args[0]); err != nil {
			return err
		}
		c, err := connect(w)
		if err != nil {
			return err
		}
		b, err := c.Cancel(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return writeBatch(w, *output, b)
	}
	return cmd
}
