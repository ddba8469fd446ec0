package console

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// login is what a session stands for. It stays in memory, because it may hold a password.
type login struct {
	name    string
	pool    *pgxpool.Pool
	own     bool // the pool is that of the login alone, and is closed with it
	group   string
	refresh func(context.Context) (group string, err error) // nil: nothing but PostgreSQL decides
	begun   time.Time
	used    time.Time // by the person: live parts of a page ask by themselves
}

func (l *login) expired() bool {
	return time.Since(l.used) > sessionIdle || time.Since(l.begun) > sessionLife
}

// logins are those of the sessions, by an id that the session holds.
type logins struct {
	mu   sync.Mutex
	byID map[string]*login
}

func newLogins() *logins { return &logins{byID: map[string]*login{}} }

func (l *logins) add(entry *login) (id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id = rand.Text()
	entry.begun = time.Now()
	entry.used = entry.begun
	l.byID[id] = entry
	return id
}

// get returns nil for a login that has ended.
func (l *logins) get(id string, live bool) *login {
	l.mu.Lock()
	defer l.mu.Unlock()
	entry := l.byID[id]
	if entry == nil || entry.expired() {
		return nil
	}
	if !live {
		entry.used = time.Now()
	}
	return entry
}

func (l *logins) end(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if entry := l.byID[id]; entry != nil && entry.own {
			go entry.pool.Close() // waits for the transactions that still run
		}
		delete(l.byID, id)
	}
}

// reap ends logins that have expired.
func (l *logins) reap(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var expired []string
		l.mu.Lock()
		for id, entry := range l.byID {
			if entry.expired() {
				expired = append(expired, id)
			}
		}
		l.mu.Unlock()
		l.end(expired...)
	}
}

func (l *logins) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, entry := range l.byID {
		if entry.own {
			entry.pool.Close()
		}
		delete(l.byID, id)
	}
}

// enter begins a session. The session of before, which somebody may have planted in the browser, ends.
func (s *Server) enter(r *http.Request, entry *login) error {
	s.endSession(r)
	if err := s.sessions.RenewToken(r.Context()); err != nil {
		return err
	}
	s.sessions.Put(r.Context(), "login", s.logins.add(entry))
	s.log.Info("signed in", "actor", entry.name, "address", s.clientAddress(r))
	return nil
}

// endSession ends what the session stands for, and the session.
func (s *Server) endSession(r *http.Request) {
	if id := s.sessions.GetString(r.Context(), "login"); id != "" {
		s.logins.end(id)
	}
	_ = s.sessions.Clear(r.Context())
}

// sessionPerson returns whom the session stands for, or errSignedOut.
func (s *Server) sessionPerson(r *http.Request) (*person, error) {
	entry := s.logins.get(s.sessions.GetString(r.Context(), "login"), isLive(r))
	if entry == nil {
		return nil, errSignedOut
	}
	group := entry.group
	if entry.refresh != nil {
		var err error
		if group, err = entry.refresh(r.Context()); err != nil {
			return nil, err
		}
	}
	return &person{name: entry.name, pool: entry.pool, group: group}, nil
}

// refuseEntry answers a request of nobody who may enter.
func (s *Server) refuseEntry(w http.ResponseWriter, r *http.Request, err error) {
	revoked := errors.Is(err, errNoMember) || isLoginRefused(err)
	switch {
	case s.cfg.Login == LoginProxy && revoked:
		s.fail(w, r, nil, &refusal{status: http.StatusForbidden, sentence: "You may not sign in: you are in no group that WALHOOK_ADMIN_GROUPS or WALHOOK_VIEWER_GROUPS lists.", err: err})
		return
	case s.cfg.Login == LoginProxy:
		s.fail(w, r, nil, err)
		return
	case revoked:
		s.endSession(r)
		s.sessions.Put(r.Context(), "said", "Your role may no longer enter. Ask a database administrator.")
	case !errors.Is(err, errSignedOut):
		s.fail(w, r, nil, err)
		return
	}
	if isLive(r) {
		w.WriteHeader(http.StatusNoContent) // tells an EventSource not to connect again
		return
	}
	to := "/login"
	if r.Method == http.MethodGet && r.URL.Path != "/" {
		to += "?" + url.Values{"next": {r.URL.RequestURI()}}.Encode()
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// loginData is what login.html shows.
type loginData struct{ Role, Next, Said, Error string }

// loginPage shows the form, or the button that leads to the provider.
func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Login == LoginProxy {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	if key := r.URL.Query().Get("key"); key != "" && s.cfg.OneTimeKey != "" {
		s.enterByKey(w, r, key)
		return
	}
	data := loginData{Next: localPath(r.URL.Query().Get("next")), Said: s.sessions.PopString(r.Context(), "said")}
	if err := s.render(w, r, nil, http.StatusOK, "login.html", "Sign in", data); err != nil {
		s.fail(w, r, nil, err)
	}
}

// logout ends the session.
func (s *Server) logout(w http.ResponseWriter, r *http.Request, p *person) error {
	s.endSession(r)
	if err := s.sessions.Destroy(r.Context()); err != nil {
		return err
	}
	s.log.Info("signed out", "actor", p.name)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}
