package testenv

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// kept holds idle sessions, by URL. Starting a server process costs a hundred times as much as most statements, and
// tests that wait for something poll repeatedly. So a session is kept for the next statement at the same URL, as good as
// new.
type kept struct {
	sync.Mutex
	idle map[string][]*pgx.Conn
}

var sessions kept

func (k *kept) take(url string) (one *pgx.Conn, ok bool) {
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

func (k *kept) put(url string, one *pgx.Conn) {
	k.Lock()
	defer k.Unlock()
	if k.idle == nil {
		k.idle = map[string][]*pgx.Conn{}
	}
	k.idle[url] = append(k.idle[url], one)
}

// takeAll removes and returns everything idle at a server's port, or only in one of its databases if one is named.
func (k *kept) takeAll(port int, database string) (all []*pgx.Conn) {
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

// endSessions closes everything idle at a server, or only in one of its databases if one is named.
func endSessions(port int, database string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, conn := range sessions.takeAll(port, database) {
		_ = conn.Close(ctx)
	}
}

// borrow returns an idle session that still answers, or opens one.
func borrow(ctx context.Context, url string) (*pgx.Conn, error) {
	for {
		conn, ok := sessions.take(url)
		if !ok {
			break
		}
		if conn.Ping(ctx) == nil {
			return conn, nil
		}
		_ = conn.Close(ctx) // its server was restarted, or somebody terminated it
	}
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	// Prepared statements would break when their tables change.
	config.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	config.OnNotice = func(conn *pgconn.PgConn, notice *pgconn.Notice) {
		if report, ok := conn.CustomData()[noticeKey].(func(*pgconn.PgError)); ok {
			report((*pgconn.PgError)(notice))
		}
	}
	return pgx.ConnectConfig(ctx, config)
}

// noticeKey is where a session keeps the function that receives its notices.
const noticeKey = "notices"

// giveBack keeps a session, unless it is broken or inside a transaction. It discards settings, locks, temporary tables
// and plans, like the end of a session.
func giveBack(ctx context.Context, url string, conn *pgx.Conn) {
	if conn.PgConn().TxStatus() == 'I' {
		if _, err := conn.Exec(ctx, "discard all", pgx.QueryExecModeSimpleProtocol); err == nil {
			sessions.put(url, conn)
			return
		}
	}
	_ = conn.Close(ctx)
}
