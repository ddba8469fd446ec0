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
	heartbeat = 1500 * time.Millisecond

	// beatTimeout bounds what one heartbeat asks of the store. Then its session is replaced.
	beatTimeout = 2500 * time.Millisecond

	// leaseMargin is by how much a lease outlives an attempt that is begun as late as may be.
	leaseMargin = 10 * time.Second
)

// pulse keeps this process among the living daemons. One goroutine runs it, on a session of its own, so that nothing else that is asked
// of the store delays a heartbeat. Nothing is begun for longer than reapedAfter behind one.
type pulse struct {
	s    *Scheduler
	conn *pgx.Conn
	name string // as it is registered: the host may get another one meanwhile

	id                int64     // 0: it is not registered
	locked            bool      // this session has the lock that shows that the daemon lives
	beaten            time.Time // when the last heartbeat began
	unready, draining bool      // as this daemon was last reported
}

// run keeps the pulse until the context ends.
func (p *pulse) run(ctx context.Context) error {
	err := p.s.keep(ctx, heartbeats, func() (bool, error) {
		before := p.beaten
		err := p.hold(ctx)
		return p.beaten.After(before), err
	})
	if err != nil {
		p.s.liveNoLonger(time.Time{})
	}
	return err
}

// hold connects, and renews the lease as long as the connection lasts.
func (p *pulse) hold(ctx context.Context) (err error) {
	disconnect(ctx, p.conn)
	p.locked = false
	if p.conn, err = p.s.connect(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		pause := noticePause
		err := p.beat(ctx)
		if refusal := (*pgconn.PgError)(nil); err == nil || errors.As(err, &refusal) {
			if e := p.checkVersion(ctx); e != nil {
				return e
			}
		}
		switch {
		case err == nil:
			p.s.health.note(heartbeats, nil)
			pause = time.Until(p.beaten.Add(p.pace()))
		case !isLocked(err): // as by another daemon that looks for dead ones
			return err
		}
		var draining <-chan struct{}
		if !p.draining {
			draining = p.s.drains
		}
		select {
		case <-time.After(pause):
		case <-draining:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// pace is how long after a heartbeat the next one follows: what is over is reported soon.
func (p *pulse) pace() time.Duration {
	if p.unready || !p.locked {
		return heartbeat / 5
	}
	return heartbeat
}

// checkVersion makes sure that the schema is still this binary's.
func (p *pulse) checkVersion(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	err := sql.CheckVersion(ctx, p.conn)
	if version := (*sql.VersionError)(nil); errors.As(err, &version) && version.Have == 0 {
		return errors.New(err.Error()) // it may be being restored: that is waited for
	}
	return err
}

// beat renews the lease. When others have taken this daemon for dead, everything it held is given up and it begins anew.
func (p *pulse) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	began, draining := time.Now(), p.s.draining()
	if p.id != 0 {
		if err := p.renew(ctx, draining); err != nil {
			return err
		}
	}
	switch {
	case p.id != 0 && !p.locked:
		if err := p.lockAgain(ctx); err != nil {
			return err
		}
	case p.id == 0 && !draining:
		if err := p.register(ctx); err != nil {
			return err
		}
	}
	p.beaten = began
	if p.id != 0 {
		p.s.live(began.Add(reapedAfter))
	}
	if draining && !p.draining {
		// The others know now that they may have what is released.
		p.draining = true
		p.s.wake()
	}
	return nil
}

// renew writes the heartbeat, and looks how another daemon stands that reads the slot.
func (p *pulse) renew(ctx context.Context, draining bool) error {
	report := p.s.cfg.Report()
	if report.Unready != "" {
		p.s.reportedReady.Store(false)
	}
	args := sql.Heartbeat.Bind(sql.Args{
		"id": p.id, "name": p.name, "lease": p.s.cfg.Timeout + leaseMargin, "reads": report.Reads, "unready": report.Unready, "draining": draining,
	})
	known := false
	var reader *Reader
	batch := &pgx.Batch{}
	batch.Queue(sql.Heartbeat.SQL, args...).Exec(func(tag pgconn.CommandTag) error {
		known = tag.RowsAffected() > 0
		return nil
	})
	batch.Queue(sql.SlotReader.SQL, p.id).Query(func(rows pgx.Rows) error {
		var r Reader
		var silent float64
		_, err := pgx.ForEachRow(rows, []any{&r.Name, &r.Unready, &silent}, func() error {
			r.Silent = time.Duration(silent * float64(time.Second))
			reader = &r
			return nil
		})
		return err
	})
	if draining && !p.draining {
		batch.Queue("select pg_notify('walhook', '')")
	}
	if err := p.conn.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	p.s.reader.Store(reader)
	p.unready = report.Unready != ""
	if known {
		p.s.reportedReady.Store(!p.unready)
		return nil
	}
	p.s.cfg.Log.Warn("other daemons took this one for dead; beginning anew", "daemon_id", p.id)
	p.anew()
	// Where numbers repeat it would be in the way of another one.
	if _, err := p.conn.Exec(ctx, "select pg_advisory_unlock_all()"); err != nil {
		return fmt.Errorf("give the lock of a daemon up: %w", err)
	}
	return nil
}

// register makes this a daemon that others know.
func (p *pulse) register(ctx context.Context) error {
	args := sql.RegisterDaemon.Bind(sql.Args{"name": p.name, "version": p.s.cfg.Version, "lease": p.s.cfg.Timeout + leaseMargin})
	var id int64
	if err := p.conn.QueryRow(ctx, sql.RegisterDaemon.SQL, args...).Scan(&id); err != nil {
		return fmt.Errorf("register this daemon: %w", err)
	}
	locked, err := p.lock(ctx, id)
	if err != nil {
		return err
	}
	if !locked {
		_, err := p.conn.Exec(ctx, sql.RemoveDaemon.SQL, id)
		return errors.Join(fmt.Errorf("lock daemon %d: a session of another one has it; registering anew", id), err)
	}
	p.id, p.locked, p.unready = id, true, true
	p.s.register(id)
	return nil
}

// lock takes the lock that shows that a daemon lives, and reports whether this session has it.
func (p *pulse) lock(ctx context.Context, id int64) (locked bool, err error) {
	if err := p.conn.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", lockClass, int32(id)).Scan(&locked); err != nil {
		return false, fmt.Errorf("lock daemon %d: %w", id, err)
	}
	return locked, nil
}

// lockAgain does that for a session that replaces one which was lost. That one may still have the lock, where the server has heard of no end
// or does not come to it: it is told to end, and heartbeats go on without the lock until then.
func (p *pulse) lockAgain(ctx context.Context) (err error) {
	if p.locked, err = p.lock(ctx, p.id); p.locked || err != nil {
		return err
	}
	args := sql.EndLostSession.Bind(sql.Args{"lock_class": int64(lockClass), "id": p.id, "name": p.name})
	tag, err := p.conn.Exec(ctx, sql.EndLostSession.SQL, args...)
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) {
		p.s.cfg.Log.Debug("the session that was lost still has the lock of this daemon", "daemon_id", p.id, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("end the session that was lost and still has the lock of daemon %d: %w", p.id, err)
	}
	if tag.RowsAffected() == 0 {
		err := fmt.Errorf("lock daemon %d: another one has that number now; beginning anew", p.id)
		p.anew()
		return err
	}
	return nil
}

// anew gives everything up that this daemon held: others have it, or may have it.
func (p *pulse) anew() {
	p.s.loseAll()
	p.s.reportedReady.Store(false)
	p.id, p.locked = 0, false
}

// close gives everything back at the end of a clean stop, so that others go on at once.
func (p *pulse) close(ctx context.Context) {
	if p.id == 0 {
		disconnect(ctx, p.conn)
		return
	}
	if p.conn == nil || p.conn.IsClosed() {
		var err error
		if p.conn, err = p.s.connect(ctx); err != nil {
			return // the lease runs out by itself
		}
	}
	batch := &pgx.Batch{}
	batch.Queue(sql.ReleaseAllEndpoints.SQL, p.id)
	batch.Queue(sql.RemoveDaemon.SQL, p.id)
	batch.Queue("select pg_notify('walhook', '')")
	if err := errors.Join(p.conn.SendBatch(ctx, batch).Close(), p.conn.Close(ctx)); err != nil {
		p.s.cfg.Log.Warn("could not give endpoints back; others take them over when the lease runs out", "error", err)
	}
}
