package dispatch

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
	"walhook/sql"
)

const (
	lockClass = catalog.DaemonLock

	notificationPause = 100 * time.Millisecond // the least time between two refreshes after notifications

	// startsAfterHeartbeat is how long after its last heartbeat a daemon starts attempts. A bit later others may reap
	// it (ReapDaemons), because its session may have been lost since.
	startsAfterHeartbeat = 3500 * time.Millisecond

	// refreshTimeout bounds a refresh, and rebalanceTimeout each part of it on the listening session, which is replaced
	// then.
	refreshTimeout   = 30 * time.Second
	rebalanceTimeout = 10 * time.Second

	// findWorkInterval is how often pending deliveries are looked for without a notification.
	findWorkInterval = 10 * time.Second
	// reloadInterval is how often webhooks are reloaded without a notification: a pooler may swallow them.
	reloadInterval = 2 * time.Second
	// refreshPause is how long to wait for a notification before the next refresh.
	refreshPause = 1500 * time.Millisecond
	// orphanGrace is how long after a webhook was deleted a transaction that still saw it may queue for it.
	orphanGrace = 15 * time.Second
)

// coordinator keeps the webhooks current, claims and releases endpoints, and finds pending deliveries. It refreshes on
// notifications, on requests of the schedule and from time to time. One goroutine runs it, beside the membership.
type coordinator struct {
	s    *Scheduler
	conn *pgx.Conn // listens for notifications
	id   int64     // of this daemon, as of this refresh; 0: not registered

	lastFindWork, lastReload time.Time // zero: do it with the next refresh
	webhooksDeletedAt        time.Time // when a reload last found webhooks deleted
	nextCleanup              time.Time
	cleanupDone              chan error // nil: no cleanup is under way

	lastNotified time.Time     // when a notification last led to a refresh
	notified     bool          // another one has come since
	refreshTook  time.Duration // the last complete one
	liveDaemons  []int64
	hasMoves     bool // some webhook may have attempts in flight at a previous URL
}

// run keeps a session and refreshes until the context ends.
func (c *coordinator) run(ctx context.Context) error {
	defer func() { disconnect(ctx, c.conn) }()
	return c.s.retrySession(ctx, Leasing, func() (bool, error) {
		disconnect(ctx, c.conn)
		began := time.Now()
		err := c.runSession(ctx)
		c.s.pool.Reset() // its sessions may hang as well
		return c.lastNotified.After(began) || c.lastReload.After(began), err
	})
}

