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

func newPause(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pause ID",
		Short: "Start no more items of a batch, for now",
		Long: `Start no more items of a batch until it is resumed; those being worked on finish
and are recorded. Pausing twice is as good as once; a batch that has ended, or
is about to, is a conflict.`,
		Args: exactly("ID"),
	}
	output := outputFlag(cmd)
	cmd.RunE = onBatch(w, output, (*client.Client).Pause)
	return cmd
}

func newResume(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "resume ID",
		Short: "Go on with a batch that is paused",
		Long: `Go on with a batch that is paused. One that is not is left as it is; one that has
ended is a conflict.`,
		Args: exactly("ID"),
	}
	output := outputFlag(cmd)
	cmd.RunE = onBatch(w, output, (*client.Client).Resume)
	return cmd
}
