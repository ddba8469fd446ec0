package stream

import (
	"bufio"
	"context"
	"io"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/session"
)

// receiveBuffer is the read buffer of the replication connection. A row change is some hundred bytes, so the usual 8 KiB
// would cost a system call for a few dozen of them.
const receiveBuffer = 64 << 10

// ConnectReplication opens a logical replication connection to the application's database.
func ConnectReplication(ctx context.Context, url string) (*pgconn.PgConn, error) {
	return session.ConnectReplication(ctx, url, func(config *pgconn.Config) {
		if config.RuntimeParams["wal_sender_timeout"] == "" {
			config.RuntimeParams["wal_sender_timeout"] = strconv.FormatInt(walSenderTimeout.Milliseconds(), 10)
		}
		config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			return pgproto3.NewFrontend(bufio.NewReaderSize(&coalescingReader{from: r}, receiveBuffer), w)
		}
	})
}

// coalescingReader rests before it reads from a connection that brings little at a time and much in all.
type coalescingReader struct {
	from io.Reader
	wakeups
}

func (g *coalescingReader) Read(p []byte) (int, error) {
	g.pause()
	n, err := g.from.Read(p)
	g.record(err == nil && n < len(p)/2)
	return n, err
}
