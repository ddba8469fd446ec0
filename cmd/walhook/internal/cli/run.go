package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/stream"
	"walhook/dispatch"
	"walhook/dispatch/post"
)

func newRunCommand(env *Environment) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: read the stream, queue, send, record",
		Long: `Runs the daemon until SIGTERM, SIGINT or SIGHUP. It then finishes and records in-flight attempts, and exits. A second signal
ends it at once, which loses nothing either.

It reads the slot that attach created, or stands by while another daemon does, and takes over when that one ends. Every daemon
sends. It waits for databases that cannot be reached, and reconnects when a connection breaks. An error that no retry can
cure ends the process with the reason and status 1.

It writes nothing to disk. WALHOOK_LISTEN serves /healthz (the process is alive), /readyz (200 while it streams or stands by,
otherwise 503 and the reason) and /metrics (for Prometheus). The log goes to stderr. GOMEMLIMIT, if set, replaces the
program's own memory limit. Variables of OpenTelemetry, such as OTEL_EXPORTER_OTLP_ENDPOINT, enable traces;
docs/reference/traces.md lists them. Under systemd, the unit may have Type=notify and WatchdogSec.`,
		Example: "  WALHOOK_DATABASE_URL=postgres://walhook@db/app walhook run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			// A reader of the log that hangs or has gone must neither end nor block the daemon.
			signal.Ignore(syscall.SIGPIPE)
			direct := slog.New(newLogHandler(env.stderr, cfg.LogLevel, cfg.LogFormat))
			out := newLogWriter(env.stderr, func(dropped int) {
				direct.Warn("dropped log lines that nobody read", "lines", dropped)
			})
			defer out.close()
			return runDaemon(cmd.Context(), cfg, newLogger(out, cfg.LogLevel, cfg.LogFormat))
		},
	}
}

// process holds what lives as long as the process.
type process struct {
	cfg     *Config
	log     *slog.Logger
	tracer  trace.Tracer
	roots   *x509.CertPool
	status  *stream.Status
	metrics *metrics
	ready   *readiness
	guard   *stream.Guard
}

// runDaemon runs until the context ends or a part fails for good.
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
	status := &stream.Status{}
	p := &process{
		cfg: cfg, log: log, tracer: tracer, roots: roots, status: status, metrics: newMetrics(registry, status),
		ready: &readiness{},
		guard: stream.NewGuard(stream.GuardConfig{
			SourceURL: cfg.sourceURL(), Slot: cfg.Slot, Publication: cfg.Publication, Mapping: cfg.mapping(),
			Status: status, MaxSlotLag: int64(cfg.MaxSlotLag), Log: log,
		}),
	}
	p.ready.wait("starting")
	server, err := NewHTTPServer(cfg.Listen, p.ready.ready, registry, log)
	if err != nil {
		return err
	}
	if cfg.EndpointConcurrency > cfg.Concurrency && os.Getenv(Prefix+"_ENDPOINT_CONCURRENCY") != "" {
		log.Warn("WALHOOK_ENDPOINT_CONCURRENCY has no effect above WALHOOK_CONCURRENCY",
			"detail", fmt.Sprintf("%d attempts for a URL, of %d in all", cfg.EndpointConcurrency, cfg.Concurrency))
	}
	boundMemory(0)
	ctx, cancel := context.WithCancelCause(ctx)
	defer reportToSystemd(ctx, p.ready.ready, log)()
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel(nil)
	parts.Go(func() {
		if err := server.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			cancel(fmt.Errorf("health endpoint: %w", err))
		}
	})
	parts.Go(func() { p.guard.Run(ctx) })
	for {
		original, err := begin(ctx, cfg, p.guard, p.ready, log)
		if err == nil {
			err = p.work(ctx, original)
		}
		var copied *catalog.CopyError
		switch cause := context.Cause(ctx); {
		case cause != nil:
			parts.Wait()
			return stopped(cause, log)
		case errors.As(err, &copied):
			p.guard.Pause()
			p.ready.wait("copy: " + err.Error())
			log.Error("source or store was replaced; stopped streaming and sending", "error", err)
		default:
			return err
		}
	}
}

