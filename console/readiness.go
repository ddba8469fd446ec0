package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/session"
	"walhook/sql"
)

const (
	readinessHolds = time.Second     // how long an answer is reused
	readinessEvery = 5 * time.Second // how often it is checked for the log
)

// readiness is whether the console's own role can work on the store.
type readiness struct {
	mu  sync.Mutex
	at  time.Time
	err error
}

// roleError reports that the console's own role may not act for the people who sign in, or for API keys.
type roleError struct {
	role    string
	missing []string
}

func (e *roleError) Error() string {
	return fmt.Sprintf("role %s may not act for the people who sign in, or for API keys: "+
		"it is not a member of %s; GRANT %s TO %s", e.role, strings.Join(e.missing, " and "), strings.Join(e.missing, ", "), pgx.Identifier{e.role}.Sanitize())
}

// ready returns a *sql.VersionError, a *roleError, or why the store does not answer.
func (s *Server) ready(ctx context.Context) error {
	s.readiness.mu.Lock()
	defer s.readiness.mu.Unlock()
	if time.Since(s.readiness.at) < readinessHolds {
		return s.readiness.err
	}
	// Other requests wait for the answer, so it must not end with the request that asked.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), session.DialTimeout)
	defer cancel()
	var version int32
	found := &roleError{}
	err := s.pool.QueryRow(ctx, `select current_user::text, `+sql.InstalledVersion+`,
			array(select g.name from unnest($1::text[]) as g (name)
			      where not coalesce(pg_has_role(to_regrole(g.name), 'member'), false))`, s.neededRoles()).
		Scan(&found.role, &version, &found.missing)
	if err == nil {
		err = sql.CheckInstalled(version)
	}
	if err == nil && len(found.missing) > 0 {
		err = found
	}
	s.readiness.err, s.readiness.at = err, time.Now()
	return err
}

// neededRoles returns the group roles that the console acts as. The API needs one, even if people sign in with their own roles.
func (s *Server) neededRoles() []string {
	if s.cfg.Login == LoginDatabase {
		return []string{roleAdmin}
	}
	return []string{roleAdmin, roleViewer}
}

// checkStore returns an error if people do not sign in with their own roles and the console's role may not act for them.
// Other problems may end without a restart, so they are only logged, and pages report them.
func (s *Server) checkStore(ctx context.Context) error {
	err := s.ready(ctx)
	var role *roleError
	if errors.As(err, &role) && s.cfg.Login != LoginDatabase {
		return err
	}
	s.report(err)
	return nil
}

// report logs whether the console can work.
func (s *Server) report(err error) {
	var version *sql.VersionError
	var role *roleError
	switch {
	case err == nil:
		s.log.Info("store is ready")
	case errors.As(err, &version):
		s.log.Warn("store has another schema; pages report it until it is upgraded", "error", err)
	case errors.As(err, &role) && s.cfg.Login == LoginDatabase:
		s.log.Warn("HTTP API is not available", "error", err)
	case errors.As(err, &role):
		s.log.Error("nobody can sign in", "error", err)
	case s.cfg.Login == LoginDatabase && isLoginRefused(err):
		s.log.Warn("HTTP API is not available: the console's own role cannot connect", "error", err)
	default:
		s.log.Warn("store does not answer; pages report it until it does", "error", err)
	}
}

// watchStore logs when the store becomes ready, or the reason why it is not ready changes.
func (s *Server) watchStore(ctx context.Context) {
	tick := time.NewTicker(readinessEvery)
	defer tick.Stop()
	last := s.ready(ctx)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := s.ready(ctx)
		if fmt.Sprint(err) != fmt.Sprint(last) && ctx.Err() == nil {
			s.report(err)
		}
		last = err
	}
}

// unavailable returns why the API cannot work, for its clients; "" if it can.
func (s *Server) unavailable(ctx context.Context) string {
	err := s.ready(ctx)
	var version *sql.VersionError
	var role *roleError
	switch {
	case errors.As(err, &version):
		return asMessage(version.Error())
	case errors.As(err, &role):
		return "The console's role is not a member of walhook_admin, so the API cannot be used. " +
			"The console's log names the GRANT; tell whoever runs walhook."
	}
	return ""
}

// readyz answers 200 if pages can be served, otherwise 503 and the reason. It names no role and no host.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	err := s.ready(r.Context())
	reason := s.unavailable(r.Context())
	var role *roleError
	ownRolesWork := s.cfg.Login == LoginDatabase && (errors.As(err, &role) || isLoginRefused(err))
	switch {
	case err == nil:
		reason = "ready"
	case ownRolesWork && reason == "":
		reason = "The console's own role cannot connect, so the API cannot be used."
	case reason == "":
		reason = "The store does not answer."
	}
	if err != nil && !ownRolesWork {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, reason)
}
