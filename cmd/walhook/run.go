package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"walhook/cdc"
	"walhook/dispatch"
	"walhook/sql"
)

func newRunCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: read the stream, queue, send, record",
		Long: `Runs the daemon until SIGTERM or SIGINT, which let attempts in flight end and record them before it stops.

It reads the slot that attach made, or stands by while another daemon does and takes over when that one ends. Every daemon
sends. A connection that breaks is opened again by itself; what cannot mend itself ends the process with the reason.

WALHOOK_LISTEN serves /healthz, /readyz and /metrics.`,
		Example: "  WALHOOK_DATABASE_URL=postgres://walhook@db/app walhook run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			log := env.logger(cfg)
			if cfg.AutoAttach {
				if err := autoAttach(cmd.Context(), cfg, log); err != nil {
					return err
				}
			}
			return runDaemon(cmd.Context(), cfg, log)
		},
	}
}

// autoAttach attaches where nothing is attached, and upgrades a store of an older version.
func autoAttach(ctx context.Context, cfg *Config, log *slog.Logger) error {
	_, err := cdc.Attach(ctx, cdc.AttachConfig{
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), Log: log,
		Note: func(text string) { log.Info("attaching", "doing", text) },
		Progress: func(rows, total int64) {
			log.Debug("recording the state of existing rows", "rows", rows, "of_about", total)
		},
	})
	return err
}

// runDaemon wires the parts and runs them until the context ends or one of them fails for good.
func runDaemon(ctx context.Context, cfg *Config, log *slog.Logger) error {
	attachment, err := waitForStore(ctx, cfg, log)
	if err != nil {
		return err
	}
	horizon := cdc.NewHorizon(func(ctx context.Context) (*pgx.Conn, error) { return cdc.ConnectSource(ctx, cfg.sourceURL()) })
	defer horizon.Close(context.WithoutCancel(ctx))
	roots, err := rootCAs(cfg.CAFile)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	metrics := newMetrics(registry)
	client := dispatch.NewClient(dispatch.ClientConfig{
		Timeout: cfg.DeliveryTimeout, RetryCap: cfg.RetryCap, Concurrency: cfg.Concurrency, Version: Version(),
		Guard: dispatch.NewGuard(cfg.AllowNetworks), RootCAs: roots,
	})
	defer client.Close()
	scheduler := dispatch.NewScheduler(dispatch.Config{
		StoreURL: cfg.storeURL(), SystemID: attachment.SystemIdentifier, Install: attachment.Installation, NumericID: attachment.NumericID,
		Client: client, Horizon: horizon, Backoff: dispatch.Backoff{Base: cfg.RetryBase, Cap: cfg.RetryCap}, MaxAttempts: cfg.MaxAttempts,
		Timeout: cfg.DeliveryTimeout, Concurrency: cfg.Concurrency, EndpointConcurrency: min(cfg.EndpointConcurrency, cfg.Concurrency),
		DisableAfter: cfg.DisableAfter, Retention: cfg.Retention, Version: Version(), Observe: metrics.attempted, Log: log,
	})
	queue := dispatch.NewQueue(scheduler, horizon, cfg.mapping().HasAssessmentTable())
	status := &cdc.Status{}
	streamQueue := cdc.Queue{Add: queue.Add, Committed: queue.Committed, Discarded: queue.Discarded}
	stream := cdc.NewStream(cdc.StreamConfig{
		Mend: cdc.Mender(cdc.ReconcileConfig{
			SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), Queue: streamQueue, Log: log,
			Note:     func(text string) { log.Info("mending", "doing", text) },
			Progress: func(rows, total int64) { log.Debug("reading rows", "rows", rows, "of_about", total) },
		}),
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Slot: cfg.Slot, Publication: cfg.Publication, Mapping: cfg.mapping(),
		Queue:   streamQueue,
		Horizon: horizon, Status: status, Log: log,
	})
	metrics.stream(status)
	server, err := newHTTPServer(cfg.Listen, func() (bool, string) { return readiness(status, scheduler) }, registry, log)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The senders stop after the stream, so that what it queued last is handed over.
	sendersCtx, stopSenders := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSenders()
	var parts sync.WaitGroup
	start := func(name string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil && !errors.Is(err, context.Canceled) {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	start("health endpoint", func() error { return server.run(ctx) })
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
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	log.Info("stopped")
	return nil
}

// waitForStore reads the attachment, and waits for a store that cannot be reached: a sidecar often starts before it.
func waitForStore(ctx context.Context, cfg *Config, log *slog.Logger) (*cdc.Attachment, error) {
	for {
		attachment, err := openStore(ctx, cfg)
		var fatal *cdc.FatalError
		var version *sql.VersionError
		if err == nil || errors.As(err, &fatal) || errors.As(err, &version) || ctx.Err() != nil {
			return attachment, err
		}
		log.Warn("the store cannot be reached; trying again", "error", err)
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func openStore(ctx context.Context, cfg *Config) (*cdc.Attachment, error) {
	store, err := cdc.ConnectStore(ctx, cfg.storeURL())
	if err != nil {
		return nil, err
	}
	defer store.Close(context.WithoutCancel(ctx))
	if err := sql.CheckVersion(ctx, store); err != nil {
		return nil, err
	}
	attachment, _, err := cdc.ReadAttached(ctx, store)
	return attachment, err
}

// readiness is what /readyz says.
func readiness(status *cdc.Status, scheduler *dispatch.Scheduler) (bool, string) {
	if ok, reason := scheduler.Ready(); !ok {
		return false, reason
	}
	view := status.View()
	switch view.Phase {
	case cdc.PhaseStreaming:
		return true, "streaming"
	case cdc.PhaseStandby:
		return true, "standing by: " + view.Reason
	default:
		return false, string(view.Phase) + ": " + view.Reason
	}
}

// rootCAs returns the system's certificate authorities with those of the file, nil where there is none.
func rootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read WALHOOK_CA_FILE: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read WALHOOK_CA_FILE %s: it holds no PEM certificate", file)
	}
	return pool, nil
}
