package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/session"
	"walhook/sql"
)

// DialTimeout also bounds waits that may take as long as connecting.
const DialTimeout = session.DialTimeout

// ConnectSource opens an ordinary connection to the application's database.
func ConnectSource(ctx context.Context, url string) (*pgx.Conn, error) {
	return session.Connect(ctx, url, "the application's database")
}

// ConnectPrimary is ConnectSource for work that a standby cannot do.
func ConnectPrimary(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := ConnectSource(ctx, url)
	if err != nil {
		return nil, err
	}
	if err := refuseStandby(conn, "the application's database", "WALHOOK_DATABASE_URL"); err != nil {
		return nil, err
	}
	return conn, nil
}

// refuseStandby closes a connection to a standby and returns an error that says so.
func refuseStandby(conn *pgx.Conn, what, variable string) error {
	if conn.PgConn().ParameterStatus("in_hot_standby") != "on" {
		return nil
	}
	CloseQuietly(conn)
	return fmt.Errorf("%s at %s is a standby, which walhook cannot work on: promote it, or let %s name the primary", what,
		session.Address(&conn.Config().Config), variable)
}

// ConnectStore opens a connection to the database that holds the schema walhook.
func ConnectStore(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := session.Connect(ctx, url, "the store")
	if err != nil {
		return nil, err
	}
	if err := refuseStandby(conn, "the store", "WALHOOK_STORE_URL"); err != nil {
		return nil, err
	}
	if err := sql.RegisterTypes(ctx, conn); err != nil {
		CloseQuietly(conn)
		return nil, err
	}
	return conn, nil
}

type closer interface{ Close(context.Context) error }

// CloseQuietly closes a connection that is no longer needed, and ignores errors.
func CloseQuietly(conn closer) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}
