package main

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// Statements of the application for row i.
const (
	insertRow = "insert into respondent (id, assessment_id) values (i, 1)"
	savePage  = "update respondent set page = page + 1 where id = 1 + (i - 1) % 20000"
)

// sentinel is the respondent whose insert ends a backlog. No webhook matches its assessment.
const sentinel = 2_000_000_000

// write runs a statement n times on the server, in transactions of the given size.
func (s *site) write(ctx context.Context, n, each int, statement string) error {
	// Separate statements: a DO block may commit only outside of a transaction.
	for _, sql := range []string{
		"set synchronous_commit = off",
		fmt.Sprintf("do $$ begin for i in 1..%d loop %s; if i %% %d = 0 then commit; end if; end loop; end $$", n, statement, each),
		"reset synchronous_commit",
	} {
		if err := s.exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// shape is a backlog that is drained.
type shape struct {
	name    string
	n, each int // changes, and changes in a transaction
	do      string
	target  float64
	env     []string
}

// measureDrain creates one backlog after the other, and reads each with pg_recvlogical and with walhook.
func measureDrain(ctx context.Context, b *bench) ([]Result, error) {
	return b.drainAll(ctx,
		shape{name: "page saves, 100 in a transaction", n: b.n(1_000_000), each: 100, do: savePage, target: 0.80},
		shape{name: "page saves, one in a transaction", n: b.n(300_000), each: 1, do: savePage, target: 0.80},
		shape{name: "page saves, all in one transaction", n: b.n(1_000_000), each: 1 << 30, do: savePage, target: 0.80},
		shape{
			name: "page saves, three conditions on other columns", n: b.n(1_000_000), each: 100, do: savePage, target: 0.80,
			env: []string{
				"WALHOOK_RESPONDENT_WHERE=assessment_id > 0", "WALHOOK_STARTED=started_at is not null",
				"WALHOOK_FINISHED=finished_at is not null and finished_at > started_at", "WALHOOK_FINISH_STAMP=finished_at",
			},
		},
		shape{
			name: "page saves, a condition on the saved page", n: b.n(1_000_000), each: 100, do: savePage, target: 0.80,
			env: []string{"WALHOOK_FINISHED=finished_at is not null and page > 0", "WALHOOK_FINISH_STAMP=finished_at"},
		})
}

// measureQueue does the same with a backlog of events.
func measureQueue(ctx context.Context, b *bench) ([]Result, error) {
	return b.drainAll(ctx, shape{
		name: "events queued, 100 changes in a transaction", n: b.n(300_000), each: 100, do: insertRow, target: 0.35,
	})
}

func (b *bench) drainAll(ctx context.Context, shapes ...shape) ([]Result, error) {
	var results []Result
	for _, shape := range shapes {
		result, err := b.drain(ctx, shape)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
	}
	return results, nil
}

func (b *bench) drain(ctx context.Context, shape shape) (Result, error) {
	s, err := b.newSite(ctx)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	s.env = append(s.env, shape.env...)
	if shape.do == savePage {
		if err := s.exec(ctx, "insert into respondent (id, assessment_id) select g, 1 from generate_series(1, 20000) g"); err != nil {
			return Result{}, err
		}
	}
	if err := s.attach(ctx); err != nil {
		return Result{}, err
	}
	// Nothing listens there, so queued deliveries stay queued.
	if err := s.hook(ctx, "created", "http://127.0.0.1:1/"); err != nil {
		return Result{}, err
	}
	if err := s.exec(ctx, "select pg_create_logical_replication_slot('baseline', 'pgoutput')"); err != nil {
		return Result{}, err
	}
	if err := s.write(ctx, shape.n, shape.each, shape.do); err != nil {
		return Result{}, err
	}
	if err := s.exec(ctx, "insert into respondent (id, assessment_id) values ($1, 999)", sentinel); err != nil {
		return Result{}, err
	}
	if err := s.settle(ctx); err != nil {
		return Result{}, err
	}
	baseline, err := s.recvlogical(ctx, "baseline")
	if err != nil {
		return Result{}, err
	}
	if err := s.settle(ctx); err != nil {
		return Result{}, err
	}
	d, err := s.start(ctx)
	if err != nil {
		return Result{}, err
	}
	if err := d.ready(ctx); err != nil {
		return Result{}, err
	}
	began := time.Now()
	if err := s.seen(ctx, sentinel); err != nil {
		return Result{}, err
	}
	took := time.Since(began)
	result := against(shape.name, "pg_recvlogical", "changes/s", float64(shape.n)/baseline.Seconds(), float64(shape.n)/took.Seconds(), shape.target, false)
	if shape.do == insertRow {
		var queued int
		if err := s.store.QueryRow(ctx, "select count(*) from walhook.queue").Scan(&queued); err != nil {
			return Result{}, fmt.Errorf("count the queue: %w", err)
		}
		if queued != shape.n {
			return Result{}, fmt.Errorf("%d deliveries were queued for %d events", queued, shape.n)
		}
	}
	return result, nil
}

// settle flushes earlier writes to disk, so that the next measurement does not wait for them.
func (s *site) settle(ctx context.Context) error {
	if err := s.exec(ctx, "checkpoint"); err != nil {
		return err
	}
	syscall.Sync()
	return nil
}

// recvlogical reads a slot up to the end of the WAL and discards everything.
func (s *site) recvlogical(ctx context.Context, slot string) (time.Duration, error) {
	var end string
	if err := s.conn.QueryRow(ctx, "select pg_current_wal_insert_lsn()::text").Scan(&end); err != nil {
		return 0, fmt.Errorf("look up the end of the WAL: %w", err)
	}
	cmd := exec.CommandContext(ctx, s.b.recvlogical, "-d", s.server.URL("postgres"), "-S", slot, "--start", "--endpos", end, "--no-loop",
		"-o", "proto_version=1", "-o", "publication_names=walhook", "-f", "/dev/null")
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("pg_recvlogical: %w\n%s", err, out)
	}
	took := time.Since(began)
	return took, s.exec(ctx, "select pg_drop_replication_slot($1)", slot)
}
