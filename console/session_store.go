package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// storedSessions are the sessions in the store. They outlive a console, and all consoles share them. The provider's tokens
// are encrypted with a key derived from the token in the browser's cookie.
type storedSessions struct{ pool *pgxpool.Pool }

type storedSession struct {
	name    string
	session *oidcSession
	namedAt time.Time // when the provider last named the groups
	ask     bool      // this request, and no other, must ask the provider for the groups
}

func sealerOf(token string) (sealer, error) { return newSealer(token, "session") }

func sealSession(token string, session *oidcSession) ([]byte, error) {
	sealer, err := sealerOf(token)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(session)
	if err != nil {
		return nil, err
	}
	return sealer.seal(text), nil
}

func openSession(token string, sealed []byte) (*oidcSession, error) {
	sealer, err := sealerOf(token)
	if err != nil {
		return nil, err
	}
	text, err := sealer.open(sealed)
	if err != nil {
		return nil, err
	}
	session := &oidcSession{}
	return session, json.Unmarshal(text, session)
}

func (s storedSessions) begin(ctx context.Context, token, name string, session *oidcSession) error {
	sealed, err := sealSession(token, session)
	if err != nil {
		return fmt.Errorf("seal the session: %w", err)
	}
	id := idOf(token)
	return s.exec(ctx, "begin the session", "select walhook.begin_session($1, $2, $3, $4, $5)",
		id[:], name, notNil(session.groups), sealed, sessionLife)
}

// use returns errSignedOut for a session that has ended.
func (s storedSessions) use(ctx context.Context, token string, live bool, recheck time.Duration) (*storedSession, error) {
	id := idOf(token)
	found := &storedSession{}
	var groups []string
	var sealed []byte
	err := withConnection(ctx, s.pool, func(conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, `select person, groups, sealed, named_at, ask
				from walhook.use_session($1, $2, $3, $4)`, id[:], live, sessionIdle, recheck).
			Scan(&found.name, &groups, &sealed, &found.namedAt, &found.ask)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errSignedOut
	}
	if err != nil {
		return nil, fmt.Errorf("read the session: %w", err)
	}
	if found.session, err = openSession(token, sealed); err != nil {
		return nil, fmt.Errorf("open the session: %w", err)
	}
	found.session.groups = groups
	return found, nil
}

// renew stores the provider's answer. named reports whether it named the groups.
func (s storedSessions) renew(ctx context.Context, token string, session *oidcSession, named bool) error {
	sealed, err := sealSession(token, session)
	if err != nil {
		return fmt.Errorf("seal the session: %w", err)
	}
	id := idOf(token)
	return s.exec(ctx, "renew the session", "select walhook.renew_session($1, $2, $3, $4)",
		id[:], notNil(session.groups), sealed, named)
}

func (s storedSessions) end(ctx context.Context, id sessionID) error {
	return s.exec(ctx, "end the session", "select walhook.end_session($1)", id[:])
}

func (s storedSessions) reap(ctx context.Context) error {
	return s.exec(ctx, "delete ended sessions", "select walhook.reap_sessions($1)", sessionIdle)
}

func (s storedSessions) exec(ctx context.Context, doing, statement string, args ...any) error {
	err := withConnection(ctx, s.pool, func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, statement, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

func notNil(groups []string) []string {
	if groups == nil {
		return []string{}
	}
	return groups
}
