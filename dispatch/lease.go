package dispatch

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/sql"
)

const (
	lockClass = cdc.DaemonLock

	heartbeat   = 1500 * time.Millisecond
	noticePause = 100 * time.Millisecond // the least time between two looks that notifications ask for

	// reapedAfter is how long after its last heartbeat a daemon that has lost its session begins nothing more: a bit later others may
	// take it for dead (ReapDaemons).
	reapedAfter = 3500 * time.Millisecond

	leaseMargin = 10 * time.Second // by which a lease outlives an attempt begun just before its end

	// lookInterval is how often pending deliveries are looked for though no notification came.
	lookInterval = 10 * time.Second
	// orphanGrace is how long after a webhook was deleted a transaction may still queue for it, which had seen it before.
	orphanGrace = 15 * time.Second
	// versionInterval is how often webhooks are looked at though no notification came: a pooler may swallow them.
	versionInterval = 2 * time.Second
)

// lease keeps this process among the living daemons, and decides which endpoints are its own. One goroutine runs it.
type lease struct {
	s    *Scheduler
	conn *pgx.Conn
	id   int64

	name string // as it is registered: the host may get another one meanwhile

	beaten, looked, versioned time.Time // beaten: when the last heartbeat began
	deleted                   time.Time // when webhooks were last found to be gone
	orphans                   time.Time // when to look for what was queued for such

	noticed           time.Time     // when a notification was last followed
	asked             bool          // another has come since
	took              time.Duration // to look for everything
	live              []int64
	moves             bool // webhooks have left URLs
	unready, draining bool // as this daemon was last reported
}

