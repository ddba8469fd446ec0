package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/stream"
	"walhook/dispatch"
)

func newReconcileCommand(env *Environment) *cobra.Command {
	return &cobra.Command{
		Use:   "reconcile",
		Short: "Compare the table with the recorded state, and fire what was missed",
		Long: `Compares a snapshot of the table with the recorded state, and queues the events that were missed, marked as recovered in the
log. State, deliveries and position change in one transaction, so it happens once or not at all.

Daemons may run: the one that reads the slot pauses meanwhile, and all of them send what is queued. If the slot is intact,
its changes are queued first, as usual. If not, a new slot is created, and every event that the rows still show fires: one
event for a response that finished twice since the old position. A running daemon reconciles by itself whenever the stream
may have missed something.`,
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

// queueOnly returns the queue of a command that sends nothing: the daemons find what was queued.
func queueOnly(cfg *Config, log *slog.Logger) (cdc.Queue, *stream.Horizon) {
	horizon := stream.NewHorizon(func(ctx context.Context) (*pgx.Conn, error) { return catalog.ConnectSource(ctx, cfg.sourceURL()) })
	return queueOf(cfg.mapping(), horizon, log), horizon
}

func queueOf(m cdc.Mapping, horizon *stream.Horizon, log *slog.Logger) cdc.Queue {
	queue := dispatch.NewQueue(dispatch.NewScheduler(dispatch.Config{Horizon: horizon, Log: log}), horizon, m.HasAssessmentTable())
	return cdc.Queue{
		Began: func() {}, Add: queue.Add,
		Committed: func(context.Context) { queue.Discarded() }, Discarded: queue.Discarded,
	}
}

// moveMapping moves the attachment to the configured mapping.
func moveMapping(ctx context.Context, cfg *Config, env *Environment, out io.Writer) error {
	log := env.logger(cfg)
	return compare(ctx, cfg, env, out, func(c stream.ReconcileConfig) error {
		return stream.Remap(ctx, c, func(m cdc.Mapping) cdc.Queue { return queueOf(m, c.Horizon, log) })
	})
}

func reconcile(ctx context.Context, cfg *Config, env *Environment, out io.Writer) error {
	return compare(ctx, cfg, env, out, func(c stream.ReconcileConfig) error {
		_, err := stream.Reconcile(ctx, c)
		return err
	})
}

// compare runs a comparison of the table with the recorded state, and shows its progress.
func compare(ctx context.Context, cfg *Config, env *Environment, out io.Writer, run func(stream.ReconcileConfig) error) error {
	log := env.logger(cfg)
	queue, horizon := queueOnly(cfg, log)
	defer horizon.Close(context.WithoutCancel(ctx))
	var bar *progress
	endBar := func() {
		if bar != nil {
			bar.Done()
			bar = nil
		}
	}
	defer endBar()
	return run(stream.ReconcileConfig{
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), Horizon: horizon, Log: log,
		Queue: queue,
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
}
