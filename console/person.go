package console

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/session"
	"walhook/sql"
)

// person is who makes a request.
type person struct {
	name  string // who the change log says it was
	admin bool   // decides only what is shown: PostgreSQL's rights decide what may be done
	zone  zone   // of the site

	pool    *pgxpool.Pool
	group   string   // group role that transactions run under; "": the connection is the person's own
	notices []string // PostgreSQL's, from the transactions of this request
}

const (
	poolConns        = 8
	statementTimeout = "8s" // a page that takes longer is refused
)

// newPool returns a pool of the console. Its connections last less than a minute, because a role that may no longer log
// in is noticed only when it connects.
func newPool(ctx context.Context, url string, conns int32, customize func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	return session.NewPoolWith(ctx, url, func(config *pgxpool.Config) {
		config.MaxConns = conns
		config.MaxConnLifetime, config.MaxConnIdleTime = 30*time.Second, 15*time.Second
		config.HealthCheckPeriod = 10 * time.Second
		config.ConnConfig.RuntimeParams["application_name"] = "walhook console"
		config.ConnConfig.OnNotice = func(conn *pgconn.PgConn, notice *pgconn.Notice) {
			if heard, ok := conn.CustomData()["notices"].(*[]string); ok {
				*heard = append(*heard, asSentence(0, notice.Message))
			}
		}
		config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if err := sql.CheckOwners(ctx, conn); err != nil {
				return err
			}
			// Compiling a statement about a large log takes longer than running it, and the server has more to do than
			// pages.
			_, err := conn.Exec(ctx, `set jit = off; set max_parallel_workers_per_gather = 0;
				set statement_timeout = '`+statementTimeout+`'; set lock_timeout = '4s';
				set idle_in_transaction_session_timeout = '20s'`)
			return err
		}
		customize(config)
	})
}

// said returns the flash, followed by what PostgreSQL said.
func (p *person) said(flash string) string {
	return strings.TrimSpace(strings.Join(append([]string{flash}, p.notices...), " "))
}

// scan reads the one row that a statement returns, in a transaction of its own.
func (p *person) scan(ctx context.Context, into []any, statement string, args ...any) error {
	return p.tx(ctx, func(tx pgx.Tx) error { return tx.QueryRow(ctx, statement, args...).Scan(into...) })
}

// tx runs a transaction under the person's role. Errors that people can do something about are refusals: see asRefusal.
func (p *person) tx(ctx context.Context, do func(pgx.Tx) error) error {
	roleSet := true
	err := withConnection(ctx, p.pool, func(conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			data := tx.Conn().PgConn().CustomData()
			data["notices"] = &p.notices
			defer delete(data, "notices")
			if p.group != "" {
				// Like SET LOCAL: until the transaction ends.
				_, err := tx.Exec(ctx, "select set_config('role', $1, true), set_config('walhook.actor', $2, true)",
					p.group, p.name)
				if err != nil {
					roleSet = false
					return err
				}
			}
			return do(tx)
		})
	})
	if !roleSet {
		err = p.explainSetRole(ctx, err)
	}
	return asRefusal(err)
}

// explainSetRole returns why the console's role could not become the group role, which does not exist before walhook
// attach.
func (p *person) explainSetRole(ctx context.Context, err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) ||
		refused.Code != pgerrcode.InsufficientPrivilege && refused.Code != pgerrcode.InvalidParameterValue {
		return err
	}
	var version int32
	if err := p.pool.QueryRow(ctx, "select "+sql.InstalledVersion).Scan(&version); err != nil {
		return err
	}
	if err := sql.CheckInstalled(version); err != nil {
		return err
	}
	return &refusal{
		status: http.StatusServiceUnavailable, err: err,
		sentence: "The console's role may not act for the people who sign in. " +
			"The console's log names the GRANT; tell whoever runs walhook.",
	}
}

// errNoMember reports a person who is known but may not enter the console.
var errNoMember = errors.New("the role is a member of neither walhook_admin nor walhook_viewer")

// load reads whether the person is an administrator, and the site's zone. It returns errNoMember for a role that may not
// even read.
func (p *person) load(ctx context.Context) error {
	return p.tx(ctx, func(tx pgx.Tx) error {
		var viewer bool
		var version int32
		err := tx.QueryRow(ctx, `select `+sql.InstalledVersion+`,
			coalesce(has_table_privilege(to_regclass('walhook.webhook'), 'insert'), false),
			coalesce(has_table_privilege(to_regclass('walhook.webhook_overview'), 'select'), false)`).Scan(&version, &p.admin, &viewer)
		if err == nil {
			err = sql.CheckInstalled(version)
		}
		if err != nil {
			return err
		}
		if !p.admin && !viewer {
			return errNoMember
		}
		var name string
		if err := tx.QueryRow(ctx, "select time_zone from walhook.settings").Scan(&name); err != nil {
			return err
		}
		p.zone = loadZone(name)
		return nil
	})
}

// errSignedOut reports a request without a session, or with one that has ended.
var errSignedOut = errors.New("nobody is signed in")

// identify returns who makes the request, or errSignedOut.
func (s *Server) identify(r *http.Request) (*person, error) {
	var p *person
	var err error
	if s.cfg.Login == LoginProxy {
		p, err = s.proxyPerson(r)
	} else {
		p, err = s.sessionPerson(r)
	}
	if err != nil {
		return nil, err
	}
	if err := p.load(r.Context()); err != nil {
		return nil, err
	}
	return p, nil
}
