package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// respondentLife has one transaction per step of a respondent: open, start, save a page, finish.
const respondentLife = `\set id random(1, 9000000000000000)
insert into respondent (id, assessment_id) values (:id, 1) on conflict do nothing;
update respondent set started_at = now(), page = 1 where id = :id;
update respondent set page = 2 where id = :id;
update respondent set finished_at = now() where id = :id;
`

// measureHarm measures the effect on the application: its rate of commits, with the store on another server, and the
// WAL that its server must keep while an endpoint is dead.
func measureHarm(ctx context.Context, b *bench) ([]Result, error) {
	// As on two machines: the application's server and pgbench have half of the cores, everything else has the others.
	s, err := b.newSiteApart(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.attach(ctx); err != nil {
		return nil, err
	}
	if err := s.hook(ctx, "completed", b.receiver.url+"/hook"); err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "select pg_create_logical_replication_slot('baseline', 'pgoutput')"); err != nil {
		return nil, err
	}
	// They alternate, each equally often first, because the table grows and the machine's load varies.
	var baseline, with float64
	for _, side := range []struct {
		commits func(context.Context) (float64, error)
		sum     *float64
	}{
		{s.commitsBesideWalhook, &with},
		{s.commitsBesideRecvlogical, &baseline},
		{s.commitsBesideRecvlogical, &baseline},
		{s.commitsBesideWalhook, &with},
		{s.commitsBesideWalhook, &with},
		{s.commitsBesideRecvlogical, &baseline},
		{s.commitsBesideRecvlogical, &baseline},
		{s.commitsBesideWalhook, &with},
	} {
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
		commits, err := side.commits(ctx)
		if err != nil {
			return nil, err
		}
		*side.sum += commits / 4
	}
	kept, err := s.keptWhileDead(ctx)
	if err != nil {
		return nil, err
	}
	return []Result{against("the application's commits, store on another server", "pg_recvlogical in its place", "/s", baseline, with, 0.95, false), kept}, nil
}

func (s *site) commitsBesideRecvlogical(ctx context.Context) (float64, error) {
	cmd := exec.CommandContext(ctx, s.b.recvlogical, "-d", s.server.URL("postgres"), "-S", "baseline", "--start", "--no-loop",
		"-o", "proto_version=1", "-o", "publication_names=walhook", "-f", "/dev/null")
	if err := elsewhere(cmd.Start); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w", err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}()
	return s.commits(ctx)
}

func (s *site) commitsBesideWalhook(ctx context.Context) (float64, error) {
	var d *daemon
	err := elsewhere(func() (err error) { d, err = s.start(ctx); return err })
	if err != nil {
		return 0, err
	}
	defer d.stop()
	if err := d.ready(ctx); err != nil {
		return 0, err
	}
	return s.commits(ctx)
}

var transactionsPerSecond = regexp.MustCompile(`tps = ([0-9.]+)`)

// commits runs pgbench and returns the application's commits per second: four per script.
func (s *site) commits(ctx context.Context) (float64, error) {
	script := filepath.Join(s.b.dir, "life.sql")
	if err := os.WriteFile(script, []byte(respondentLife), 0o600); err != nil {
		return 0, fmt.Errorf("write pgbench's script: %w", err)
	}
	seconds := strconv.Itoa(int(s.b.seconds(8).Seconds()))
	cmd := exec.CommandContext(ctx, s.b.pgbench, "-n", "-c", "8", "-M", "prepared", "-T", seconds, "-f", script, s.server.URL("postgres"))
	var out []byte
	err := here(func() (err error) { out, err = cmd.CombinedOutput(); return err })
	match := transactionsPerSecond.FindSubmatch(out)
	if err != nil || match == nil {
		return 0, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	tps, err := strconv.ParseFloat(string(match[1]), 64)
	return 4 * tps, err
}

// keptWhileDead writes for a while with an endpoint that refuses connections, and measures the WAL that walhook has not
// acknowledged.
func (s *site) keptWhileDead(ctx context.Context) (Result, error) {
	if err := exec1(ctx, s.store, "update walhook.webhook set url = 'http://127.0.0.1:1/'"); err != nil {
		return Result{}, err
	}
	if err := s.exec(ctx, "select pg_drop_replication_slot('baseline')"); err != nil {
		return Result{}, err
	}
	var d *daemon
	err := elsewhere(func() (err error) { d, err = s.start(ctx); return err })
	if err != nil {
		return Result{}, err
	}
	defer d.stop()
	if err := d.ready(ctx); err != nil {
		return Result{}, err
	}
	var before string
	if err := s.conn.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&before); err != nil {
		return Result{}, fmt.Errorf("query the WAL position: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.commits(ctx)
		done <- err
	}()
	var most float64
	for {
		var held, written float64
		err := s.conn.QueryRow(ctx, `select (pg_current_wal_lsn() - confirmed_flush_lsn)::float8 / 1048576, (pg_current_wal_lsn() - $1::text::pg_lsn)::float8 / 1048576
			from pg_replication_slots where slot_name = 'walhook'`, before).Scan(&held, &written)
		if err != nil {
			return Result{}, fmt.Errorf("query the slot: %w", err)
		}
		most = max(most, held)
		select {
		case err := <-done:
			return against("most WAL not released while the endpoint is dead", "WAL written meanwhile", "MiB", written, most, 0, true), err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