// retrySession runs sessions until the context ends. It returns errors that no retry cures: a
// *catalog.CopyError or a *sql.VersionError. A session that worked resets the backoff.
func (s *Scheduler) retrySession(ctx context.Context, concern Concern, session func() (worked bool, err error)) error {
	backoff := newStoreBackoff()
	for ctx.Err() == nil {
		worked, err := session()
		if ctx.Err() != nil {
			break
		}
		var copied *catalog.CopyError
		var version *sql.VersionError
		if errors.As(err, &copied) || errors.As(err, &version) {
			s.health.note(concern, err)
			return err
		}
		if worked {
			backoff = newStoreBackoff()
		}
		s.health.note(concern, err)
		pause, _ := backoff.Next()
		s.cfg.Log.Warn("lost the connection to the store; retrying", "error", err, "in", pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// connect opens a session for the membership or the coordinator.
func (s *Scheduler) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := catalog.ConnectStore(ctx, s.cfg.StoreURL)
	if err != nil {
		return nil, err
	}
	if err = s.cfg.Original.CheckStore(ctx, conn); err == nil {
		err = boundLockWaits(ctx, conn)
	}
	if err != nil {
		disconnect(ctx, conn)
		return nil, err
	}
	return conn, nil
}

// connectTimeout bounds connect, and disconnectTimeout a disconnect, because the server may not answer.
const (
	connectTimeout    = 10 * time.Second
	disconnectTimeout = time.Second
)

func disconnect(ctx context.Context, conn *pgx.Conn) {
	if conn == nil || conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

// runSession connects, and refreshes as long as the connection lasts.
func (c *coordinator) runSession(ctx context.Context) (err error) {
	if c.conn, err = c.s.connect(ctx); err != nil {
		return err
	}
	listening, cancel := context.WithTimeout(ctx, rebalanceTimeout)
	defer cancel()
	if _, err := c.conn.Exec(listening, "listen walhook; listen "+queuedChannel); err != nil {
		return fmt.Errorf("listen for changes: %w", err)
	}
	c.lastReload, c.lastFindWork = time.Time{}, time.Time{}
	for ctx.Err() == nil {
		if id := c.s.schedule.Registered(); id != c.id {
			c.id, c.lastReload, c.lastFindWork = id, time.Time{}, time.Time{}
		}
		if c.notified && !time.Now().Before(c.nextNotifiedRefresh()) {
			c.notified, c.lastReload, c.lastFindWork = false, time.Time{}, time.Time{}
			c.lastNotified = time.Now()
		}
		began, complete := time.Now(), c.lastReload.IsZero()
		if err := c.refresh(ctx); isLocked(err) {
			c.s.cfg.Log.Debug("skipped what is locked in the store", "error", err)
			c.s.health.note(Leasing, err)
			c.lastReload, complete = time.Time{}, false
		} else if err != nil {
			return err
		}
		if complete {
			c.refreshTook = time.Since(began)
			c.s.health.note(Leasing, nil)
		}
		notified, err := c.wait(ctx)
		if err != nil {
			return err
		}
		c.notified = c.notified || notified
	}
	return ctx.Err()
}

// nextNotifiedRefresh returns when a notification may cause the next refresh. While webhooks are edited constantly, the
// loads that one refresh requests must be able to end before the next one invalidates them.
func (c *coordinator) nextNotifiedRefresh() time.Time {
	return c.lastNotified.Add(max(notificationPause, 4*c.refreshTook))
}

// wait waits up to refreshPause for a notification or a request of the schedule. It reports whether to refresh at once.
func (c *coordinator) wait(ctx context.Context) (bool, error) {
	until := time.Now().Add(refreshPause)
	if at := c.nextNotifiedRefresh(); c.notified && at.Before(until) {
		until = at
	}
	ctx, cancel := context.WithTimeout(ctx, max(time.Until(until), time.Millisecond))
	defer cancel()
	requested := make(chan bool, 1)
	go func() {
		select {
		case <-c.s.schedule.RefreshWanted:
			requested <- true
			cancel()
		case <-ctx.Done():
			requested <- false
		}
	}()
	n, err := c.conn.WaitForNotification(ctx)
	cancel()
	request := <-requested
	if err == nil && n.Channel == queuedChannel {
		c.s.queuedNotification(n.Payload)
		return request, nil
	}
	if err == nil || request {
		return true, nil
	}
	if c.conn.IsClosed() {
		return false, fmt.Errorf("listen for changes: %w", err)
	}
	return false, nil
}

// refresh reloads webhooks, claims and releases endpoints, finishes moves and finds pending deliveries, as each is due.
func (c *coordinator) refresh(ctx context.Context) error {
	now := time.Now()
	c.cleanUpOrphans(ctx, now)
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	if now.Sub(c.lastReload) >= reloadInterval {
		c.lastReload = now
		if err := c.reloadWebhooks(ctx); err != nil {
			return err
		}
		if err := c.rebalance(ctx); err != nil {
			return err
		}
		if err := c.settleMoves(ctx); err != nil {
			return err
		}
	}
	if now.Sub(c.lastFindWork) >= findWorkInterval && !c.s.schedule.IsStopping() {
		c.lastFindWork = now
		return c.s.findWork(ctx)
	}
	return nil
}

// cleanUpOrphans ends pending deliveries of deleted webhooks and deletes their URLs, and webhooks whose receiver is gone.
// It may take long, so it runs beside the refreshes.
func (c *coordinator) cleanUpOrphans(ctx context.Context, now time.Time) {
	select {
	case err := <-c.cleanupDone:
		c.cleanupDone = nil
		if err != nil {
			c.s.cfg.Log.Debug("what is pending for deleted webhooks is ended later", "error", err)
			c.nextCleanup = earlier(c.nextCleanup, now.Add(upkeepRetry))
		}
	default:
	}
	if c.cleanupDone != nil || !now.After(c.nextCleanup) || c.s.schedule.IsStopping() {
		return
	}
	c.nextCleanup = now.Add(housekeeping)
	if again := c.webhooksDeletedAt.Add(orphanGrace); again.After(now) {
		c.nextCleanup = again
	}
	done := make(chan error, 1)
	c.cleanupDone = done
	c.s.queries.Go(func() {
		_, err := c.s.pool.Exec(ctx, sql.BuryOrphans.SQL)
		if err == nil {
			_, err = c.s.pool.Exec(ctx, sql.ForgetTrouble.SQL)
		}
		if err == nil {
			err = c.s.deleteGone(ctx)
		}
		if err == nil {
			err = c.s.forgetEndpoints(ctx)
		}
		done <- err
	})
}

func (c *coordinator) reloadWebhooks(ctx context.Context) error {
	before := c.s.schedule.KnownWebhooks()
	now, err := loadVersion(ctx, c.s.pool)
	if err != nil {
		return err
	}
	c.hasMoves = now.HasMoves
	c.s.numericID.Store(now.NumericID)
	if now.Version != before.Version || now.Enabled != before.Enabled {
		loaded, err := loadWebhooks(ctx, c.s.pool, before)
		if err != nil {
			return err
		}
		if c.s.applyWebhooks(loaded) {
			c.webhooksDeletedAt = time.Now()
			c.nextCleanup = earlier(c.nextCleanup, c.webhooksDeletedAt.Add(orphanGrace))
		}
	}
	return nil
}

// rebalance claims this daemon's part of the endpoints, and releases the others.
func (c *coordinator) rebalance(ctx context.Context) error {
	if c.id == 0 {
		return nil
	}
	claimed, err := c.claimAndRelease(ctx)
	if err == nil && claimed {
		err = c.s.findWork(ctx)
	}
	return err
}

// claimAndRelease reports whether there were endpoints to claim.
func (c *coordinator) claimAndRelease(ctx context.Context) (claimed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, rebalanceTimeout)
	defer cancel()
	rows, err := c.conn.Query(ctx, sql.ReapDaemons.SQL, c.id)
	if err != nil {
		return false, fmt.Errorf("find dead daemons: %w", err)
	}
	var dead int64
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&dead, &name}, func() error {
		c.s.cfg.Log.Warn("another daemon's lease expired; taking over its endpoints", "daemon_id", dead, "name", name)
		return nil
	}); err != nil {
		return false, fmt.Errorf("find dead daemons: %w", err)
	}
	rows, err = c.conn.Query(ctx, sql.LiveDaemons.SQL)
	if err != nil {
		return false, fmt.Errorf("list live daemons: %w", err)
	}
	if c.liveDaemons, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
		return false, fmt.Errorf("list live daemons: %w", err)
	}
	claim, release := c.s.schedule.Rebalance(func(endpoint int64) bool { return c.owns(endpoint) })
	if len(release) > 0 {
		args := sql.ReleaseEndpoints.Bind(sql.Args{"self": c.id, "endpoint_ids": release})
		rows, err := c.conn.Query(ctx, sql.ReleaseEndpoints.SQL, args...)
		if err != nil {
			return false, fmt.Errorf("release endpoints: %w", err)
		}
		if release, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return false, fmt.Errorf("release endpoints: %w", err)
		}
		if _, err := c.conn.Exec(ctx, "select pg_notify('walhook', '')"); err != nil {
			return false, fmt.Errorf("release endpoints: %w", err)
		}
		c.s.schedule.MarkReleased(c.id, release)
	}
	if len(claim) == 0 {
		return false, nil
	}
	args := sql.ClaimEndpoints.Bind(sql.Args{"self": c.id, "endpoint_ids": claim})
	rows, err = c.conn.Query(ctx, sql.ClaimEndpoints.SQL, args...)
	if err != nil {
		return false, fmt.Errorf("claim endpoints: %w", err)
	}
	var id int64
	var failures int
	var pause *time.Duration
	if _, err := pgx.ForEachRow(rows, []any{&id, &failures, &pause}, func() error {
		if pause == nil {
			pause = new(time.Duration)
		}
		c.s.schedule.MarkClaimed(c.id, id, failures, *pause)
		return nil
	}); err != nil {
		return false, fmt.Errorf("claim endpoints: %w", err)
	}
	return true, nil
}

// settleMoves ends the moves of webhooks whose attempts at the previous URL have ended.
func (c *coordinator) settleMoves(ctx context.Context) error {
	if !c.hasMoves {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rebalanceTimeout)
	defer cancel()
	webhooks, endpoints := c.s.schedule.SettledMoves()
	args := sql.SettleMoves.Bind(sql.Args{"webhook_ids": webhooks, "endpoint_ids": endpoints})
	tag, err := c.conn.Exec(ctx, sql.SettleMoves.SQL, args...)
	if err == nil && tag.RowsAffected() > 0 {
		_, err = c.conn.Exec(ctx, "select pg_notify('walhook', '')")
	}
	if err != nil {
		return fmt.Errorf("settle moves of webhooks: %w", err)
	}
	return nil
}

// owns reports whether rendezvous hashing makes this daemon the owner. Every daemon gets the same answer, and a change in
// their number moves as few endpoints as possible.
func (c *coordinator) owns(endpoint int64) bool {
	var best uint64
	var owner int64
	for _, daemon := range c.liveDaemons {
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
	return owner == c.id
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
