package session

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/testenv"
)

// A connection error is one line with the server's answer and the user's name, and without the password.
func TestConnectionErrorsAreOneLine(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	for name, c := range map[string]struct{ url, says, not string }{
		"unknown role":   {strings.Replace(server.URL("postgres"), "postgres@", "app_owner:own@", 1), `user "app_owner": FATAL: role "app_owner" does not exist`, "TLS"},
		"unknown base":   {server.URL("nowhere"), `database "nowhere" does not exist`, "TLS"},
		"nobody listens": {"postgres://app:hunter2@127.0.0.1:1/app", "connection refused", "hunter2"},
		"of two nobody":  {"postgres://app:hunter2@127.0.0.1:1,127.0.0.1:2/app", "127.0.0.1:2 (127.0.0.1): dial error", "hunter2"},
	} {
		for what, connect := range map[string]func() error{
			"store":       func() error { _, err := Connect(t.Context(), c.url, "the store"); return err },
			"source":      func() error { _, err := Connect(t.Context(), c.url, "the source"); return err },
			"replication": func() error { _, err := ConnectReplication(t.Context(), c.url, func(*pgconn.Config) {}); return err },
		} {
			err := connect()
			var connectError *pgconn.ConnectError
			if err == nil || !errors.As(err, &connectError) || !strings.Contains(err.Error(), c.says) ||
				strings.Contains(err.Error(), c.not) ||
				strings.Contains(err.Error(), "\n") ||
				strings.Count(err.Error(), c.says) != 1 {
				t.Errorf("%s, %s: %v", name, what, err)
			}
		}
	}
}

// A timeout of the role that is over before the settings are pinned delays a connection, and does not refuse it.
func TestShortTimeoutsDelayAConnection(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	testenv.Exec(t, server.URL("postgres"), "create role hasty login; alter role hasty set statement_timeout = '1ms'; alter role hasty set idle_session_timeout = '1ms'; alter role hasty set exit_on_error = on")
	if testenv.Psql(t, server.URL("postgres"), "select 1 from pg_settings where name = 'transaction_timeout'") == "1" {
		testenv.Exec(t, server.URL("postgres"), "alter role hasty set transaction_timeout = '3ms'")
	}
	url := strings.Replace(server.URL("postgres"), "postgres@", "hasty@", 1)
	var connecting sync.WaitGroup
	for range 8 { // more than there are processors, so that some are late
		connecting.Go(func() {
			for range 25 {
				conn, err := Connect(t.Context(), url, "the store")
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.Close(t.Context())
			}
		})
	}
	connecting.Wait()
}

// The server takes a moment to end a session, so the WAL sender of a process that has just ended is waited for.
func TestLastSenderIsWaitedFor(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, map[string]string{"max_wal_senders": "1"})
	connect := func() (*pgconn.PgConn, error) {
		return ConnectReplication(t.Context(), server.URL("postgres"), func(*pgconn.Config) {})
	}
	ending, err := connect()
	if err != nil {
		t.Fatal(err)
	}
	connected := make(chan error)
	go func() {
		conn, err := connect()
		if err == nil {
			err = conn.Close(t.Context())
		}
		connected <- err
	}()
	testenv.Eventually(t, time.Minute, "a refusal", func() (bool, string) {
		log := server.Log()
		return strings.Contains(log, "max_wal_senders"), log
	})
	_ = ending.Close(t.Context())
	if err := <-connected; err != nil {
		t.Error(err)
	}
}
