package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"
)

// credential is an API key as a client sent it, known or not.
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
	switch scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " "); {
	case strings.EqualFold(scheme, "Bearer"):
		sent = strings.TrimSpace(token)
	case scheme != "" && sent == "": // beside an X-API-Key it belongs to a proxy in between
		return credential{}, unauthorized("The Authorization header must use the scheme Bearer. " + sendKey)
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

// perSecond is how many requests a key may make in any second, which is less than 10,000 in five minutes.
const perSecond = 30

// window holds the times of a key's last requests.
type window struct {
	times [perSecond]time.Time
	next  int // the oldest
}

// take returns how long the request has to wait.
func (w *window) take(now time.Time) time.Duration {
	if wait := w.times[w.next].Add(time.Second).Sub(now); wait > 0 {
		return wait
	}
	w.times[w.next] = now
	w.next = (w.next + 1) % perSecond
	return 0
}

// What a client's address may send of keys that this process does not know, each of which costs the store a lookup.
const (
	unknownAtOnce    = 50
	unknownPerSecond = 10
	mostAddresses    = 10_000
)

// limits limits the requests of each key in this process, and those with unknown keys of each address. Only keys that were in force once have
// an entry, so that guesses cost no memory, and a key that asks too much costs the store nothing.
type limits struct {
	mu      sync.Mutex
	known   map[[sha256.Size]byte]*window
	unknown map[netip.Prefix]*rate.Limiter
	now     func() time.Time
}

func newLimits() *limits {
	return &limits{known: map[[sha256.Size]byte]*window{}, unknown: map[netip.Prefix]*rate.Limiter{}, now: time.Now}
}

func (l *limits) take(hash [sha256.Size]byte, client netip.Prefix) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if known := l.known[hash]; known != nil {
		if wait := known.take(now); wait > 0 {
			return retryAfter(http.StatusTooManyRequests, wait,
				fmt.Sprintf("The key has made more than %d requests a second. Wait as long as Retry-After says.", perSecond))
		}
		return nil
	}
	limiter := l.unknown[client]
	if limiter == nil {
		if len(l.unknown) >= mostAddresses {
			l.forget(now)
		}
		limiter = rate.NewLimiter(unknownPerSecond, unknownAtOnce)
		l.unknown[client] = limiter
	}
	if !limiter.AllowN(now, 1) {
		return retryAfter(http.StatusTooManyRequests, time.Second,
			"This address has sent many keys that are not known here. Wait as long as Retry-After says, and check the key.")
	}
	return nil
}

// forget makes room: addresses that have waited long enough go, and all of them if there is none.
func (l *limits) forget(now time.Time) {
	for client, limiter := range l.unknown {
		if limiter.TokensAt(now) >= unknownAtOnce {
			delete(l.unknown, client)
		}
	}
	if len(l.unknown) >= mostAddresses {
		clear(l.unknown)
	}
}

// know starts to limit a key that was in force. The request is its first.
func (l *limits) know(hash [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[hash] == nil {
		l.known[hash] = &window{}
		l.known[hash].take(l.now())
	}
}

// revoked forgets a key that is not in force any more: it counts as unknown.
func (l *limits) revoked(hash [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, hash)
}