// work streams and sends until the context ends or a part fails for good. Its error is a *catalog.CopyError if source or
// store turn out to be a copy or another database.
func (p *process) work(ctx context.Context, original *catalog.Original) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.guard.Watch(original, cancel)
	horizon := stream.NewHorizon(func(ctx context.Context) (*pgx.Conn, error) {
		return original.ConnectSource(ctx, p.cfg.sourceURL())
	})
	defer horizon.Close(context.WithoutCancel(ctx))
	client := post.NewClient(post.ClientConfig{
		Timeout: time.Duration(p.cfg.DeliveryTimeout), RetryCap: time.Duration(p.cfg.RetryCap),
		Concurrency: p.cfg.Concurrency, Version: Version(), Guard: post.NewGuard(p.cfg.AllowNetworks), RootCAs: p.roots,
	})
	defer client.Close()
	scheduler := p.newScheduler(original, client, horizon, cancel)
	p.metrics.senders.Store(scheduler)
	defer p.metrics.senders.Store(nil)
	reader := p.newStream(original, scheduler, horizon)
	p.ready.follow(func() (bool, string) {
		if ok, reason := streaming(p.status, scheduler); !ok || scheduler.ReportedReady() {
			return ok, reason
		}
		return false, "starting: ready, and about to report so to the store" // where status and other daemons read it
	})

	// The senders stop after the stream, so that its last deliveries are handed over.
	sendersCtx, stopSenders := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSenders()
	senders := make(chan struct{})
	go func() {
		defer close(senders)
		if err := scheduler.Run(sendersCtx); err != nil && !errors.Is(err, context.Canceled) {
			cancel(fmt.Errorf("senders: %w", err))
		}
	}()
	err := reader.Run(ctx)
	stopSenders()
	<-senders
	if err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (p *process) newScheduler(
	original *catalog.Original, client *post.Client, horizon *stream.Horizon, cancel context.CancelCauseFunc,
) *dispatch.Scheduler {
	cfg := p.cfg
	var scheduler *dispatch.Scheduler
	scheduler = dispatch.NewScheduler(dispatch.Config{
		Original: original, StoreURL: cfg.storeURL(), NumericID: original.Attachment.NumericID,
		Client: client, Horizon: horizon, MaxAttempts: cfg.MaxAttempts,
		Backoff: post.Backoff{Base: time.Duration(cfg.RetryBase), Cap: time.Duration(cfg.RetryCap)},
		Timeout: time.Duration(cfg.DeliveryTimeout), Concurrency: cfg.Concurrency,
		EndpointConcurrency: min(cfg.EndpointConcurrency, cfg.Concurrency),
		DisableAfter:        time.Duration(cfg.DisableAfter), Retention: time.Duration(cfg.Retention), Version: Version(),
		Observe: p.metrics.attempted, Loaded: boundMemory, Log: p.log, Tracer: p.tracer,
		Report: func() dispatch.Report { return report(p.status, scheduler) },
		Failed: func(err error) { cancel(fmt.Errorf("senders: %w", err)) },
	})
	return scheduler
}

func (p *process) newStream(
	original *catalog.Original, scheduler *dispatch.Scheduler, horizon *stream.Horizon,
) *stream.Stream {
	cfg, log := p.cfg, p.log
	senders := dispatch.NewQueue(scheduler, horizon, cfg.mapping().HasAssessmentTable())
	queue := cdc.Queue{
		Began: senders.Began, Add: senders.Add, Committed: senders.Committed, Discarded: senders.Discarded,
		SetNumericKey: senders.Keyed,
	}
	return stream.New(stream.Config{
		Reconcile: stream.NewReconcileFunc(stream.ReconcileConfig{
			SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(),
			Queue: queue, Horizon: horizon, Log: log,
			Note:     func(text string) { log.Info("reconciling", "doing", text) },
			Progress: func(rows, total int64) { log.Debug("reading rows", "rows", rows, "of_about", total) },
		}, p.status),
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Original: original,
		Slot: cfg.Slot, Publication: cfg.Publication, Mapping: cfg.mapping(),
		Queue: queue, Horizon: horizon, Guard: p.guard, Status: p.status, Log: log, Tracer: p.tracer,
	})
}

// stopped returns nil after a clean stop, and otherwise the error of the part that failed.
func stopped(cause error, log *slog.Logger) error {
	if !errors.Is(cause, context.Canceled) {
		return cause
	}
	log.Info("stopped")
	return nil
}

// storePatience is how long a transaction of the stream may take before /readyz reports that the store does not answer.
const storePatience = 10 * time.Second

// reportPatience is how long a daemon that reads the slot may be silent before a standby reports that it does not work:
// slightly more than two heartbeats.
const reportPatience = 5 * time.Second

// standing returns the answer of /readyz for a standby: whether the daemon that reads the slot works, by its own report.
func standing(reader *dispatch.Reader) (bool, string) {
	switch {
	case reader == nil:
		return false, "standing by, but no daemon reports that it reads the slot"
	case reader.Silent > reportPatience:
		return false, fmt.Sprintf("standing by, but daemon %s, which reads the slot, has not reported for %s",
			reader.Name, reader.Silent.Round(time.Second))
	case reader.Unready != "":
		return false, fmt.Sprintf("standing by, but daemon %s, which reads the slot, does not work: %s",
			reader.Name, reader.Unready)
	}
	return true, fmt.Sprintf("standing by: %s (%s)", stream.ReasonOtherDaemon, reader.Name)
}

// report returns what this daemon reports to the others.
func report(status *stream.Status, scheduler *dispatch.Scheduler) dispatch.Report {
	view := status.View()
	r := dispatch.Report{Reads: view.Phase == stream.PhaseStreaming || view.Phase == stream.PhaseReconciling}
	if r.Reads {
		seconds := view.Lag.Seconds()
		r.LagSeconds = &seconds
		if lag, known := view.LagBytes(); known {
			bytes := int64(lag)
			r.LagBytes = &bytes
		}
	}
	if ok, reason := streaming(status, scheduler); !ok {
		r.Unready = oneLine(reason, longestReason)
	}
	return r
}

// streaming returns what this daemon reports about itself once all parts run. /readyz returns it once the store has it.
func streaming(status *stream.Status, scheduler *dispatch.Scheduler) (bool, string) {
	if ok, reason := scheduler.Ready(); !ok {
		return false, reason
	}
	view := status.View()
	switch view.Phase {
	case stream.PhaseStreaming:
		if view.Writing > storePatience {
			return false, fmt.Sprintf(
				"the store has been at one transaction of the stream for %s: its pg_stat_activity shows what that waits for",
				view.Writing.Round(time.Second))
		}
		if view.Danger != "" {
			return true, "streaming; " + view.Danger
		}
		return true, "streaming"
	case stream.PhaseStandby:
		if view.Reason != stream.ReasonOtherDaemon {
			return true, "standing by: " + view.Reason
		}
		return standing(scheduler.Reader())
	default:
		return false, string(view.Phase) + ": " + view.Reason
	}
}
