package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/sql"
)

const (
	heartbeatInterval = 1500 * time.Millisecond

	// heartbeatTimeout bounds each heartbeat. When it expires, the session is replaced.
	heartbeatTimeout = 2500 * time.Millisecond

	// leaseMargin is how much longer a lease lasts than an attempt that started as late as allowed.
	leaseMargin = 10 * time.Second
)

// membership registers this daemon among the live ones and renews its lease with heartbeats. One goroutine runs it, on
// a session of its own, so that no other query delays a heartbeat. Attempts may start for startsAfterHeartbeat after a
// heartbeat.
type membership struct {
	s    *Scheduler
	conn *pgx.Conn
	name string // as registered: the host's name may change

	id                                int64     // 0: not registered
	lockHeld                          bool      // this session holds the advisory lock that shows that the daemon is alive
	lastHeartbeat                     time.Time // when it began
	reportedUnready, reportedStopping bool      // with the last heartbeat
}

// run sends heartbeats until the context ends.
func (m *membership) run(ctx context.Context) error {
	err := m.s.retrySession(ctx, heartbeats, func() (bool, error) {
		before := m.lastHeartbeat
		err := m.runSession(ctx)
		return m.lastHeartbeat.After(before), err
	})
	if err != nil {
		m.s.schedule.ForbidStartsAfter(time.Time{})
	}
	return err
}

// runSession connects, and renews the lease as long as the connection lasts.
func (m *membership) runSession(ctx context.Context) (err error) {
	disconnect(ctx, m.conn)
	m.lockHeld = false
	if m.conn, err = m.s.connect(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		pause := notificationPause
		err := m.heartbeat(ctx)
		if refusal := (*pgconn.PgError)(nil); err == nil || errors.As(err, &refusal) {
			if e := m.checkVersion(ctx); e != nil {
				return e
			}
		}
		switch {
		case err == nil:
			m.s.health.note(heartbeats, nil)
			pause = time.Until(m.lastHeartbeat.Add(m.interval()))
		case !isLocked(err): // another daemon may lock the row while it reaps
			return err
		}
		var stopRequested <-chan struct{}
		if !m.reportedStopping {
			stopRequested = m.s.stopRequested
		}
		select {
		case <-time.After(pause):
		case <-stopRequested:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// interval is the time between heartbeats: a daemon that is not ready reports soon once it is.
func (m *membership) interval() time.Duration {
	if m.reportedUnready || !m.lockHeld {
		return heartbeatInterval / 5
	}
	return heartbeatInterval
}

// checkVersion makes sure that the schema still fits this binary.
func (m *membership) checkVersion(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	err := sql.CheckVersion(ctx, m.conn)
	if version := (*sql.VersionError)(nil); errors.As(err, &version) && version.Have == 0 {
		return errors.New(err.Error()) // not final: a restore may be under way
	}
	return err
}

// heartbeat renews the lease, or registers the daemon.
func (m *membership) heartbeat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, heartbeatTimeout)
	defer cancel()
	began, stopping := time.Now(), m.s.schedule.IsStopping()
	if m.id != 0 {
		if err := m.renew(ctx, stopping); err != nil {
			return err
		}
	}
	switch {
	case m.id != 0 && !m.lockHeld:
		if err := m.relock(ctx); err != nil {
			return err
		}
	case m.id == 0 && !stopping:
		if err := m.register(ctx); err != nil {
			return err
		}
	}
	m.lastHeartbeat = began
	if m.id != 0 {
		m.s.schedule.AllowStartsUntil(began.Add(startsAfterHeartbeat))
	}
	if stopping && !m.reportedStopping {
		// The other daemons know now, and may claim what is released.
		m.reportedStopping = true
		m.s.schedule.RequestRefresh()
	}
	return nil
}

// renew writes a heartbeat, and reads the report of the daemon that reads the slot, if that is another one.
func (m *membership) renew(ctx context.Context, stopping bool) error {
	report := m.s.cfg.Report()
	if report.Unready != "" {
		m.s.reportedReady.Store(false)
	}
	args := sql.Heartbeat.Bind(sql.Args{
		"id": m.id, "name": m.name, "lease": m.s.cfg.Timeout + leaseMargin,
		"reads": report.Reads, "unready": report.Unready, "draining": stopping,
		"lag_bytes": report.LagBytes, "lag_seconds": report.LagSeconds,
	})
	registered := false
	var reader *Reader
	batch := &pgx.Batch{}
	batch.Queue(sql.Heartbeat.SQL, args...).Exec(func(tag pgconn.CommandTag) error {
		registered = tag.RowsAffected() > 0
		return nil
	})
	batch.Queue(sql.SlotReader.SQL, m.id).Query(func(rows pgx.Rows) error {
		var r Reader
		var silent float64
		_, err := pgx.ForEachRow(rows, []any{&r.Name, &r.Unready, &silent}, func() error {
			r.Silent = time.Duration(silent * float64(time.Second))
			reader = &r
			return nil
		})
		return err
	})
	if stopping && !m.reportedStopping {
		batch.Queue("select pg_notify('walhook', '')")
	}
	if err := m.conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	m.s.reader.Store(reader)
	m.reportedUnready = report.Unready != ""
	if registered {
		m.s.reportedReady.Store(!m.reportedUnready)
		return nil
	}
	m.s.cfg.Log.Warn("other daemons considered this one dead; registering again", "daemon_id", m.id)
	m.reset()
	// If ids repeat, after a restore, the lock would be another daemon's.
	if _, err := m.conn.Exec(ctx, "select pg_advisory_unlock_all()"); err != nil {
		return fmt.Errorf("release the lock of the former daemon id: %w", err)
	}
	return nil
}

// register registers this daemon under a new id.
func (m *membership) register(ctx context.Context) error {
	args := sql.RegisterDaemon.Bind(sql.Args{"name": m.name, "version": m.s.cfg.Version, "lease": m.s.cfg.Timeout + leaseMargin})
	var id int64
	if err := m.conn.QueryRow(ctx, sql.RegisterDaemon.SQL, args...).Scan(&id); err != nil {
		return fmt.Errorf("register this daemon: %w", err)
	}
	locked, err := m.tryLock(ctx, id)
	if err != nil {
		return err
	}
	if !locked {
		_, err := m.conn.Exec(ctx, sql.RemoveDaemon.SQL, id)
		return errors.Join(fmt.Errorf("lock daemon %d: another daemon's session holds the lock; registering again", id), err)
	}
	m.id, m.lockHeld, m.reportedUnready = id, true, true
	m.s.schedule.Register(id)
	return nil
}

// tryLock tries to take the lock that shows that the daemon is alive, for this session.
func (m *membership) tryLock(ctx context.Context, id int64) (locked bool, err error) {
	if err := m.conn.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", lockClass, int32(id)).Scan(&locked); err != nil {
		return false, fmt.Errorf("lock daemon %d: %w", id, err)
	}
	return locked, nil
}

