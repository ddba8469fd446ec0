package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/testenv/pgserver"
)

// bench holds what the measurements share.
type bench struct {
	scale   float64
	curves  string // selects the curves with this text in their name
	walhook string // path of the binary
	log     func(format string, args ...any)
	version string // of the server
	cpu     string // file for the daemons' CPU profiles; empty for none
	allocs  string // file for profiles of their allocations; empty for none

	dir         string
	profiles    []string // of the daemons started so far
	recvlogical string
	pgbench     string
	receiver    *receiver
}

// prepare builds walhook and finds the client programs before anything is measured.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "walhook-bench-"); err != nil {
		return fmt.Errorf("create folder: %w", err)
	}
	if b.walhook == "" {
		b.walhook = filepath.Join(b.dir, "walhook")
		args := []string{"build", "-o", b.walhook}
		if b.profiling() {
			args = append(args, "-tags", "profile")
		}
		cmd := exec.CommandContext(ctx, "go", append(args, "walhook/cmd/walhook")...)
		cmd.Stderr = os.Stderr
		b.log("building walhook ...")
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build walhook: %w; run the benchmark in the source tree", err)
		}
	}
	if b.receiver, err = startReceiver(ctx); err != nil {
		return err
	}
	if b.recvlogical, err = client("pg_recvlogical"); err != nil {
		return err
	}
	b.pgbench, err = client("pgbench")
	return err
}

// profiling reports whether profiles are requested.
func (b *bench) profiling() bool { return b.cpu != "" || b.allocs != "" }

// profileOf returns the environment variable that names the profiles of the next daemon, or nothing without profiling.
func (b *bench) profileOf() []string {
	if !b.profiling() {
		return nil
	}
	b.profiles = append(b.profiles, filepath.Join(b.dir, fmt.Sprintf("profile%d", len(b.profiles))))
	return []string{"BENCH_PROFILE=" + b.profiles[len(b.profiles)-1]}
}

// mergeProfiles merges the profiles of all daemons.
func (b *bench) mergeProfiles(ctx context.Context) error {
	for kind, to := range map[string]string{".cpu": b.cpu, ".allocs": b.allocs} {
		if to == "" {
			continue
		}
		args := []string{"tool", "pprof", "-proto"}
		for _, name := range b.profiles {
			args = append(args, name+kind)
		}
		merged, err := exec.CommandContext(ctx, "go", args...).Output()
		if err == nil {
			err = os.WriteFile(to, merged, 0o644)
		}
		if err != nil {
			return fmt.Errorf("write profile %s: %w", to, err)
		}
	}
	return nil
}

