package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// mortal are settings with which the store's server ends a session within five seconds of the end of its client's machine, also where it
// is at a statement.
var mortal = [...][2]string{
	{"tcp_keepalives_idle", "1"},
	{"tcp_keepalives_interval", "1"},
	{"tcp_keepalives_count", "3"},
	{"tcp_user_timeout", "5s"},
	{"client_connection_check_interval", "2s"},
}

// connectLocking opens a connection to the store for a session whose locks others wait for.
func connectLocking(ctx context.Context, url string) (*pgx.Conn, error) {
	store, err := ConnectStore(ctx, url)
	if err != nil {
		return nil, err
	}
	for _, setting := range mortal {
		// A server may refuse what its system does not support.
		if _, err := store.Exec(ctx, "select pg_catalog.set_config($1, $2, false)", setting[0], setting[1]); err != nil && sqlState(err) != stateInvalidValue {
			closeQuietly(store)
			return nil, fmt.Errorf("set up the store's session: %w", err)
		}
	}
	return store, nil
}

// closeLocking gives the locks back before it closes the connection: the server may take a moment to end a session.
func closeLocking(store *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, _ = store.Exec(ctx, "select pg_catalog.pg_advisory_unlock_all()")
	closeQuietly(store)
}
