package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/console/api"
)

// How long a session lives, and how long without a request of the person.
const (
	sessionIdle = 30 * time.Minute
	sessionLife = 12 * time.Hour
)

// Server is the console.
type Server struct {
	cfg       Config
	log       *slog.Logger
	listener  net.Listener
	handler   http.Handler
	pages     *pages
	logins    *logins
	stored    storedSessions
	readiness readiness
	throttle  *throttle
	// These two bound what all sessions use together.
	connections *connections
	liveParts   chan struct{}            // one for each live part that is open
	pool        *pgxpool.Pool            // of the console's own role
	oidc        *oidcLogin               // nil without LoginOIDC
	keyUsed     atomic.Bool              // of Config.OneTimeKey
	zones       atomic.Pointer[[]string] // that the store's server knows: it reads a file for each
	stopping    chan struct{}            // closed when the server begins to stop, so that live pages end
}

// New listens immediately, so that an address that is in use is reported before anything else begins.
func New(ctx context.Context, cfg Config) (*Server, error) {
	pages, err := readPages()
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("serve the console at WALHOOK_CONSOLE_LISTEN=%s: %w; choose a free address", cfg.Listen, err)
	}
	if cfg.URL == nil {
		cfg.URL = localURL(listener.Addr())
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, listener: listener, pages: pages, logins: newLogins(),
		throttle: newThrottle(), liveParts: make(chan struct{}, mostLive), stopping: make(chan struct{}),
	}
	s.connections = newConnections(mostConnections, s.logins.shed)
	if cfg.Login == LoginOIDC {
		if s.oidc, err = newOIDCLogin(cfg.OIDC, cfg.URL.JoinPath("/login/callback").String()); err != nil {
			_ = listener.Close()
			return nil, err
		}
	}
	if err := s.connect(ctx); err != nil {
		_ = listener.Close()
		s.close()
		return nil, err
	}
	return s, nil
}

// connect creates the pool of the console's own role, and everything that works with it.
func (s *Server) connect(ctx context.Context) (err error) {
	trace := func(pool *pgxpool.Config) { pool.ConnConfig.Tracer = s.cfg.tracer }
	if s.pool, err = newPool(ctx, s.cfg.StoreURL, poolConns, trace); err != nil {
		return err
	}
	s.stored = storedSessions{s.pool}
	apiHandler, err := api.New(api.Config{
		Pool: s.pool, URL: s.cfg.URL.String(), Log: s.log, Client: s.clientNetwork, Unavailable: s.unavailable,
	})
	if err != nil {
		return err
	}
	s.handler = s.routesHandler(apiHandler)
	return s.checkStore(ctx)
}

// localURL is the address of a server on this machine.
func localURL(listening net.Addr) *url.URL {
	host, port, _ := net.SplitHostPort(listening.String())
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)}
}

// URL returns the public address.
func (s *Server) URL() string { return s.cfg.URL.String() }

func (s *Server) https() bool { return s.cfg.URL.Scheme == "https" }

func (s *Server) close() {
	s.logins.close()
	if s.pool != nil {
		s.pool.Close()
	}
}

// stopPatience bounds how long requests may take to end once the server stops.
const stopPatience = 10 * time.Second

// Run serves until the context ends, and then until the requests in flight have ended.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	server := &http.Server{
		Handler: s.handler, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10,
	}
	server.RegisterOnShutdown(func() { close(s.stopping) })
	reaping, stopReaping := context.WithCancel(ctx)
	defer stopReaping()
	go s.reapSessions(reaping)
	go s.watchStore(reaping)
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.listener) }()
	s.log.Info("serving the console",
		"address", s.listener.Addr().String(), "url", s.cfg.URL.String(), "login", s.cfg.Login)
	select {
	case err := <-served:
		return fmt.Errorf("serve the console: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		_ = server.Close()
	}
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the console: %w", err)
	}
	return nil
}