// relock takes the lock for a session that replaces a lost one. The lost session may still hold it, if its server
// process has not noticed. It is terminated, and heartbeats go without the lock until it is gone.
func (m *membership) relock(ctx context.Context) (err error) {
	if m.lockHeld, err = m.tryLock(ctx, m.id); m.lockHeld || err != nil {
		return err
	}
	args := sql.EndLostSession.Bind(sql.Args{"lock_class": int64(lockClass), "id": m.id, "name": m.name})
	tag, err := m.conn.Exec(ctx, sql.EndLostSession.SQL, args...)
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		m.s.cfg.Log.Debug("the lost session still holds the lock of this daemon", "daemon_id", m.id, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("terminate the lost session that still holds the lock of daemon %d: %w", m.id, err)
	}
	if tag.RowsAffected() == 0 {
		err := fmt.Errorf("lock daemon %d: the id belongs to another daemon now; registering again", m.id)
		m.reset()
		return err
	}
	return nil
}

// reset gives up everything that this daemon owned, because other daemons own it or may.
func (m *membership) reset() {
	m.s.schedule.DisownAll()
	m.s.reportedReady.Store(false)
	m.id, m.lockHeld = 0, false
}

// close releases everything at the end of a clean stop, so that others take over at once.
func (m *membership) close(ctx context.Context) {
	if m.id == 0 {
		disconnect(ctx, m.conn)
		return
	}
	if m.conn == nil || m.conn.IsClosed() {
		var err error
		if m.conn, err = m.s.connect(ctx); err != nil {
			return // the lease expires by itself
		}
	}
	batch := &pgx.Batch{}
	batch.Queue(sql.ReleaseAllEndpoints.SQL, m.id)
	batch.Queue(sql.RemoveDaemon.SQL, m.id)
	batch.Queue("select pg_notify('walhook', '')")
	if err := errors.Join(m.conn.SendBatch(ctx, batch).Close(), m.conn.Close(ctx)); err != nil {
		m.s.cfg.Log.Warn("could not release endpoints; other daemons take over when the lease expires", "error", err)
	}
}
