package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrTransactionPool reports a pooler that assigns a server process per transaction.
var ErrTransactionPool = errors.New(
	"a connection pooler such as PgBouncer stands in between and pools transactions: session locks, LISTEN, " +
		"prepared statements and settings do not survive that; let the URL name the PostgreSQL server itself, " +
		"or for a store a pool with pool_mode = session",
)

// probeTimeout bounds how long a pooler may take to open a second connection. A pooler that has no server left for
// one pools sessions.
const probeTimeout = 3 * time.Second

// rejectTransactionPool returns ErrTransactionPool if a pooler shares this connection's server process with others
// between two transactions: either a transaction of a second connection gets that process, or the first connection
// gets another one.
func rejectTransactionPool(ctx context.Context, conn *pgconn.PgConn, config *pgconn.Config) error {
	if config.RuntimeParams["replication"] != "" {
		return nil // poolers that support replication at all dedicate a server process to it
	}
	before, err := backendPID(ctx, conn, "")
	if err != nil {
		return err
	}
	config = config.Copy()
	config.ValidateConnect = nil
	dial, address := config.DialFunc, conn.Conn().RemoteAddr()
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, address.Network(), address.String())
	}
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	other, err := pgconn.ConnectConfig(probing, config)
	if err != nil {
		return nil
	}
	between, err := backendPID(probing, other, "begin")
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = other.Close(closing) // before the first connection asks again, which may have to wait for its server
	switch {
	case err != nil:
		return nil
	case between == before:
		return ErrTransactionPool
	}
	after, err := backendPID(ctx, conn, "")
	if err == nil && after != before {
		err = ErrTransactionPool
	}
	return err
}

// backendPID runs a statement and returns the id of the server process that answered.
func backendPID(ctx context.Context, conn *pgconn.PgConn, first string) (string, error) {
	results, err := conn.Exec(ctx, first+"; select pg_catalog.pg_backend_pid()").ReadAll()
	if err != nil {
		return "", fmt.Errorf("ask which server process answers: %w", err)
	}
	return string(results[len(results)-1].Rows[0][0]), nil
}
