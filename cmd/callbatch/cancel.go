package main

import (
	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/batch/client"
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
	cmd.RunE = onBatch(w, output, (*client.Client).Cancel)
	return cmd
}
