package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"walhook/cdc"
	"walhook/dispatch"
)

func newReconcileCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "reconcile",
		Short: "Compare the table with the recorded state, and fire what was missed",
		Long: `Makes a new slot, compares its snapshot with the recorded state, and queues what was missed, marked as recovered in the log.
State, deliveries and position change in one transaction, so it happens once or not at all. It can fire what the rows still
show: where a response finished twice since the old position, one event fires.

Stop the daemons first; their next start sends what was queued. A running daemon does the same by itself whenever it finds
that the stream may have missed something.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			return reconcile(cmd.Context(), cfg, env, cmd.ErrOrStderr())
		},
	}
}

func reconcile(ctx context.Context, cfg *Config, env *environment, out io.Writer) error {
	log := env.logger(cfg)
	horizon := cdc.NewHorizon(func(ctx context.Context) (*pgx.Conn, error) { return cdc.ConnectSource(ctx, cfg.sourceURL()) })
	// Nothing is sent from here: the daemon that starts next finds what was queued.
	queue := dispatch.NewQueue(dispatch.NewScheduler(dispatch.Config{Horizon: horizon, Log: log}), horizon, cfg.mapping().HasAssessmentTable())
	var bar *progress
	endBar := func() {
		if bar != nil {
			bar.Done()
			bar = nil
		}
	}
	defer endBar()
	result, err := cdc.Reconcile(ctx, cdc.ReconcileConfig{
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), Log: log,
		Queue: cdc.Queue{Add: queue.Add, Committed: func() {}, Discarded: func() {}},
		Note: func(text string) {
			endBar()
			fmt.Fprintln(out, text)
		},
		Progress: func(rows, total int64) {
			if bar == nil {
				bar = newProgress(out, "reading rows", total)
			}
			bar.Set(rows)
		},
	})
	if err != nil {
		return err
	}
	if result.Elsewhere {
		return errors.New("a daemon is reading the slot: stop the daemons first, and start them again afterwards")
	}
	return nil
}
