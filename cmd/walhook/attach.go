package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"walhook/cdc"
)

func newAttachCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "attach",
		Short: "Make schema, publication and slot, and record the state of existing rows",
		Long: `Installs the schema walhook in the store, makes the publication and the slot in the application's database, and records
at the slot's own snapshot what has already happened to the rows that exist, so that nothing fires for it.

It may be repeated, also after an interruption: what is complete is left, and what is not starts over. It upgrades the
store's schema. walhook plan shows beforehand what it does. It takes no lock that the application would notice.`,
		Example: "  WALHOOK_DATABASE_URL=postgres://owner@db/app walhook attach",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			return attach(cmd.Context(), cfg, env, cmd.ErrOrStderr())
		},
	}
}

func attach(ctx context.Context, cfg *Config, env *environment, out io.Writer) error {
	var bar *progress
	attached, err := cdc.Attach(ctx, cdc.AttachConfig{
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), Log: env.logger(cfg),
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

func newDetachCommand(env *environment) *cobra.Command {
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
			return cdc.Detach(cmd.Context(), cdc.DetachConfig{
				SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Slot: cfg.Slot, Publication: cfg.Publication, DropSchema: dropSchema,
				Note: func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) },
			})
		},
	}
	cmd.Flags().BoolVar(&dropSchema, "drop-schema", false, "also drop the schema walhook with webhooks and log, and the roles that nobody else needs")
	return cmd
}
