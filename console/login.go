package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// login is a signed-in person whose session only this console knows, because its pool may hold a password.
type login struct {
	name  string
	pool  *pgxpool.Pool
	own   bool // only this login uses the pool, which is closed with it
	begun time.Time
	used  time.Time // by the person; requests of live parts of a page do not count
}

func (l *login) expired() bool {
	return time.Since(l.used) > sessionIdle || time.Since(l.begun) > sessionLife
}

// loginsPerName bounds the sessions of one person, so that nobody can take all connections. Beyond it the oldest ends.
const loginsPerName = 12

// logins are the sessions that are kept in memory.
type logins struct {
	mu   sync.Mutex
	byID map[sessionID]*login
}

func newLogins() *logins { return &logins{byID: map[sessionID]*login{}} }

func (l *logins) add(id sessionID, entry *login) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entry.begun = time.Now()
	entry.used = entry.begun
	l.byID[id] = entry
	var same []sessionID
	for id, other := range l.byID {
		if other.name == entry.name {
			same = append(same, id)
		}
	}
	if len(same) > loginsPerName {
		l.end(slices.MinFunc(same, func(a, b sessionID) int { return l.byID[a].begun.Compare(l.byID[b].begun) }))
	}
}

// get returns nil for a login that has ended.
func (l *logins) get(id sessionID, live bool) *login {
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

// end ends a login. The mutex must be held.
func (l *logins) end(id sessionID) {
	if entry := l.byID[id]; entry != nil && entry.own {
		go entry.pool.Close() // waits for the transactions that still run
	}
	delete(l.byID, id)
}

func (l *logins) remove(id sessionID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(id)
}

// reap ends logins that have expired.
func (l *logins) reap() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, entry := range l.byID {
		if entry.expired() {
			l.end(id)
		}
	}
}

// shed closes idle connections.
func (l *logins) shed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, entry := range l.byID {
		if entry.own {
			entry.pool.Reset()
		}
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

// enter begins a session that this console keeps.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, entry *login) {
	token := s.newSession(w, r)
	s.logins.add(idOf(token), entry)
	s.log.Info("signed in", "actor", entry.name, "address", s.clientAddress(r))
}

// newSession gives the browser a new token, and ends the former session, whose cookie somebody else may have set.
func (s *Server) newSession(w http.ResponseWriter, r *http.Request) (token string) {
	s.endSession(r)
	token = newToken()
	s.setCookie(w, sessionCookie, token, 0)
	return token
}

// endSession ends the session, on every console.
func (s *Server) endSession(r *http.Request) {
	token := s.readCookie(r, sessionCookie)
	if token == "" {
		return
	}
	s.logins.remove(idOf(token))
	if s.oidc != nil {
		if err := s.stored.end(r.Context(), idOf(token)); err != nil {
			s.log.Error("session not ended", "error", err)
		}
	}
}

// sessionPerson returns the person of the session, or errSignedOut.
func (s *Server) sessionPerson(r *http.Request) (*person, error) {
	token := s.readCookie(r, sessionCookie)
	if token == "" {
		return nil, errSignedOut
	}
	if entry := s.logins.get(idOf(token), isLive(r)); entry != nil {
		return &person{name: entry.name, pool: entry.pool}, nil
	}
	if s.oidc == nil {
		return nil, errSignedOut
	}
	return s.oidcPerson(r.Context(), token, isLive(r))
}

// reapSessions deletes sessions that have ended.
func (s *Server) reapSessions(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.logins.reap()
		if s.oidc != nil {
			if err := s.stored.reap(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("ended sessions not deleted", "error", err)
			}
		}
	}
}

// refuseEntry answers a request whose person may not enter, or is not signed in.
func (s *Server) refuseEntry(w http.ResponseWriter, r *http.Request, err error) {
	revoked := errors.Is(err, errNoMember) || isLoginRefused(err)
	switch {
	case s.cfg.Login == LoginProxy && revoked:
		s.fail(w, r, nil, &refusal{status: http.StatusForbidden, sentence: inNoGroup, err: err})
		return
	case s.cfg.Login == LoginProxy:
		s.fail(w, r, nil, err)
		return
	case !revoked && !errors.Is(err, errSignedOut):
		s.fail(w, r, nil, err)
		return
	case isLive(r):
		w.WriteHeader(http.StatusNoContent) // tells an EventSource not to connect again; the next page says why
		return
	case revoked:
		s.endSession(r)
		s.setCookie(w, sessionCookie, "", -1)
		s.say(w, "Your role may no longer enter. Ask a database administrator.")
	case s.readCookie(r, sessionCookie) != "":
		s.say(w, s.endedSentence())
	}
	to := "/login"
	if next := s.pageOf(r); next != "/" {
		to += "?" + url.Values{"next": {next}}.Encode()
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// endedSentence explains why the person has to sign in again.
func (s *Server) endedSentence() string {
	reason := "the provider ended it"
	if s.cfg.Login == LoginDatabase {
		reason = "the console was restarted, which forgets passwords"
	}
	return "Your session has ended: nothing was requested for 30 minutes, it was 12 hours old, or " + reason +
		". Sign in again."
}

// pageOf returns the page that the person wants: that of the request, or the one whose form sent it.
func (s *Server) pageOf(r *http.Request) string {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return localPath(r.URL.RequestURI())
	}
	from, err := url.Parse(r.Referer())
	if err != nil || from.Host != r.Host && from.Host != s.cfg.URL.Host {
		return "/"
	}
	return localPath(from.RequestURI())
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
	data := loginData{Next: localPath(r.URL.Query().Get("next")), Said: s.said(w, r)}
	if err := s.render(w, r, nil, http.StatusOK, "login.html", "Sign in", data); err != nil {
		s.fail(w, r, nil, err)
	}
}

// logout ends the session.
func (s *Server) logout(w http.ResponseWriter, r *http.Request, p *person) error {
	s.endSession(r)
	s.setCookie(w, sessionCookie, "", -1)
	s.log.Info("signed out", "actor", p.name)
	http.Redirect(w, r, "/login", http.StatusSeeOther)
	return nil
}
