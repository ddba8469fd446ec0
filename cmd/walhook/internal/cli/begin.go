package cli

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sethvargo/go-retry"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/setup"
	"walhook/cdc/stream"
	"walhook/sql"
)

// readiness is the answer of /readyz: first what the daemon waits for, later what its parts report.
type readiness struct {
	mu  sync.Mutex
	ask func() (bool, string)
}

func (r *readiness) ready() (bool, string) {
	r.mu.Lock()
	ask := r.ask
	r.mu.Unlock()
	return ask()
}

func (r *readiness) follow(ask func() (bool, string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ask = ask
}

func (r *readiness) wait(reason string) {
	r.follow(func() (bool, string) { return false, reason })
}

// begin attaches if AutoAttach is set, and reads the attachment. It waits for databases that cannot be reached, since a
// sidecar often starts before them. In a copy it waits until somebody runs attach --adopt or --fresh. It returns errors that
// no retry cures, such as a configuration that differs from the attached one: a standby must report that now, and not when
// it has to take over.
func begin(
	ctx context.Context, cfg *Config, guard *stream.Guard, ready *readiness, log *slog.Logger,
) (original *catalog.Original, err error) {
	backoff := retry.WithJitterPercent(20, retry.WithCappedDuration(5*time.Second, retry.NewExponential(250*time.Millisecond)))
	err = retry.Do(ctx, backoff, func(ctx context.Context) error {
		if cfg.AutoAttach {
			if err := autoAttach(ctx, cfg, ready, log); err != nil {
				return waitable(err, guard, ready, log)
			}
		}
		var err error
		original, err = catalog.OpenOriginal(ctx, cfg.sourceURL(), cfg.storeURL(), cfg.target())
		return waitable(err, guard, ready, log)
	})
	return original, err
}

// waitable marks errors that a retry may cure as retryable, and reports that the daemon waits.
func waitable(err error, guard *stream.Guard, ready *readiness, log *slog.Logger) error {
	var (
		copied  *catalog.CopyError
		refused *setup.RefusedError
		misfit  *catalog.MappingError
		fatal   *cdc.FatalError
		version *sql.VersionError
		owner   *sql.OwnerError
		server  *pgconn.PgError
		connect *pgconn.ConnectError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.As(err, &refused), errors.As(err, &misfit),
		errors.As(err, &fatal), errors.As(err, &version), errors.As(err, &owner):
		return err
	case errors.As(err, &copied):
		guard.Pause()
		ready.wait("copy: " + err.Error())
		log.Error("database is a copy; waiting", "error", err)
		return retry.RetryableError(err)
	case errors.As(err, &server) && !errors.As(err, &connect) && !transient(server.Code):
		return err // the server would answer the same again
	}
	ready.wait("waiting: " + err.Error())
	log.Warn("cannot start yet; retrying", "error", err)
	return retry.RetryableError(err)
}

// transient reports whether a retry may cure an error, by the class of its SQLSTATE: connection, rollback, resources, in use,
// intervention.
func transient(code string) bool {
	switch code[:2] {
	case "08", "40", "53", "55", "57":
		return true
	}
	return false
}

// autoAttach attaches if nothing is attached, and upgrades a store of an older version.
func autoAttach(ctx context.Context, cfg *Config, ready *readiness, log *slog.Logger) error {
	ready.wait("attaching")
	_, err := setup.Attach(ctx, setup.AttachConfig{
		SourceURL: cfg.sourceURL(), StoreURL: cfg.storeURL(), Target: cfg.target(), OnlyIfNone: true, Log: log,
		Note: func(text string) {
			ready.wait("attaching: " + text)
			log.Info("attaching", "doing", text)
		},
		Progress: func(rows, total int64) {
			log.Debug("recording the state of existing rows", "rows", rows, "of_about", total)
		},
	})
	return err
}
