package cdc

import (
	"bufio"
	"context"
	"io"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/session"
	"walhook/sql"
)

// dialTimeout bounds what waits for an answer of a server as long as for a connection.
const dialTimeout = session.DialTimeout

// receiveBuffer is the read buffer of the replication connection. A row change is some hundred bytes, so the usual 8 KiB
// would cost a system call for a few dozen of them.
const receiveBuffer = 64 << 10

// ConnectSource opens an ordinary connection to the application's database.
func ConnectSource(ctx context.Context, url string) (*pgx.Conn, error) {
	return session.Connect(ctx, url, "the application's database")
}

// ConnectStore opens a connection to the database that holds the schema walhook.
func ConnectStore(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := session.Connect(ctx, url, "the store")
	if err != nil {
		return nil, err
	}
	if err := sql.RegisterTypes(ctx, conn); err != nil {
		closeQuietly(conn)
		return nil, err
	}
	return conn, nil
}

// ConnectReplication opens a logical replication connection to the application's database.
func ConnectReplication(ctx context.Context, url string) (*pgconn.PgConn, error) {
	return session.ConnectReplication(ctx, url, func(config *pgconn.Config) {
		if config.RuntimeParams["wal_sender_timeout"] == "" {
			config.RuntimeParams["wal_sender_timeout"] = strconv.FormatInt(senderTimeout.Milliseconds(), 10)
		}
		config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			return pgproto3.NewFrontend(bufio.NewReaderSize(&gatheringReader{from: r}, receiveBuffer), w)
		}
	})
}