// run keeps the lease until the context ends.
func (l *lease) run(ctx context.Context) error {
	backoff := newStoreBackoff()
	for ctx.Err() == nil {
		held := l.beaten
		err := l.hold(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if l.conn != nil {
			_ = l.conn.Close(context.WithoutCancel(ctx))
			l.conn = nil
			l.s.liveNoLonger(l.beaten.Add(reapedAfter))
		}
		if copied := (*cdc.CopyError)(nil); errors.As(err, &copied) {
			l.s.liveNoLonger(time.Time{})
			return err
		}
		if l.beaten.After(held) {
			backoff = newStoreBackoff()
		}
		l.s.health.note(Leasing, err)
		pause, _ := backoff.Next()
		l.s.cfg.Log.Warn("lost touch with the store; trying again", "error", err, "in", pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// hold connects, and keeps the lease as long as the connection lasts.
func (l *lease) hold(ctx context.Context) error {
	connecting, cancel := context.WithTimeout(ctx, leaseMargin)
	defer cancel()
	var err error
	if l.conn, err = cdc.ConnectStore(connecting, l.s.cfg.StoreURL); err != nil {
		return err
	}
	if err := l.s.cfg.Original.CheckStore(ctx, l.conn); err != nil {
		return err
	}
	if _, err := l.conn.Exec(ctx, "listen walhook; listen "+queuedChannel); err != nil {
		return fmt.Errorf("listen for changes: %w", err)
	}
	if err := boundLockWaits(ctx, l.conn); err != nil {
		return err
	}
	if l.id != 0 {
		if err := l.lockAgain(ctx); err != nil {
			return err
		}
	}
	l.versioned, l.looked = time.Time{}, time.Time{}
	for ctx.Err() == nil {
		if err := l.beat(ctx); err != nil {
			return err
		}
		if l.asked && !time.Now().Before(l.listensAt()) {
			l.asked, l.versioned, l.looked = false, time.Time{}, time.Time{}
			l.noticed = time.Now()
		}
		began, all := time.Now(), l.versioned.IsZero()
		if err := l.look(ctx); isLocked(err) {
			l.s.cfg.Log.Debug("what somebody has locked in the store is looked at later", "error", err)
			l.s.health.note(Leasing, err)
			l.versioned, all = time.Time{}, false
		} else if err != nil {
			return err
		}
		if all {
			l.took = time.Since(began)
			l.s.health.note(Leasing, nil)
		}
		notified, err := l.wait(ctx)
		if err != nil {
			return err
		}
		l.asked = l.asked || notified
	}
	return ctx.Err()
}

// listensAt is when a notification counts again. While webhooks are edited all the time, what is looked for in the store is to come back
// before an edit lets it be looked for anew.
func (l *lease) listensAt() time.Time { return l.noticed.Add(max(noticePause, 4*l.took)) }

// wait waits for a notification, a wish of the scheduler, or the next heartbeat.
func (l *lease) wait(ctx context.Context) (bool, error) {
	until := l.beaten.Add(l.pace())
	if at := l.listensAt(); l.asked && at.Before(until) {
		until = at
	}
	ctx, cancel := context.WithTimeout(ctx, max(time.Until(until), time.Millisecond))
	defer cancel()
	wished := make(chan bool, 1)
	go func() {
		select {
		case <-l.s.woken:
			wished <- true
			cancel()
		case <-ctx.Done():
			wished <- false
		}
	}()
	n, err := l.conn.WaitForNotification(ctx)
	cancel()
	wish := <-wished
	if err == nil && n.Channel == queuedChannel {
		l.s.queuedFor(n.Payload)
		return wish, nil
	}
	if err == nil || wish {
		return true, nil
	}
	if l.conn.IsClosed() {
		return false, fmt.Errorf("listen for changes: %w", err)
	}
	return false, nil
}

// lock takes the lock that shows that this daemon lives, and reports whether it has it.
func (l *lease) lock(ctx context.Context) (locked bool, err error) {
	if err := l.conn.QueryRow(ctx, "select pg_try_advisory_lock($1, $2)", lockClass, int32(l.id)).Scan(&locked); err != nil {
		return false, fmt.Errorf("lock daemon %d: %w", l.id, err)
	}
	return locked, nil
}

// lockAgain does the same for a new session. The one that was lost may still have the lock, where the server has heard of no end: it is told
// to end.
func (l *lease) lockAgain(ctx context.Context) error {
	if locked, err := l.lock(ctx); locked || err != nil {
		return err
	}
	args := sql.EndLostSession.Bind(sql.Args{"lock_class": int64(lockClass), "id": l.id, "name": l.name})
	tag, err := l.conn.Exec(ctx, sql.EndLostSession.SQL, args...)
	if err != nil {
		return fmt.Errorf("end the session that was lost and still has the lock of daemon %d: %w", l.id, err)
	}
	err = fmt.Errorf("lock daemon %d: the session that was lost still has it", l.id)
	if tag.RowsAffected() == 0 {
		err = fmt.Errorf("lock daemon %d: another one has that number now; beginning anew", l.id)
		l.anew()
	}
	return err
}

// anew gives everything up that this daemon held: others have it, or may have it.
func (l *lease) anew() {
	l.s.loseAll()
	l.id = 0
}

// pace is how long after a heartbeat the next one follows: what is over is reported soon.
func (l *lease) pace() time.Duration {
	if l.unready {
		return heartbeat / 5
	}
	return heartbeat
}

// beat renews the lease. When others have taken this daemon for dead, everything it held is given up and it begins anew.
func (l *lease) beat(ctx context.Context) error {
	draining := l.s.draining()
	if draining != l.draining {
		l.versioned = time.Time{} // to release endpoints, once others have been told to take them
	} else if l.id != 0 && time.Since(l.beaten) < l.pace() {
		return nil
	}
	length := l.s.cfg.Timeout + leaseMargin
	began := time.Now()
	if l.id != 0 {
		report := l.s.cfg.Report()
		l.unready = report.Unready != ""
		args := sql.Heartbeat.Bind(sql.Args{"id": l.id, "name": l.name, "lease": length, "reads": report.Reads, "unready": report.Unready, "draining": draining})
		tag, err := l.conn.Exec(ctx, sql.Heartbeat.SQL, args...)
		if err != nil {
			return fmt.Errorf("renew the lease: %w", err)
		}
		if tag.RowsAffected() == 0 {
			l.s.cfg.Log.Warn("other daemons took this one for dead; beginning anew", "daemon_id", l.id)
			l.anew()
			// Where numbers repeat it would be in the way of another one.
			if _, err := l.conn.Exec(ctx, "select pg_advisory_unlock_all()"); err != nil {
				return fmt.Errorf("give the lock of a daemon up: %w", err)
			}
		}
	}
	l.draining = draining
	if l.id == 0 && draining {
		l.beaten = began
		return nil // there is nothing left to give back
	}
	if l.id == 0 {
		args := sql.RegisterDaemon.Bind(sql.Args{"name": l.name, "version": l.s.cfg.Version, "lease": length})
		if err := l.conn.QueryRow(ctx, sql.RegisterDaemon.SQL, args...).Scan(&l.id); err != nil {
			return fmt.Errorf("register this daemon: %w", err)
		}
		locked, err := l.lock(ctx)
		if err != nil {
			return err
		}
		if !locked {
			id := l.id
			l.id = 0
			_, err := l.conn.Exec(ctx, sql.RemoveDaemon.SQL, id)
			return errors.Join(fmt.Errorf("lock daemon %d: a session of another one has it; registering anew", id), err)
		}
		l.versioned, l.looked = time.Time{}, time.Time{}
	}
	l.beaten = began
	l.s.live(began.Add(leaseMargin))
	return l.seekReader(ctx)
}

// seekReader looks how another daemon stands that reads the slot.
func (l *lease) seekReader(ctx context.Context) error {
	var r Reader
	var silent float64
	err := l.conn.QueryRow(ctx, sql.SlotReader.SQL, l.id).Scan(&r.Name, &r.Unready, &silent)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		l.s.reader.Store(nil)
		return nil
	case err != nil:
		return fmt.Errorf("look for the daemon that reads the slot: %w", err)
	}
	r.Silent = time.Duration(silent * float64(time.Second))
	l.s.reader.Store(&r)
	return nil
}

// look takes over changed webhooks, dead daemons' endpoints and pending work.
func (l *lease) look(ctx context.Context) error {
	now := time.Now()
	if now.Sub(l.versioned) >= versionInterval {
		l.versioned = now
		if err := l.reload(ctx); err != nil {
			return err
		}
		if err := l.share(ctx); err != nil {
			return err
		}
		if err := l.settle(ctx); err != nil {
			return err
		}
	}
	if l.draining {
		return nil
	}
	if now.Sub(l.looked) >= lookInterval {
		l.looked = now
		if err := l.s.findWork(ctx); err != nil {
			return err
		}
	}
	if now.After(l.orphans) {
		if _, err := l.s.pool.Exec(ctx, sql.BuryOrphans.SQL); err != nil {
			return fmt.Errorf("end what is pending for deleted webhooks: %w", err)
		}
		if _, err := l.s.pool.Exec(ctx, sql.ForgetTrouble.SQL); err != nil {
			return fmt.Errorf("forget the trouble of deleted webhooks: %w", err)
		}
		if err := l.s.forgetEndpoints(ctx); err != nil {
			return err
		}
		l.orphans = now.Add(housekeeping)
		if again := l.deleted.Add(orphanGrace); again.After(now) {
			l.orphans = again
		}
	}
	return nil
}

func (l *lease) reload(ctx context.Context) error {
	before, came := l.s.known()
	now, err := loadVersion(ctx, l.s.pool)
	if err != nil {
		return err
	}
	l.moves = now.moves
	l.s.numericID.Store(now.numeric)
	if now.version != before.version || now.enabled != before.enabled {
		loaded, err := loadWebhooks(ctx, l.s.pool, before)
		if err != nil {
			return err
		}
		if l.s.apply(loaded) {
			l.deleted = time.Now()
			l.orphans = earlier(l.orphans, l.deleted.Add(orphanGrace))
		}
	}
	l.s.meet(came)
	return nil
}

// share claims the endpoints that are this daemon's part, and gives back those that are not any more.
func (l *lease) share(ctx context.Context) error {
	rows, err := l.conn.Query(ctx, sql.ReapDaemons.SQL, sql.ReapDaemons.Bind(sql.Args{"self": l.id, "lock_class": int64(lockClass)})...)
	if err != nil {
		return fmt.Errorf("look for dead daemons: %w", err)
	}
	var dead int64
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&dead, &name}, func() error {
		l.s.cfg.Log.Warn("a daemon died; its endpoints are taken over", "daemon_id", dead, "name", name)
		return nil
	}); err != nil {
		return fmt.Errorf("look for dead daemons: %w", err)
	}
	rows, err = l.conn.Query(ctx, sql.LiveDaemons.SQL)
	if err != nil {
		return fmt.Errorf("look for other daemons: %w", err)
	}
	if l.live, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
		return fmt.Errorf("look for other daemons: %w", err)
	}
	claim, release := l.s.shares(func(endpoint int64) bool { return l.mine(endpoint) })
	if len(release) > 0 {
		rows, err := l.conn.Query(ctx, sql.ReleaseEndpoints.SQL, sql.ReleaseEndpoints.Bind(sql.Args{"self": l.id, "endpoint_ids": release})...)
		if err != nil {
			return fmt.Errorf("give endpoints back: %w", err)
		}
		if release, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return fmt.Errorf("give endpoints back: %w", err)
		}
		if _, err := l.conn.Exec(ctx, "select pg_notify('walhook', '')"); err != nil {
			return fmt.Errorf("give endpoints back: %w", err)
		}
		l.s.released(release)
	}
	if len(claim) == 0 {
		return nil
	}
	rows, err = l.conn.Query(ctx, sql.ClaimEndpoints.SQL, sql.ClaimEndpoints.Bind(sql.Args{"self": l.id, "endpoint_ids": claim})...)
	if err != nil {
		return fmt.Errorf("claim endpoints: %w", err)
	}
	var id int64
	var failures int
	var pause *time.Duration
	if _, err := pgx.ForEachRow(rows, []any{&id, &failures, &pause}, func() error {
		if pause == nil {
			pause = new(time.Duration)
		}
		l.s.claimed(id, failures, *pause)
		return nil
	}); err != nil {
		return fmt.Errorf("claim endpoints: %w", err)
	}
	return l.s.findWork(ctx)
}

