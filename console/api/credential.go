package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"
)

// credential is an API key as a client sent it, which may be none that is known.
type credential struct {
	prefix string
	hash   [sha256.Size]byte
}

// key is an API key in force.
type key struct {
	Name           string  `json:"name"`
	OrganizationID *string `json:"organization_id"`
	Scope          string  `json:"scope"`
}

var wellFormed = regexp.MustCompile(`^whk_[0-9a-f]{64}$`)

const sendKey = "Send an API key as Authorization: Bearer whk_..., or as X-API-Key. An administrator creates one with walhook.create_api_key."

func credentialOf(r *http.Request) (credential, error) {
	sent := r.Header.Get("X-API-Key")
	if authorization := r.Header.Get("Authorization"); authorization != "" {
		scheme, token, _ := strings.Cut(authorization, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return credential{}, unauthorized("The Authorization header must use the scheme Bearer. " + sendKey)
		}
		sent = strings.TrimSpace(token)
	}
	if sent == "" {
		return credential{}, unauthorized("The request has no API key. " + sendKey)
	}
	if !wellFormed.MatchString(sent) {
		return credential{}, unauthorized("This is not an API key of walhook. " + sendKey)
	}
	return credential{prefix: sent[:12], hash: sha256.Sum256([]byte(sent))}, nil
}

// use puts the key in force until the transaction ends. The server compares the hashes in constant time.
func (c credential) use(ctx context.Context, tx pgx.Tx) (key, error) {
	var k key
	err := tx.QueryRow(ctx, "select k.name, k.organization_id, k.scope from walhook.use_api_key($1, $2) k", c.prefix, c.hash[:]).
		Scan(&k.Name, &k.OrganizationID, &k.Scope)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return key{}, unauthorized("The API key is unknown, revoked or expired. " + sendKey)
	case err != nil:
		return key{}, fmt.Errorf("use API key: %w", err)
	}
	return k, nil
}

// A key may make 30 requests a second in the long run, which is less than 10,000 in five minutes.
const perSecond = 30

// limits limits the requests of each key in this process. Only keys that were in force once have an entry, so that
// guesses cost no memory, and a key that asks too much costs the store nothing.
type limits struct {
	mu    sync.Mutex
	known map[[sha256.Size]byte]*rate.Limiter
}

func (l *limits) take(hash [sha256.Size]byte) error {
	l.mu.Lock()
	limiter := l.known[hash]
	l.mu.Unlock()
	if limiter == nil {
		return nil
	}
	reservation := limiter.Reserve()
	if wait := reservation.Delay(); wait > 0 {
		reservation.Cancel()
		return retryAfter(http.StatusTooManyRequests, wait,
			fmt.Sprintf("The key has made more than %d requests a second. Wait as long as Retry-After says.", perSecond))
	}
	return nil
}

// know starts to limit a key. Its first request is the first of its second.
func (l *limits) know(hash [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[hash] != nil {
		return
	}
	if l.known == nil {
		l.known = map[[sha256.Size]byte]*rate.Limiter{}
	}
	limiter := rate.NewLimiter(perSecond, perSecond)
	limiter.AllowN(time.Now(), 1)
	l.known[hash] = limiter
}
