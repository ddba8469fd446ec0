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

	noticePause = 100 * time.Millisecond // the least time between two looks that notifications ask for

	// reapedAfter is how long after its last heartbeat a daemon begins nothing more: a bit later others may take it for dead
	// (ReapDaemons), for its session may have been lost since.
	reapedAfter = 3500 * time.Millisecond

	// lookTimeout bounds a look at the store, and shareTimeout what of it goes over the session that listens: then that is replaced.
	lookTimeout  = 30 * time.Second
	shareTimeout = 10 * time.Second

	// lookInterval is how often pending deliveries are looked for though no notification came.
	lookInterval = 10 * time.Second
	// orphanGrace is how long after a webhook was deleted a transaction may still queue for it, which had seen it before.
	orphanGrace = 15 * time.Second
	// lookPause is how long to wait for a notification before looking whether another look is due.
	lookPause = 1500 * time.Millisecond
	// versionInterval is how often webhooks are looked at though no notification came: a pooler may swallow them.
	versionInterval = 2 * time.Second
)

// lease knows the webhooks, and decides which endpoints are this daemon's own. One goroutine runs it, beside the pulse.
type lease struct {
	s    *Scheduler
	conn *pgx.Conn
	id   int64 // of this daemon, as of the look that goes on; 0: it is not registered

	looked, versioned time.Time
	deleted           time.Time  // when webhooks were last found to be gone
	orphans           time.Time  // when to look for what was queued for such
	burying           chan error // what came of that; nil while it does not go on

	noticed time.Time     // when a notification was last followed
	asked   bool          // another has come since
	took    time.Duration // to look for everything
	live    []int64
	moves   bool // webhooks have left URLs
}

// run connects, and looks at the store for as long as the connection lasts, until the context ends.
func (l *lease) run(ctx context.Context) error {
	defer func() { disconnect(ctx, l.conn) }()
	return l.s.keep(ctx, Leasing, func() (bool, error) {
		disconnect(ctx, l.conn)
		began := time.Now()
		err := l.hold(ctx)
		l.s.pool.Reset() // a session may be the one that did not answer
		return l.noticed.After(began) || l.versioned.After(began), err
	})
}

// keep does something that only ends in an error, again and again until the context ends. It returns what trying again
// does not mend: a *cdc.CopyError or a *sql.VersionError.
func (s *Scheduler) keep(ctx context.Context, concern Concern, do func() (worked bool, err error)) error {
	backoff := newStoreBackoff()
	for ctx.Err() == nil {
		worked, err := do()
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
		s.cfg.Log.Warn("lost touch with the store; trying again", "error", err, "in", pause.Round(time.Millisecond))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// connect opens a session for the pulse or the lease.
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

// connectTimeout bounds what connect does, and disconnectTimeout how long the server may take to hear of the end.
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

// hold connects, and looks at the store as long as the connection lasts.
func (l *lease) hold(ctx context.Context) (err error) {
	if l.conn, err = l.s.connect(ctx); err != nil {
		return err
	}
	listening, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
	if _, err := l.conn.Exec(listening, "listen walhook; listen "+queuedChannel); err != nil {
		return fmt.Errorf("listen for changes: %w", err)
	}
	l.versioned, l.looked = time.Time{}, time.Time{}
	for ctx.Err() == nil {
		if id := l.s.registered(); id != l.id {
			l.id, l.versioned, l.looked = id, time.Time{}, time.Time{}
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

// wait waits for a notification or a wish of the scheduler, for a while.
func (l *lease) wait(ctx context.Context) (bool, error) {
	until := time.Now().Add(lookPause)
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

// look takes over changed webhooks, dead daemons' endpoints and pending work.
func (l *lease) look(ctx context.Context) error {
	now := time.Now()
	l.bury(ctx, now)
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
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
	if now.Sub(l.looked) >= lookInterval && !l.s.draining() {
		l.looked = now
		return l.s.findWork(ctx)
	}
	return nil
}

// bury lets what is pending for deleted webhooks be ended and their URLs be deleted, which may take long, beside the looks.
func (l *lease) bury(ctx context.Context, now time.Time) {
	select {
	case err := <-l.burying:
		l.burying = nil
		if err != nil {
			l.s.cfg.Log.Debug("what is pending for deleted webhooks is ended later", "error", err)
			l.orphans = earlier(l.orphans, now.Add(upkeepRetry))
		}
	default:
	}
	if l.burying != nil || !now.After(l.orphans) || l.s.draining() {
		return
	}
	l.orphans = now.Add(housekeeping)
	if again := l.deleted.Add(orphanGrace); again.After(now) {
		l.orphans = again
	}
	ended := make(chan error, 1)
	l.burying = ended
	l.s.lookups.Go(func() {
		_, err := l.s.pool.Exec(ctx, sql.BuryOrphans.SQL)
		if err == nil {
			_, err = l.s.pool.Exec(ctx, sql.ForgetTrouble.SQL)
		}
		if err == nil {
			err = l.s.forgetEndpoints(ctx)
		}
		ended <- err
	})
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
	if l.id == 0 {
		return nil
	}
	claimed, err := l.divide(ctx)
	if err == nil && claimed {
		err = l.s.findWork(ctx)
	}
	return err
}

// divide does that, and reports whether there was something to claim.
func (l *lease) divide(ctx context.Context) (claimed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
	rows, err := l.conn.Query(ctx, sql.ReapDaemons.SQL, l.id)
	if err != nil {
		return false, fmt.Errorf("look for dead daemons: %w", err)
	}
	var dead int64
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&dead, &name}, func() error {
		l.s.cfg.Log.Warn("a daemon died; its endpoints are taken over", "daemon_id", dead, "name", name)
		return nil
	}); err != nil {
		return false, fmt.Errorf("look for dead daemons: %w", err)
	}
	rows, err = l.conn.Query(ctx, sql.LiveDaemons.SQL)
	if err != nil {
		return false, fmt.Errorf("look for other daemons: %w", err)
	}
	if l.live, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
		return false, fmt.Errorf("look for other daemons: %w", err)
	}
	claim, release := l.s.shares(func(endpoint int64) bool { return l.mine(endpoint) })
	if len(release) > 0 {
		rows, err := l.conn.Query(ctx, sql.ReleaseEndpoints.SQL, sql.ReleaseEndpoints.Bind(sql.Args{"self": l.id, "endpoint_ids": release})...)
		if err != nil {
			return false, fmt.Errorf("give endpoints back: %w", err)
		}
		if release, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
			return false, fmt.Errorf("give endpoints back: %w", err)
		}
		if _, err := l.conn.Exec(ctx, "select pg_notify('walhook', '')"); err != nil {
			return false, fmt.Errorf("give endpoints back: %w", err)
		}
		l.s.released(l.id, release)
	}
	if len(claim) == 0 {
		return false, nil
	}
	rows, err = l.conn.Query(ctx, sql.ClaimEndpoints.SQL, sql.ClaimEndpoints.Bind(sql.Args{"self": l.id, "endpoint_ids": claim})...)
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
		l.s.claimed(l.id, id, failures, *pause)
		return nil
	}); err != nil {
		return false, fmt.Errorf("claim endpoints: %w", err)
	}
	return true, nil
}

// settle lets webhooks go on whose attempts at the URL before have ended.
func (l *lease) settle(ctx context.Context) error {
	if !l.moves {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
	defer cancel()
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
