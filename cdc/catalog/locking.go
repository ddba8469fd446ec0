package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/sql"
)

// LockRetryInterval is how often a lock that another session holds is retried.
const LockRetryInterval = 500 * time.Millisecond

// deadClientSettings make the store's server end a session within five seconds after the client's host is gone, even
// in the middle of a statement.
var deadClientSettings = [...][2]string{
	{"tcp_keepalives_idle", "1"},
	{"tcp_keepalives_interval", "1"},
	{"tcp_keepalives_count", "3"},
	{"tcp_user_timeout", "5s"},
	{"client_connection_check_interval", "2s"},
}

// ConnectLocking opens a connection to the store for a session that holds locks.
func ConnectLocking(ctx context.Context, url string) (*pgx.Conn, error) {
	store, err := ConnectStore(ctx, url)
	if err != nil {
		return nil, err
	}
	for _, setting := range deadClientSettings {
		// A server may refuse what its system does not support.
		if _, err := store.Exec(ctx, "select pg_catalog.set_config($1, $2, false)", setting[0], setting[1]); err != nil &&
			cdc.SQLState(err) != pgerrcode.InvalidParameterValue {
			CloseQuietly(store)
			return nil, fmt.Errorf("set up the store's session: %w", err)
		}
	}
	if err := lost.end(ctx, store); err != nil {
		CloseQuietly(store)
		return nil, err
	}
	var began time.Time
	if err := store.QueryRow(ctx, sessionBeganSQL).Scan(&began); err != nil {
		CloseQuietly(store)
		return nil, fmt.Errorf("set up the store's session: %w", err)
	}
	store.PgConn().CustomData()[sessionBegan] = began
	return store, nil
}

// sessionBegan is the key of the time at which a locking session began, as the server tells it.
const (
	sessionBegan    = "began"
	sessionBeganSQL = "select backend_start from pg_catalog.pg_stat_activity where pid = pg_catalog.pg_backend_pid()"
)

// CloseLocking releases the session's locks before it closes the connection: the server may take a moment to end a
// session.
func CloseLocking(store *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := store.Exec(ctx, "select pg_catalog.pg_advisory_unlock_all()"); err != nil {
		lost.add(lostSession{store.PgConn().PID(), store.PgConn().CustomData()[sessionBegan]})
	}
	CloseQuietly(store)
}

// lost are the sessions of this process whose connections broke before their locks were released.
var lost lostSessions

// lostSessions are server processes of the store. A balancer that keeps the connection to the server open hides from the
// server that the client is gone, and the session holds its locks for ever.
type lostSessions struct {
	mu  sync.Mutex
	all []lostSession
}

// lostSession is a server process. After a restart of the server, another one may have its pid.
type lostSession struct {
	pid   uint32
	began any
}

func (l *lostSessions) add(session lostSession) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, session)
}

// end terminates those that still hold a lock. The store's server may take a moment to end them.
func (l *lostSessions) end(ctx context.Context, store *pgx.Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		return nil
	}
	var holding []uint32
	for _, key := range []int64{ReaderLock, AttachLock} {
		pids, err := LockSessions(ctx, store, key, true)
		if err != nil {
			return err
		}
		holding = append(holding, pids...)
	}
	l.all = slices.DeleteFunc(l.all, func(s lostSession) bool { return !slices.Contains(holding, s.pid) })
	for _, s := range l.all {
		_, err := store.Exec(ctx, "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity "+
			"where pid = $1 and backend_start = $2", int32(s.pid), s.began)
		if err != nil && cdc.SQLState(err) != pgerrcode.InsufficientPrivilege {
			return fmt.Errorf("terminate the lost session %d: %w", s.pid, err)
		}
	}
	return nil
}

// ReaderLock is the key of the advisory lock on the store that the one daemon holds which reads the slot.
const ReaderLock int64 = 0x77616c686f6f6b01 // "walhook" and 1

// DaemonLock is the class of the advisory lock on the store that each daemon holds for its id while it is alive, so
// that other daemons notice at once when it is killed.
const DaemonLock int32 = 0x77686b64 // "whkd"

// AttachLock is the key of the advisory lock on the store that attach, detach and reconcile hold.
const AttachLock int64 = 0x77616c686f6f6b02 // "walhook" and 2

// LockAttach acquires AttachLock. It waits a while for another attach, detach or reconcile on this store.
func LockAttach(ctx context.Context, store *pgx.Conn) error {
	locked, err := TryLock(ctx, store, AttachLock, DialTimeout)
	if err == nil && !locked {
		err = errors.New("another attach, detach or reconcile is at work on this store; wait for it to end")
	}
	return err
}

// TryLock tries to acquire an advisory lock of the store until a timeout, and reports whether it did.
func TryLock(ctx context.Context, store *pgx.Conn, key int64, timeout time.Duration) (locked bool, err error) {
	for began := time.Now(); ; {
		if err := store.QueryRow(ctx, "select pg_try_advisory_lock($1)", key).Scan(&locked); err != nil {
			return false, fmt.Errorf("lock the store: %w", err)
		}
		if locked || time.Since(began) >= timeout {
			return locked, nil
		}
		select {
		case <-time.After(LockRetryInterval / 5):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// LockSessions returns the server processes that hold an advisory lock of the store or, if granted is false, wait for
// it.
func LockSessions(ctx context.Context, store *pgx.Conn, key int64, granted bool) (pids []uint32, err error) {
	err = store.QueryRow(ctx, sql.LockSessions.SQL, sql.LockSessions.Bind(sql.Args{"key": key, "granted": granted})...).
		Scan(&pids)
	if err != nil {
		return nil, fmt.Errorf("look whose the locks of the store are: %w", err)
	}
	return pids, nil
}