func (b *bench) close() {
	if b.receiver != nil {
		b.receiver.close()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

// client finds one of PostgreSQL's client programs, on PATH or where packages install them.
func client(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("%s is not on PATH; install PostgreSQL's client programs", name)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// n scales a size.
func (b *bench) n(size int) int { return max(int(float64(size)*b.scale), 1) }

// seconds scales a duration; the result is at least a second.
func (b *bench) seconds(size int) time.Duration {
	return max(time.Duration(float64(size)*b.scale*float64(time.Second)), time.Second)
}

// schema is the application's. A row has about 250 bytes, like a respondent with a name, notes and a page.
const schema = `
create table respondent (
  id bigint primary key, assessment_id bigint not null, name text not null default 'Ada Lovelace',
  essay text not null default repeat('all work and no play ', 8),
  page int not null default 0, started_at timestamptz, finished_at timestamptz);`

// site is a server with the application's table.
type site struct {
	b      *bench
	server *pgserver.Server
	conn   *pgx.Conn // the application's
	store  *pgx.Conn
	env    []string
	closes []func()
}

// durable has the settings of a production server: every commit is on disk before it returns.
var durable = map[string]string{
	"fsync": "on", "synchronous_commit": "on", "shared_buffers": "256MB", "max_wal_size": "4GB", "checkpoint_timeout": "30min",
}

// newSite starts a server for one measurement. It holds the store as well.
func (b *bench) newSite(ctx context.Context) (*site, error) {
	s := &site{b: b}
	return s, s.open(ctx, func() (err error) {
		s.server, err = pgserver.Start(ctx, pgserver.Options{Settings: durable})
		return err
	})
}

// newSiteApart starts two servers, the application's and the store's, each on half of the cores.
func (b *bench) newSiteApart(ctx context.Context) (*site, error) {
	s := &site{b: b}
	var store *pgserver.Server
	err := elsewhere(func() (err error) {
		store, err = pgserver.Start(ctx, pgserver.Options{Settings: durable})
		return err
	})
	if err != nil {
		return nil, err
	}
	s.closes = append(s.closes, store.Stop)
	s.env = []string{"WALHOOK_STORE_URL=" + store.URL("postgres")}
	err = s.open(ctx, func() error {
		return here(func() (err error) {
			s.server, err = pgserver.Start(ctx, pgserver.Options{Settings: durable})
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if s.store, err = s.connect(ctx, store); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// open starts the application's server and creates its table.
func (s *site) open(ctx context.Context, start func() error) error {
	if err := start(); err != nil {
		s.close()
		return err
	}
	server := s.server
	s.closes = append(s.closes, server.Stop)
	s.b.version = fmt.Sprintf("PostgreSQL %d.%d", server.Version()/10000, server.Version()%10000)
	s.env = append(s.env, os.Environ()...)
	s.env = append(s.env, "WALHOOK_DATABASE_URL="+server.URL("postgres"), "WALHOOK_LISTEN=127.0.0.1:0", "WALHOOK_ALLOW_NETWORKS=127.0.0.0/8",
		"WALHOOK_ENDPOINT_CONCURRENCY=64", "WALHOOK_CONCURRENCY=64", "WALHOOK_MAX_ATTEMPTS=1000")
	var err error
	if s.conn, err = s.connect(ctx, server); err == nil {
		s.store = s.conn
		err = s.exec(ctx, schema)
	}
	if err != nil {
		s.close()
	}
	return err
}

func (s *site) connect(ctx context.Context, server *pgserver.Server) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	s.closes = append(s.closes, func() { _ = conn.Close(context.WithoutCancel(ctx)) })
	// A plan made while a table is empty would keep reading all of it, at the expense of the measurement.
	return conn, exec1(ctx, conn, "set enable_seqscan = off; set jit = off")
}

func (s *site) close() {
	for _, end := range slices.Backward(s.closes) {
		end()
	}
}

// exec runs statements as the application.
func (s *site) exec(ctx context.Context, statements string, args ...any) error {
	return exec1(ctx, s.conn, statements, args...)
}

func exec1(ctx context.Context, conn *pgx.Conn, statements string, args ...any) error {
	var err error
	if len(args) == 0 {
		_, err = conn.PgConn().Exec(ctx, statements).ReadAll()
	} else {
		_, err = conn.Exec(ctx, statements, args...)
	}
	if err != nil {
		return fmt.Errorf("%.80s: %w", statements, err)
	}
	return nil
}

// attach runs walhook attach.
func (s *site) attach(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, s.b.walhook, "attach")
	cmd.Env = slices.Concat(s.env, s.b.profileOf())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("walhook attach: %w\n%s", err, out)
	}
	return nil
}

// hook adds a webhook for an event of assessment 1.
func (s *site) hook(ctx context.Context, event, url string) error {
	return exec1(ctx, s.store, "insert into walhook.webhook (assessment_id, event_type, url) values ('1', $1, $2)", "response."+event, url)
}

// until polls a query of one boolean on the store until it is true.
func (s *site) until(ctx context.Context, query string, args ...any) error {
	for {
		var done bool
		if err := s.store.QueryRow(ctx, query, args...).Scan(&done); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
		if done {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// seen waits until the state of a response is stored, and with it everything that precedes it in the stream.
func (s *site) seen(ctx context.Context, id int) error {
	return s.until(ctx, "select exists (select from walhook.response_state where response_id = $1)", fmt.Sprint(id))
}

var errEnded = errors.New("walhook ended")
