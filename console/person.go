package console

import (
	"context"
	"errors"
	"net/http"
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
	notices []string // what PostgreSQL had to say in the transactions of this request
}

const (
	poolConns        = 8
	statementTimeout = "8s" // a page that takes longer is refused
)

// newPool returns a pool of the console. Its connections last less than a minute, so that whoever may no longer log in is found out.
func newPool(ctx context.Context, url string, conns int32, customize func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	return session.NewPoolWith(ctx, url, func(config *pgxpool.Config) {
		config.MaxConns = conns
		config.MaxConnLifetime, config.MaxConnIdleTime, config.HealthCheckPeriod = 30*time.Second, 15*time.Second, 10*time.Second
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
			_, err := conn.Exec(ctx, // Compiling a statement of a large log takes longer than running it, and the server has more to do than pages.
				"set jit = off; set max_parallel_workers_per_gather = 0; set statement_timeout = '"+statementTimeout+"'; set lock_timeout = '4s'; set idle_in_transaction_session_timeout = '20s'")
			return err
		}
		customize(config)
	})
}

// tx runs a transaction under the person's role. Its errors are refusals, as far as asRefusal knows them.
func (p *person) tx(ctx context.Context, do func(pgx.Tx) error) error {
	acts := true
	err := withConnection(ctx, p.pool, func(conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			data := tx.Conn().PgConn().CustomData()
			data["notices"] = &p.notices
			defer delete(data, "notices")
			if p.group != "" {
				// As SET LOCAL would: until the transaction ends.
				if _, err := tx.Exec(ctx, "select set_config('role', $1, true), set_config('walhook.actor', $2, true)", p.group, p.name); err != nil {
					acts = false
					return err
				}
			}
			return do(tx)
		})
	})
	if !acts {
		err = p.notActing(ctx, err)
	}
	return asRefusal(err)
}

// notActing says why the console's role may not act as the group role, which does not even exist before walhook attach.
func (p *person) notActing(ctx context.Context, err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != pgerrcode.InsufficientPrivilege && refused.Code != pgerrcode.InvalidParameterValue {
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
		sentence: "The console's role may not act for the people who sign in. The console's log names the GRANT; tell whoever runs walhook.",
	}
}

// errNoMember reports a role that may sign in to the database, and not here.
var errNoMember = errors.New("the role is a member of neither walhook_admin nor walhook_viewer")

// load finds out what the person may see. It returns errNoMember if that is nothing.
func (p *person) load(ctx context.Context) error {
	return p.tx(ctx, func(tx pgx.Tx) error {
		var viewer bool
		var version int32
		err := tx.QueryRow(ctx, `select `+sql.InstalledVersion+`, coalesce(has_table_privilege(to_regclass('walhook.webhook'), 'insert'), false),
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

// errSignedOut reports a request of nobody who is signed in.
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
