package console

import (
	"log/slog"
	"net/netip"
	"net/url"

	"github.com/jackc/pgx/v5"
)

// The ways to sign in.
const (
	LoginDatabase = "database" // a PostgreSQL role of the store and its password
	LoginOIDC     = "oidc"     // OpenID Connect
	LoginProxy    = "proxy"    // headers of a reverse proxy
)

// Config configures a Server.
type Config struct {
	Listen   string   // host:port
	URL      *url.URL // how browsers reach it: scheme, host and no path; nil: at the address of Listen
	StoreURL string   // connection string of the store
	Login    string   // LoginDatabase, LoginOIDC or LoginProxy
	OIDC     OIDC
	Proxy    Proxy

	// For LoginOIDC and LoginProxy: members of one of these groups are administrators, or viewers.
	AdminGroups, ViewerGroups []string

	// OneTimeKey, if not empty, signs somebody in once, as the role of StoreURL: /login?key=KEY.
	OneTimeKey string

	Version string
	Log     *slog.Logger

	tracer pgx.QueryTracer // of all statements; for tests
}

// OIDC configures LoginOIDC.
type OIDC struct{ Issuer, ClientID, ClientSecret, GroupsClaim string }

// Proxy configures LoginProxy. The headers are believed only if they come from one of the networks.
type Proxy struct {
	Networks                 []netip.Prefix
	UserHeader, GroupsHeader string
}