// settle lets webhooks go on whose attempts at the URL before have ended.
func (l *lease) settle(ctx context.Context) error {
	if !l.moves {
		return nil
	}
	webhooks, endpoints := l.s.ended()
	tag, err := l.conn.Exec(ctx, sql.SettleMoves.SQL, sql.SettleMoves.Bind(sql.Args{"webhook_ids": webhooks, "endpoint_ids": endpoints})...)
	if err == nil && tag.RowsAffected() > 0 {
		_, err = l.conn.Exec(ctx, "select pg_notify('walhook', '')")
	}
	if err != nil {
		return fmt.Errorf("let webhooks go on whose URL has changed: %w", err)
	}
	return nil
}

// mine decides by rendezvous hashing, so that every daemon comes to the same answer and a change of their number moves as
// few endpoints as can be.
func (l *lease) mine(endpoint int64) bool {
	var best uint64
	var owner int64
	for _, daemon := range l.live {
		h := fnv.New64a()
		fmt.Fprintf(h, "%d/%d", endpoint, daemon)
		// FNV mixes the last bytes little; this finaliser (of MurmurHash3) does.
		sum := h.Sum64()
		sum ^= sum >> 33
		sum *= 0xff51afd7ed558ccd
		sum ^= sum >> 33
		if owner == 0 || sum > best {
			best, owner = sum, daemon
		}
	}
	return owner == l.id
}

// close gives everything back at the end of a clean stop, so that others go on at once.
func (l *lease) close(ctx context.Context) {
	if l.id == 0 {
		return
	}
	conn := l.conn
	if conn == nil || conn.IsClosed() {
		var err error
		if conn, err = cdc.ConnectStore(ctx, l.s.cfg.StoreURL); err != nil {
			return // the lease runs out by itself
		}
		if err := l.s.cfg.Original.CheckStore(ctx, conn); err != nil {
			_ = conn.Close(ctx)
			return
		}
	}
	batch := &pgx.Batch{}
	batch.Queue(sql.ReleaseAllEndpoints.SQL, l.id)
	batch.Queue(sql.RemoveDaemon.SQL, l.id)
	batch.Queue("select pg_notify('walhook', '')")
	err := errors.Join(conn.SendBatch(ctx, batch).Close(), conn.Close(ctx))
	if err != nil {
		l.s.cfg.Log.Warn("could not give endpoints back; others take them over when the lease runs out", "error", err)
	}
}
