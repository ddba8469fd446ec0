package console

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
)

// personConns bounds the connections of one session.
const personConns = 3

// longestRole is that of PostgreSQL, in bytes.
const longestRole = 63

const wrongPassword = "Role or password is wrong."

// login signs in a PostgreSQL role with its password.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Login != LoginDatabase {
		s.fail(w, r, nil, notFound("There is no such page."))
		return
	}
	if err := parseForm(w, r); err != nil {
		s.fail(w, r, nil, err)
		return
	}
	role, password := strings.TrimSpace(r.PostFormValue("role")), r.PostFormValue("password")
	next := localPath(r.PostFormValue("next"))
	refuse := func(status int, sentence string) {
		err := s.render(w, r, nil, status, "login.html", "Sign in", loginData{Role: role, Next: next, Error: sentence})
		if err != nil {
			s.fail(w, r, nil, err)
		}
	}
	if role == "" || password == "" || strings.ContainsRune(role+password, 0) {
		refuse(http.StatusUnprocessableEntity, "Enter the role and its password.")
		return
	}
	if len(role) > longestRole { // the server would truncate it, while the throttle counts each as another role
		refuse(http.StatusUnauthorized, wrongPassword)
		return
	}
	attempt := s.throttle.begin(role, s.clientNetwork(r).String())
	if attempt.wait > 0 {
		w.Header().Set("Retry-After", seconds(attempt.wait))
		refuse(http.StatusTooManyRequests, "Too many failed attempts. Try again in "+age(attempt.wait)+".")
		return
	}
	entry, err := s.databaseLogin(r, role, password)
	switch {
	case err == nil:
		attempt.succeeded()
	case isLoginRefused(err):
		s.log.Warn("sign-in refused", "role", role, "address", s.clientAddress(r))
		refuse(http.StatusUnauthorized, wrongPassword)
		return
	case errors.Is(err, errNoMember):
		attempt.succeeded()
		refuse(http.StatusForbidden, "This role is a member of neither walhook_admin nor walhook_viewer. "+
			"Ask a database administrator to grant one of them.")
		return
	case errors.Is(err, errNoPasswordAsked):
		refuse(http.StatusForbidden, "The database asks this role for no password (pg_hba.conf), "+
			"so anybody could sign in with it. Require one, for example by scram-sha-256.")
		return
	default:
		attempt.undo() // no password was compared
		s.log.Error("sign-in failed", "role", role, "error", err)
		var refused *refusal
		if !errors.As(asRefusal(err), &refused) || refused.status != http.StatusServiceUnavailable {
			_ = errors.As(noAnswer("store", err), &refused)
		}
		refuse(http.StatusServiceUnavailable, refused.sentence)
		return
	}
	s.enter(w, r, entry)
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// databaseLogin connects as the role, and checks that it may enter.
func (s *Server) databaseLogin(r *http.Request, role, password string) (*login, error) {
	var asked atomic.Bool
	vouched := false
	// The pool outlives the request.
	pool, err := newPool(context.WithoutCancel(r.Context()), s.cfg.StoreURL, personConns, func(pool *pgxpool.Config) {
		pool.BeforeConnect = s.connections.bound
		config := pool.ConnConfig
		config.User, config.Password, config.Tracer = role, password, s.cfg.tracer
		vouched = knowsConsole(&config.Config)
		config.BuildFrontend = func(from io.Reader, to io.Writer) *pgproto3.Frontend {
			return pgproto3.NewFrontend(&passwordWatch{from: from, asked: &asked}, to)
		}
	})
	if err != nil {
		return nil, err
	}
	p := &person{name: role, pool: pool}
	if err = p.load(r.Context()); err == nil && !asked.Load() && (vouched || !s.onThisMachine(r)) {
		err = errNoPasswordAsked
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &login{name: role, pool: pool, own: true}, nil
}

// enterByKey signs in whoever has the one-time key, as the role of the store's URL.
func (s *Server) enterByKey(w http.ResponseWriter, r *http.Request, key string) {
	if subtle.ConstantTimeCompare([]byte(key), []byte(s.cfg.OneTimeKey)) == 0 || !s.keyUsed.CompareAndSwap(false, true) {
		s.say(w, "This link has already been used, or is not valid.")
		http.Redirect(w, r, "/login", http.StatusSeeOther)
		return
	}
	s.enter(w, r, &login{name: s.pool.Config().ConnConfig.User, pool: s.pool})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// errNoPasswordAsked reports a server that let the role in without its password, as trust and peer in pg_hba.conf do.
var errNoPasswordAsked = errors.New("the server did not ask for a password")

// knowsConsole reports whether the server may accept the console itself, by its operating-system user (peer) or its
// certificate. That says nothing about the person who signs in, even on this machine.
func knowsConsole(config *pgconn.Config) bool {
	network, _ := pgconn.NetworkAddress(config.Host, config.Port)
	return network == "unix" || config.TLSConfig != nil && len(config.TLSConfig.Certificates) > 0 ||
		slices.ContainsFunc(config.Fallbacks, func(f *pgconn.FallbackConfig) bool {
			return knowsConsole(&pgconn.Config{Host: f.Host, Port: f.Port, TLSConfig: f.TLSConfig})
		})
}

// onThisMachine reports whether the browser runs on this machine, and no proxy is seen in between. Whoever works here may
// connect to a server that asks for no password, with or without the console.
func (s *Server) onThisMachine(r *http.Request) bool {
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via"} {
		if r.Header.Get(header) != "" {
			return false
		}
	}
	host := url.URL{Host: r.Host}
	return isLoopback(host.Hostname()) && isLoopback(s.cfg.URL.Hostname()) && peer(r).IsLoopback()
}

// isLoginRefused reports whether the server refused role or password.
func isLoginRefused(err error) bool {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Code {
	case pgerrcode.InvalidPassword, pgerrcode.InvalidAuthorizationSpecification, pgerrcode.UndefinedObject:
		var connect *pgconn.ConnectError
		return errors.As(err, &connect)
	}
	return false
}

// passwordWatch notices whether the server asks for a password. Its first message is an authentication request, with code
// 0 if it requires nothing.
type passwordWatch struct {
	from  io.Reader
	asked *atomic.Bool
	head  []byte
	over  bool
}

func (p *passwordWatch) Read(b []byte) (int, error) {
	n, err := p.from.Read(b)
	if !p.over {
		p.head = append(p.head, b[:n]...)
		if len(p.head) >= 9 {
			p.over = true
			if p.head[0] == 'R' && binary.BigEndian.Uint32(p.head[5:9]) != 0 {
				p.asked.Store(true)
			}
			p.head = nil
		}
	}
	return n, err
}
