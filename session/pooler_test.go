package session

import (
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/testenv"
)

// A pooler that assigns a server process per transaction is rejected before anything is set there. A pooler that
// assigns one per session is accepted.
func TestTransactionPoolIsRefused(t *testing.T) {
	t.Parallel()
	u := mustParse(t, testenv.Database(t, testenv.Postgres(t), ""))
	server := u.Host
	u.Host = poolBefore(t, server, true)
	conn, err := Connect(t.Context(), u.String(), "the store")
	if !errors.Is(err, ErrTransactionPool) || !strings.Contains(err.Error(), "connect to the store at ") ||
		!strings.Contains(err.Error(), "pool_mode = session") {
		t.Errorf("a pool of transactions: %v", err)
	}
	if conn != nil {
		_ = conn.Close(t.Context())
	}
	u.Host = poolBefore(t, server, false)
	conn, err = Connect(t.Context(), u.String(), "the store")
	if err != nil {
		t.Fatalf("a pool of sessions: %v", err)
	}
	defer conn.Close(t.Context())
	var path string
	if err := conn.QueryRow(t.Context(), "show search_path").Scan(&path); err != nil || path != "pg_catalog, pg_temp" {
		t.Errorf("through a pool of sessions search_path is %q: %v", path, err)
	}
}

// poolBefore returns the address of a pooler that reports a process id of its own to each client. If it pools
// transactions, all clients share one server connection, one transaction at a time.
func poolBefore(t *testing.T, server string, transactions bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	var shared struct {
		sync.Mutex
		*pgproto3.Frontend
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				client := pgproto3.NewBackend(conn, conn)
				startup, err := client.ReceiveStartupMessage()
				if err != nil {
					return
				}
				upstream, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				own := pgproto3.NewFrontend(upstream, upstream)
				own.Send(startup)
				if own.Flush() != nil || relay(own, client) != nil {
					return
				}
				shared.Lock()
				if shared.Frontend == nil || !transactions {
					shared.Frontend = own
				}
				shared.Unlock()
				for held := false; ; {
					message, err := client.Receive()
					if err != nil {
						return
					}
					if _, ended := message.(*pgproto3.Terminate); ended {
						return
					}
					to := own
					if transactions {
						if !held {
							shared.Lock()
						}
						to = shared.Frontend
					}
					to.Send(message)
					if to.Flush() != nil {
						return
					}
					switch message.(type) {
					case *pgproto3.Query, *pgproto3.Sync:
						status := relay(to, client)
						held = status != nil && errors.Is(status, errInTransaction)
						if transactions && !held {
							shared.Unlock()
						}
					default:
						held = true
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

var errInTransaction = errors.New("a transaction is in progress")

// relay forwards the server's messages until it is ready for the next query.
func relay(server *pgproto3.Frontend, client *pgproto3.Backend) error {
	for {
		message, err := server.Receive()
		if err != nil {
			return err
		}
		if key, ok := message.(*pgproto3.BackendKeyData); ok {
			key.ProcessID++
		}
		client.Send(message)
		if err := client.Flush(); err != nil {
			return err
		}
		if ready, ok := message.(*pgproto3.ReadyForQuery); ok {
			if ready.TxStatus != 'I' {
				return errInTransaction
			}
			return nil
		}
	}
}
