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
	var adopt, fresh, remap bool
	cmd := &cobra.Command{
		Use:   "attach",
		Short: "Create schema, publication and slot, and record the state of existing rows",
		Long: `Installs the schema walhook in the store, creates the publication and the slot in the application's database, and records
the state of the existing rows at the slot's snapshot, so that nothing fires for what happened before.

It is safe to repeat: an interrupted attach starts over, and a completed one is left unchanged. It also upgrades the store's
schema. walhook plan shows beforehand what it does. While it reads the table, readers and writers do not wait. ALTER TABLE,
TRUNCATE and VACUUM FULL wait, and so does every statement queued behind them.

In a copy of the database or the store (a dump restored elsewhere, a copy of a template, the store's URL of another
installation) it refuses, like every other command, without one of these flags (docs/how-to/copies.md):

--adopt: this is the original now. State, webhooks and pending deliveries continue; a comparison fires what was missed.
--fresh: start from scratch. Pending deliveries are dropped, webhooks are kept disabled, and nothing fires for existing rows.

Neither changes anything in the original. If nothing is a copy, they have no effect.

If the mapping is not the attached one, attach shows what differs and refuses without this flag (docs/how-to/change.md):

--remap: move to the new mapping. What changed until then fires as the attached mapping says, and what the rows show by then
fires nothing. The mapping changes in one transaction: an interrupted attach --remap leaves the attached one in force. A daemon
that runs with the attached mapping stops.`,
		Example: "  WALHOOK_DATABASE_URL=postgres://owner@db/app walhook attach\n" +
			"  WALHOOK_DATABASE_URL=postgres://owner@new/app walhook attach --adopt",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			var mode setup.CopyMode
			switch {
			case remap && (adopt || fresh):
				return &usageError{errors.New("--remap excludes --adopt and --fresh; see walhook attach --help")}
			case remap:
				return moveMapping(cmd.Context(), cfg, env, cmd.ErrOrStderr())
			case adopt && fresh:
				return &usageError{errors.New("--adopt and --fresh exclude each other; see walhook attach --help")}
			case adopt:
				mode = setup.CopyAdopt
			case fresh:
				mode = setup.CopyFresh
			}
			return attach(cmd.Context(), cfg, env, mode, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&adopt, "adopt", false, "in a copy: this is the original now")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "in a copy: start from scratch")
	cmd.Flags().BoolVar(&remap, "remap", false, "move to another mapping")
	return cmd
}

func attach(ctx context.Context, cfg *Config, env *Environment, mode setup.CopyMode, out io.Writer) error {
	log := env.logger(cfg)
	queue, horizon := queueOnly(cfg, log)
	defer horizon.Close(context.WithoutCancel(ctx))
	var bar *progress
	attached, err := setup.Attach(ctx, setup.AttachConfig{
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), CopyMode: mode, Queue: queue, Horizon: horizon, Log: log,
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
		Long: `Drops the slot and the publication, which leaves the application's database as it was. Webhooks, settings and log stay in the
schema walhook unless --drop-schema is given. Stop the daemons first.`,
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
	cmd.Flags().BoolVar(&dropSchema, "drop-schema", false,
		"also drop the schema walhook with webhooks and log, and group roles that nobody else uses")
	return cmd
}
