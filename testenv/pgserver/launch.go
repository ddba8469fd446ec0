package pgserver

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Restart starts the server if it does not run, on the same port, and returns when it answers.
func (s *Server) Restart(ctx context.Context) error {
	var err error
	for range 10 {
		if s.version == 0 { // nobody has been told the port yet
			if s.port, err = FreePort(); err != nil {
				return err
			}
		}
		logged := s.logSize()
		if err = s.launch(ctx); err == nil {
			return nil
		}
		if ctx.Err() != nil || !strings.Contains(s.logSince(logged), "Address already in use") {
			return err
		}
		time.Sleep(100 * time.Millisecond) // somebody else uses the port, perhaps only briefly
	}
	return err
}

// launch runs postgres and waits until it answers.
func (s *Server) launch(ctx context.Context) error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	cmd := program(context.Background(), s.as, s.bin, "postgres", s.arguments()...)
	cmd.Env = append(cmd.Env, s.options.Env...)
	if s.maxFile != 0 {
		limit := fmt.Sprintf(`ulimit -f %d && exec "$0" "$@"`, s.maxFile/512)
		cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", limit, cmd.Path}, cmd.Args[1:]...)
	}
	cmd.Dir = s.base
	cmd.Stdout = log
	if s.options.Log != nil {
		cmd.Stdout = io.MultiWriter(log, s.options.Log)
		cmd.WaitDelay = 5 * time.Second
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		_ = log.Close()
		return fmt.Errorf("run %s/postgres: %w", s.bin, err)
	}
	s.watchdog.guard(cmd.Process.Pid)
	exited := make(chan struct{})
	s.cmd, s.exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		s.watchdog.rest()
		_ = log.Close()
		close(exited)
	}()
	return s.waitReady(ctx)
}

func (s *Server) arguments() []string {
	settings := maps.Clone(defaults)
	maps.Copy(settings, s.options.Settings)
	settings["port"] = strconv.Itoa(s.port)
	settings["unix_socket_directories"] = s.base
	args := []string{"-D", s.DataDir()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		if settings[name] == "" {
			continue // left to the configuration files
		}
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// waitReady waits until the server answers a query, which also reads its version.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		version, err := s.ask(ctx)
		if err == nil {
			s.version = version
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("postgres exited during startup; its log ends with:\n%s", tail(s.Log(), 2000))
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("wait for postgres to answer: %w; its log ends with:\n%s", err, tail(s.Log(), 2000))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) ask(ctx context.Context) (version int, err error) {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	// Another server may have taken the port first; the data directory shows that.
	var dir string
	err = conn.QueryRow(ctx, "select current_setting('server_version_num')::int, current_setting('data_directory')").Scan(&version, &dir)
	if err == nil && dir != s.DataDir() {
		err = fmt.Errorf("another server, with data directory %s, uses port %d", dir, s.port)
	}
	return version, err
}
