package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// measureAttach attaches to a table with rows, and afterwards reconciles it.
func measureAttach(ctx context.Context, b *bench) ([]Result, error) {
	s, err := b.newSite(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	n := b.n(1_000_000)
	if err := s.exec(ctx, "insert into respondent (id, assessment_id, started_at) select g, g % 100, now() from generate_series(1, $1::int) g", n); err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "vacuum analyze respondent"); err != nil {
		return nil, err
	}
	baseline, err := s.copyToCopy(ctx)
	if err != nil {
		return nil, err
	}
	rate := func(what string, took time.Duration, target float64) Result {
		return against(fmt.Sprintf("%s, %d rows", what, n), "COPY to COPY, with a key", "rows/s", float64(n)/baseline.Seconds(), float64(n)/took.Seconds(), target, false)
	}
	attached, attachPeak, err := s.command(ctx, "attach")
	if err != nil {
		return nil, err
	}
	late, err := s.catchUp(ctx)
	if err != nil {
		return nil, err
	}
	reconciled, reconcilePeak, err := s.command(ctx, "reconcile")
	if err != nil {
		return nil, err
	}
	return []Result{
		rate("attach", attached, 0.7),
		ceiling(fmt.Sprintf("peak of attach, %d rows", n), attachPeak, 64),
		rate("attach until the first change is seen", attached+late, 0),
		rate("reconcile", reconciled, 0.7),
		ceiling(fmt.Sprintf("peak of reconcile, %d rows", n), reconcilePeak, 64),
	}, nil
}

// catchUp runs walhook until it has seen a change made after attach. If the store is in the application's database, the
// server first decodes what attach wrote.
func (s *site) catchUp(ctx context.Context) (time.Duration, error) {
	if err := s.exec(ctx, "insert into respondent (id, assessment_id) values ($1, 999)", sentinel); err != nil {
		return 0, err
	}
	began := time.Now()
	d, err := s.start(ctx)
	if err != nil {
		return 0, err
	}
	defer d.stop()
	if err := d.ready(ctx); err != nil {
		return 0, err
	}
	err = s.seen(ctx, sentinel)
	return time.Since(began), err
}

// command runs a walhook command, and returns its duration and its peak memory in MiB.
func (s *site) command(ctx context.Context, name string) (time.Duration, float64, error) {
	cmd := exec.CommandContext(ctx, s.b.walhook, name)
	cmd.Env = slices.Concat(s.env, s.b.profileOf())
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, 0, fmt.Errorf("walhook %s: %w\n%s", name, err, out)
	}
	took := time.Since(began)
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, 0, errors.New("this system does not report the peak memory of a process")
	}
	return took, float64(usage.Maxrss) / 1024, nil // kB on Linux
}

// copyToCopy copies the mapped columns to a table with a primary key, in one transaction.
func (s *site) copyToCopy(ctx context.Context) (time.Duration, error) {
	if err := s.exec(ctx, "create table copied (response_id text collate \"C\" primary key, assessment_id text, started_at text, finished_at text)"); err != nil {
		return 0, err
	}
	from, err := s.connect(ctx, s.server)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	reader, writer := io.Pipe()
	out := make(chan error, 1)
	go func() {
		_, err := from.PgConn().CopyTo(ctx, writer, "copy respondent (id, assessment_id, started_at, finished_at) to stdout")
		writer.CloseWithError(err)
		out <- err
	}()
	_, err = s.conn.PgConn().CopyFrom(ctx, reader, "copy copied from stdin")
	reader.CloseWithError(err)
	if err := errors.Join(err, <-out); err != nil {
		return 0, fmt.Errorf("copy: %w", err)
	}
	took := time.Since(began)
	return took, s.exec(ctx, "drop table copied")
}
