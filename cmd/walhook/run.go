package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"walhook/cdc"
	"walhook/dispatch"
)

func newRunCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: read the stream, queue, send, record",
		Long: `Runs the daemon until SIGTERM or SIGINT, which let attempts in flight end and record them before it stops.

It reads the slot that attach made, or stands by while another daemon does and takes over when that one ends. Every daemon
sends. Databases that cannot be reached are waited for, and a connection that breaks is opened again by itself; what cannot
mend itself ends the process with the reason and status 1. A second signal ends it at once, which loses nothing either.

It keeps nothing on disk. WALHOOK_LISTEN serves /healthz (the process lives), /readyz (200 while it streams or stands by, 503
and the reason otherwise) and /metrics (for Prometheus). The log goes to stderr. GOMEMLIMIT, if set, bounds the memory instead
of the program's own bound. Traces go to an OpenTelemetry collector where OpenTelemetry's own variables, such as
OTEL_EXPORTER_OTLP_ENDPOINT, say so; docs/operations.md lists those that are read.`,
		Example: "  WALHOOK_DATABASE_URL=postgres://walhook@db/app walhook run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			return runDaemon(cmd.Context(), cfg, env.logger(cfg))
		},
	}
}

// runDaemon wires the parts and runs them until the context ends or one of them fails for good.
func runDaemon(ctx context.Context, cfg *Config, log *slog.Logger) error {
	defer flushLog(log)
	tracer, stopTraces, err := startTraces(ctx, log)
	if err != nil {
		return err
	}
	defer stopTraces()
	roots, err := rootCAs(cfg.CAFile)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	status := &cdc.Status{}
	metrics := newMetrics(registry, status)
	ready := &readiness{}
	ready.wait("starting")
	server, err := newHTTPServer(cfg.Listen, ready.ready, registry, log)
	if err != nil {
		return err
	}
	boundMemory(0)
	ctx, cancel := context.WithCancelCause(ctx)
	var parts sync.WaitGroup
	start := func(name string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil && !errors.Is(err, context.Canceled) {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	start("health endpoint", func() error { return server.run(ctx) })
	defer parts.Wait()
	defer cancel(nil)

	guard := cdc.NewGuard(cdc.GuardConfig{
		SourceURL: cfg.sourceURL(), Slot: cfg.Slot, Publication: cfg.Publication, Mapping: cfg.mapping(), Status: status,
		MaxSlotLag: int64(cfg.MaxSlotLag), Log: log,
	})
	start("guard", func() error { guard.Run(ctx); return nil })
	attachment, err := begin(ctx, cfg, ready, log)
	if cause := context.Cause(ctx); cause != nil {
		return stopped(cause, log)
	}
	if err != nil {
		return err
	}
	horizon := cdc.NewHorizon(func(ctx context.Context) (*pgx.Conn, error) { return cdc.ConnectSource(ctx, cfg.sourceURL()) })
	defer horizon.Close(context.WithoutCancel(ctx))
	client := dispatch.NewClient(dispatch.ClientConfig{
		Timeout: cfg.DeliveryTimeout, RetryCap: cfg.RetryCap, Concurrency: cfg.Concurrency, Version: Version(),
		Guard: dispatch.NewGuard(cfg.AllowNetworks), RootCAs: roots,
	})
	defer client.Close()
	scheduler := dispatch.NewScheduler(dispatch.Config{
		StoreURL: cfg.storeURL(), NumericID: attachment.NumericID,
		Client: client, Horizon: horizon, Backoff: dispatch.Backoff{Base: cfg.RetryBase, Cap: cfg.RetryCap}, MaxAttempts: cfg.MaxAttempts,
		Timeout: cfg.DeliveryTimeout, Concurrency: cfg.Concurrency, EndpointConcurrency: min(cfg.EndpointConcurrency, cfg.Concurrency),
		DisableAfter: cfg.DisableAfter, Retention: cfg.Retention, Version: Version(), Observe: metrics.attempted, Loaded: boundMemory, Log: log,
		Tracer: tracer,
	})
	queue := dispatch.NewQueue(scheduler, horizon, cfg.mapping().HasAssessmentTable())
	metrics.senders.Store(scheduler)
	streamQueue := cdc.Queue{Began: queue.Began, Add: queue.Add, Committed: queue.Committed, Discarded: queue.Discarded}
	stream := cdc.NewStream(cdc.StreamConfig{
		Mend: cdc.Mender(cdc.ReconcileConfig{
			SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), Queue: streamQueue, Horizon: horizon, Log: log,
			Note:     func(text string) { log.Info("mending", "doing", text) },
			Progress: func(rows, total int64) { log.Debug("reading rows", "rows", rows, "of_about", total) },
		}, status),
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Slot: cfg.Slot, Publication: cfg.Publication, Mapping: cfg.mapping(),
		Queue:   streamQueue,
		Horizon: horizon, Guard: guard, Status: status, Log: log, Tracer: tracer,
	})
	ready.follow(func() (bool, string) { return streaming(status, scheduler) })

	// The senders stop after the stream, so that what it queued last is handed over.
	sendersCtx, stopSenders := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSenders()
	senders := make(chan struct{})
	start("senders", func() error { defer close(senders); return scheduler.Run(sendersCtx) })
	streamErr := stream.Run(ctx)
	stopSenders()
	<-senders
	cancel(streamErr)
	parts.Wait()
	if streamErr != nil {
		return streamErr
	}
	return stopped(context.Cause(ctx), log)
}

// stopped tells a clean stop from one that a part of the daemon caused.
func stopped(cause error, log *slog.Logger) error {
	if !errors.Is(cause, context.Canceled) {
		return cause
	}
	log.Info("stopped")
	return nil
}

// storePatience is how long the store may be at one transaction of the stream before /readyz says that it does not answer.
const storePatience = 10 * time.Second

// streaming is what /readyz says once all parts run.
func streaming(status *cdc.Status, scheduler *dispatch.Scheduler) (bool, string) {
	if ok, reason := scheduler.Ready(); !ok {
		return false, reason
	}
	view := status.View()
	switch view.Phase {
	case cdc.PhaseStreaming:
		if view.Writing > storePatience {
			return false, fmt.Sprintf("the store has been at one transaction of the stream for %s: look in its pg_stat_activity for what that waits for", view.Writing.Round(time.Second))
		}
		if view.Danger != "" {
			return true, "streaming; " + view.Danger
		}
		return true, "streaming"
	case cdc.PhaseStandby:
		return true, "standing by: " + view.Reason
	default:
		return false, string(view.Phase) + ": " + view.Reason
	}
}
