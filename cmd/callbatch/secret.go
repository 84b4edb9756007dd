package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/callbatch/callbatch/batch"
	"github.com/callbatch/callbatch/batch/client"
	"github.com/callbatch/callbatch/callback/signature"
	"github.com/callbatch/callbatch/storage"
)

func newSecret(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret show|rotate",
		Short: "Show or renew what signs the webhooks",
		Long: `Show or renew the secret (whsec_…) that signs the webhooks. It is written to
standard output, and nothing else is.

The server at CALLBATCH_URL is asked, with the key in CALLBATCH_KEY. With --store
a store file is opened instead, which no server may have open; there it is the
secret of the tenant "default".`,
		Example: `  callbatch secret show
  callbatch secret rotate --keep-old-for 48h >new.txt`,
		DisableFlagsInUseLine: true,

		Args: cobra.ArbitraryArgs, // RunE says what there is
		RunE: func(cmd *cobra.Command, _ []string) error { return usagef("usage: %s", cmd.UseLine()) },
	}
	cmd.AddCommand(newSecretShow(w), newSecretRotate(w))
	return cmd
}

func newSecretShow(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show",
		Short:   "Write the secret that signs the webhooks",
		Long:    "Write the secret that signs the webhooks. If none was ever signed, it is made.",
		Example: "  CALLBATCH_SECRET=$(callbatch secret show) callbatch verify --request request.txt",
		Args:    exactly(),
	}
	cmd.RunE = onKeeper(cmd, w, func(ctx context.Context, k keeper) error {
		text, err := k.Secret(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w.stdout, printable(text, mostLine))
		return err
	})
	return cmd
}

// longestKeep is how long an old secret may sign beside a new one.
const longestKeep = 7 * 24 * time.Hour

func newSecretRotate(w *world) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Make a new secret, and write it",
		Long: `Make a new secret, and write it. For a while the old one signs every webhook too,
so that receivers can take the new one over; --keep-old-for 0s ends it at once,
for when it has leaked.`,
		Example: "  callbatch secret rotate --keep-old-for 48h >new.txt",
		Args:    exactly(),
	}
	keep := cmd.Flags().Duration("keep-old-for", 24*time.Hour, "how long the old secret signs too, at most 168h")
	cmd.RunE = onKeeper(cmd, w, func(ctx context.Context, k keeper) error {
		if *keep < 0 || *keep > longestKeep {
			return usagef("--keep-old-for is 0s to %s", longestKeep)
		}
		r, err := k.RotateSecret(ctx, *keep)
		if err != nil {
			return err
		}
		if r.OldUntil == nil {
			fmt.Fprintln(w.stderr, "the old secret signs no longer")
		} else {
			fmt.Fprintf(w.stderr, "the old secret signs too until %s\n", localTime(r.OldUntil))
		}
		_, err = fmt.Fprintln(w.stdout, printable(r.Secret, mostLine))
		return err
	})
	return cmd
}

// A keeper has the secret: a server, or a store that none has open.
type keeper interface {
	Secret(context.Context) (string, error)
	RotateSecret(ctx context.Context, keep time.Duration) (client.Rotation, error)
}

// onKeeper adds --store to a command and runs it on what has the secret.
func onKeeper(cmd *cobra.Command, w *world, do func(context.Context, keeper) error) func(*cobra.Command, []string) error {
	file := cmd.Flags().String("store", "", "`path` of a store file to open, instead of asking a server")
	return func(cmd *cobra.Command, _ []string) (err error) {
		if *file == "" {
			c, err := connect(w)
			if err != nil {
				return err
			}
			return do(cmd.Context(), c)
		}
		if _, err := os.Stat(*file); err != nil { // opening would make it
			return fmt.Errorf("secret: %w", err)
		}
		store, err := storage.Open(cmd.Context(), *file, storage.Options{Logger: newLogger(w, logging{})})
		if err != nil {
			return fmt.Errorf("secret: %w", err)
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		return do(cmd.Context(), offline{store})
	}
}

// offline is the keeper that a store itself is, for the tenant "default".
type offline struct{ batch.Vault }

func (o offline) Secret(ctx context.Context) (string, error) {
	secrets, err := o.Secrets(ctx, batch.TenantID{}, freshSecret())
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	return secrets[0].Text, nil
}

func (o offline) RotateSecret(ctx context.Context, keep time.Duration) (r client.Rotation, err error) {
	secrets, err := o.Rotate(ctx, batch.TenantID{}, freshSecret(), keep)
	if err != nil {
		return r, fmt.Errorf("rotate the secret: %w", err)
	}
	r.Secret = secrets[0].Text
	for _, old := range secrets[1:] {
		if r.OldUntil == nil || old.Until.After(*r.OldUntil) {
			r.OldUntil = &old.Until
		}
	}
	return r, nil
}

func freshSecret() batch.Secret {
	return batch.Secret{Text: signature.NewSecret().Reveal(), Created: time.Now().UTC()}
}
