package cdc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/sql"
)

// pinned are the settings on which the text form of a value depends. The stream and the snapshot must write a finish stamp
// alike, whatever the server's, the database's or the role's defaults are.
var pinned = map[string]string{
	"client_encoding":    "UTF8",
	"TimeZone":           "UTC",
	"DateStyle":          "ISO, MDY",
	"IntervalStyle":      "postgres",
	"extra_float_digits": "3",
	"bytea_output":       "hex",
	"lc_monetary":        "C",
	"search_path":        "pg_catalog",
	"statement_timeout":  "0",
	"lock_timeout":       "0",
}

// dialTimeout bounds one attempt to connect, name resolution and authentication included.
const dialTimeout = 10 * time.Second

// receiveBuffer is the read buffer of the replication connection. A row change is some hundred bytes, so the usual 8 KiB
// would cost a system call for a few dozen of them.
const receiveBuffer = 64 << 10

// ConnectSource opens an ordinary connection to the application's database with the pinned settings.
func ConnectSource(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the application's database: %w", err)
	}
	for name, value := range pinned {
		config.RuntimeParams[name] = value
	}
	return connect(ctx, config, "the application's database")
}

// ConnectStore opens a connection to the database that holds the schema walhook.
func ConnectStore(ctx context.Context, url string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the store: %w", err)
	}
	config.RuntimeParams["client_encoding"] = "UTF8"
	conn, err := connect(ctx, config, "the store")
	if err != nil {
		return nil, err
	}
	if err := sql.RegisterTypes(ctx, conn); err != nil {
		closeQuietly(conn)
		return nil, err
	}
	return conn, nil
}

func connect(ctx context.Context, config *pgx.ConnConfig, what string) (*pgx.Conn, error) {
	Prepare(&config.Config)
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		err = telling(err, &config.Config)
		if poolerRefuses(err) {
			return nil, fmt.Errorf("connect to %s at %s: %s: %w", what, address(&config.Config), poolerAdvice, err)
		}
		return nil, fmt.Errorf("connect to %s at %s: %w", what, address(&config.Config), err)
	}
	return conn, nil
}

// ConnectReplication opens a logical replication connection to the application's database.
func ConnectReplication(ctx context.Context, url string) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the application's database: %w", err)
	}
	for name, value := range pinned {
		config.RuntimeParams[name] = value
	}
	config.RuntimeParams["replication"] = "database"
	if config.RuntimeParams["wal_sender_timeout"] == "" {
		config.RuntimeParams["wal_sender_timeout"] = strconv.FormatInt(senderTimeout.Milliseconds(), 10)
	}
	Prepare(config)
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(&gatheringReader{from: r}, receiveBuffer), w)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		err = telling(err, config)
		if poolerRefuses(err) {
			return nil, fmt.Errorf("open a replication connection to %s: %s: %w", address(config), poolerAdvice, err)
		}
		return nil, fmt.Errorf("open a replication connection to %s: %w", address(config), err)
	}
	return conn, nil
}

const poolerAdvice = "a connection pooler such as PgBouncer stands in between and cannot carry it; let the URL name the PostgreSQL server itself"

// poolerRefuses recognises what PgBouncer says of settings, and of replication, in a connection's first message.
func poolerRefuses(err error) bool {
	text := err.Error()
	return strings.Contains(text, "unsupported startup parameter") || strings.Contains(text, "replication connections")
}

// Prepare lets a connection of this configuration be told from those of others, and end when the server's machine is gone.
func Prepare(config *pgconn.Config) {
	noticeVanished(config)
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "walhook"
	}
}

// address is what people may read of where a connection goes.
func address(config *pgconn.Config) string {
	return fmt.Sprintf("%s:%d/%s", config.Host, config.Port, config.Database)
}

// tellingError is the one line of what went wrong that people need; what it wraps is all of it.
type tellingError struct {
	text string
	err  error
}

func (e *tellingError) Error() string { return e.text }
func (e *tellingError) Unwrap() error { return e.err }

// telling picks from the attempts of one connection, with TLS and without and for each address of the host, the last that a
// server answered, or else the last. Should a server repeat the password, that is left out.
func telling(err error, config *pgconn.Config) error {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) {
		return err
	}
	attempts := []error{errors.Unwrap(connect)}
	if joined, ok := attempts[0].(interface{ Unwrap() []error }); ok {
		attempts = joined.Unwrap()
	}
	told := attempts[len(attempts)-1]
	for _, attempt := range attempts {
		var answer *pgconn.PgError
		if errors.As(attempt, &answer) {
			told = answer
		}
	}
	lines := strings.Split(told.Error(), "\n")
	text := strings.Join(slices.Compact(lines), "; ")
	if config.Password != "" {
		// A name that has the password in it is no secret.
		text = strings.NewReplacer(config.User+" ", config.User+" ", config.User+`"`, config.User+`"`, config.Password, "xxxxx").Replace(text)
	}
	return &tellingError{fmt.Sprintf("user %q: %s", config.User, text), err}
}
