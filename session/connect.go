package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// DialTimeout bounds one attempt to connect, name resolution and authentication included.
const DialTimeout = 10 * time.Second

// Connect opens a connection. Its errors call the server what, such as "the store".
func Connect(ctx context.Context, url, what string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of %s: %w", what, err)
	}
	configure(&config.Config)
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	conn, err := retryWhile(ctx, isCanceled, func() (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, config) })
	if err != nil {
		return nil, wrapConnectError(err, "connect to "+what+" at", &config.Config)
	}
	return conn, nil
}

// senderPatience bounds how long ConnectReplication waits for a WAL sender: the server takes a moment to end that of a
// process which has just ended.
const senderPatience = 3 * time.Second

// ConnectReplication opens a connection for logical replication. customize may change the configuration that the URL
// gives.
func ConnectReplication(ctx context.Context, url string, customize func(*pgconn.Config)) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the application's database: %w", err)
	}
	config.RuntimeParams["replication"] = "database"
	customize(config)
	configure(config)
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	began := time.Now()
	passing := func(code string) bool {
		return isCanceled(code) || code == pgerrcode.TooManyConnections && time.Since(began) < senderPatience
	}
	conn, err := retryWhile(ctx, passing, func() (*pgconn.PgConn, error) { return pgconn.ConnectConfig(ctx, config) })
	if err != nil {
		return nil, wrapConnectError(err, "open a replication connection to", config)
	}
	return conn, nil
}

// NewPool returns a pool of at most conns connections, each of which setUp has prepared. It connects lazily.
func NewPool(
	ctx context.Context, url string, conns int32, setUp func(context.Context, *pgx.Conn) error,
) (*pgxpool.Pool, error) {
	return NewPoolWith(ctx, url, func(config *pgxpool.Config) { config.MaxConns, config.AfterConnect = conns, setUp })
}

// NewPoolWith returns a pool that connects lazily. customize may change the configuration that the URL gives.
func NewPoolWith(ctx context.Context, url string, customize func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the store: %w", err)
	}
	customize(config)
	configure(&config.ConnConfig.Config)
	return pgxpool.NewWithConfig(ctx, config)
}

// transactionTimeout is an SQLSTATE that pgerrcode does not have: new in PostgreSQL 17.
const transactionTimeout = "25P04"

// isCanceled recognises that the server canceled what pins the settings, or ended the session before: a short
// statement_timeout, transaction_timeout or idle_session_timeout of the role holds until it is pinned, and a busy machine
// may need longer than that.
func isCanceled(code string) bool {
	return code == pgerrcode.QueryCanceled || code == transactionTimeout || code == pgerrcode.IdleSessionTimeout
}

// retryWhile connects again while the server refuses with an SQLSTATE that passes. The context bounds it.
func retryWhile[C any](ctx context.Context, passes func(code string) bool, connect func() (C, error)) (C, error) {
	for {
		conn, err := connect()
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || !passes(refused.Code) {
			return conn, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return conn, err
		}
	}
}

// configure pins a connection's settings, names the application, and detects a dead server host.
func configure(config *pgconn.Config) {
	detectDeadPeer(config)
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "walhook"
	}
	validate := config.ValidateConnect // target_session_attrs queries the server as well
	config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if err := pin(ctx, conn, config); err != nil || validate == nil {
			return err
		}
		return validate(ctx, conn)
	}
}
