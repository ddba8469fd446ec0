package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"walhook/cdc/setup"
)

func newAttachCommand(env *Environment) *cobra.Command {
	var adopt, fresh bool
	cmd := &cobra.Command{
		Use:   "attach",
		Short: "Make schema, publication and slot, and record the state of existing rows",
		Long: `Installs the schema walhook in the store, makes the publication and the slot in the application's database, and records
at the slot's own snapshot what has already happened to the rows that exist, so that nothing fires for it.

It may be repeated, also after an interruption: what is complete is left, and what is not starts over. It upgrades the
store's schema. walhook plan shows beforehand what it does. While it reads the table, readers and writers
do not wait; ALTER TABLE, TRUNCATE and VACUUM FULL do, and so does everything behind them.

In a copy of the database or the store (a dump that was restored elsewhere, a copy of a template, the store's URL of another
installation) it refuses, like every other command, unless it is told which of the two the copy is (docs/how-to/copies.md):

--adopt: this is the original now. State, webhooks and pending deliveries go on; a comparison fires what was missed.
--fresh: start anew here. Pending deliveries are dropped, webhooks are kept disabled, and nothing fires for the rows that exist.

Both change nothing in the original. Where nothing is a copy they do what attach does without them.`,
		Example: "  WALHOOK_DATABASE_URL=postgres://owner@db/app walhook attach\n  WALHOOK_DATABASE_URL=postgres://owner@new/app walhook attach --adopt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			var way setup.CopyMode
			switch {
			case adopt && fresh:
				return &usageError{errors.New("a copy is either the original now (--adopt) or starts anew (--fresh); see walhook attach --help")}
			case adopt:
				way = setup.CopyAdopt
			case fresh:
				way = setup.CopyFresh
			}
			return attach(cmd.Context(), cfg, env, way, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&adopt, "adopt", false, "in a copy: this is the original now")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "in a copy: start anew here")
	return cmd
}

func attach(ctx context.Context, cfg *Config, env *Environment, way setup.CopyMode, out io.Writer) error {
	log := env.logger(cfg)
	queue, horizon := queueOnly(cfg, log)
	defer horizon.Close(context.WithoutCancel(ctx))
	var bar *progress
	attached, err := setup.Attach(ctx, setup.AttachConfig{
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), CopyMode: way, Queue: queue, Horizon: horizon, Log: log,
		Note: func(text string) {
			if bar != nil {
				bar.Done()
				bar = nil
			}
			fmt.Fprintln(out, text)
		},
		Progress: func(rows, total int64) {
			if bar == nil {
				bar = newProgress(out, "recording existing rows", total)
			}
			bar.Set(rows)
		},
	})
	if bar != nil {
		bar.Done()
	}
	if err != nil {
		return err
	}
	if !attached {
		fmt.Fprintln(out, "already attached; the schema is up to date")
	}
	return nil
}

func newDetachCommand(env *Environment) *cobra.Command {
	var dropSchema bool
	cmd := &cobra.Command{
		Use:   "detach",
		Short: "Drop slot and publication",
		Long: `Drops the slot and the publication, so that the application's database is as it was. Webhooks, settings and log stay in
the schema walhook unless --drop-schema is given. Stop the daemons first.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			return setup.Detach(cmd.Context(), setup.DetachConfig{
				SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Slot: cfg.Slot, Publication: cfg.Publication, DropSchema: dropSchema,
				Note: func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) },
			})
		},
	}
	cmd.Flags().BoolVar(&dropSchema, "drop-schema", false, "also drop the schema walhook with webhooks and log, and the roles that nobody else needs")
	return cmd
}
