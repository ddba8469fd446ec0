// Package api is the HTTP API under /api/v1.
package api

import (
	"log/slog"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Config configures the API.
type Config struct {
	Pool *pgxpool.Pool // of a role that is a member of walhook_admin
	URL  string        // the console's public address, without a slash at its end
	Log  *slog.Logger
}

// New returns the handler of everything under /api/.
func New(Config) (http.Handler, error) {
	return http.NotFoundHandler(), nil
}
