package testenv

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// To start a process of the server, and psql, costs a hundred times what most statements do, and tests that wait for something
// ask again and again. So both are kept for the next statement at the same URL, which finds its session as if it were new.

// kept holds what is idle, by URL.
type kept[T any] struct {
	sync.Mutex
	idle map[string][]T
}

var (
	sessions kept[*pgx.Conn]
	psqls    kept[*psqlProcess]
)

func (k *kept[T]) take(url string) (one T, ok bool) {
	k.Lock()
	defer k.Unlock()
	n := len(k.idle[url])
	if n == 0 {
		return one, false
	}
	one = k.idle[url][n-1]
	k.idle[url] = k.idle[url][:n-1]
	return one, true
}

func (k *kept[T]) put(url string, one T) {
	k.Lock()
	defer k.Unlock()
	if k.idle == nil {
		k.idle = map[string][]T{}
	}
	k.idle[url] = append(k.idle[url], one)
}

// takeAll takes what is idle at a server's port, and in one of its databases where one is named.
func (k *kept[T]) takeAll(port int, database string) (all []T) {
	k.Lock()
	defer k.Unlock()
	for url, idle := range k.idle {
		config, err := pgx.ParseConfig(url)
		if err != nil || int(config.Port) != port || database != "" && config.Database != database {
			continue
		}
		all = append(all, idle...)
		delete(k.idle, url)
	}
	return all
}

// endSessions ends what is kept of a server, and of one of its databases where one is named.
func endSessions(port int, database string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, conn := range sessions.takeAll(port, database) {
		_ = conn.Close(ctx)
	}
	for _, psql := range psqls.takeAll(port, database) {
		_ = psql.end()
	}
}

// borrow takes a session that still answers, or opens one.
func borrow(ctx context.Context, url string) (*pgx.Conn, error) {
	for {
		conn, ok := sessions.take(url)
		if !ok {
			break
		}
		if conn.Ping(ctx) == nil {
			return conn, nil
		}
		_ = conn.Close(ctx) // its server was restarted, or somebody has ended it
	}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	// Prepared statements would not survive a change of their tables.
	config.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	return pgx.ConnectConfig(ctx, config)
}

// giveBack keeps a session, unless it is inside a transaction or broken. Settings, locks, temporary tables and plans go, as with
// the end of a session.
func giveBack(ctx context.Context, url string, conn *pgx.Conn) {
	if conn.PgConn().TxStatus() == 'I' {
		if _, err := conn.Exec(ctx, "discard all", pgx.QueryExecModeSimpleProtocol); err == nil {
			sessions.put(url, conn)
			return
		}
	}
	_ = conn.Close(ctx)
}
