package main

import (
	"context"
	"fmt"
	"time"
)

// measureCurves repeats one small backlog while one thing grows a thousandfold. Costs that grow straight show as a rate that
// stays where it is.
func measureCurves(ctx context.Context, b *bench) ([]Result, error) {
	var results []Result
	var first float64
	for _, c := range []struct {
		what             string
		log, hooks, urls int
		daemons          int
	}{
		{"log of 1,000 rows", 1000, 1, 1, 1},
		{"log of 100,000 rows", 100_000, 1, 1, 1},
		{"log of 1,000,000 rows", 1_000_000, 1, 1, 1},
		{"log of 10,000,000 rows", 10_000_000, 1, 1, 1},
		{"100 webhooks, of which one matches", 1000, 100, 1, 1},
		{"10,000 webhooks, of which one matches", 1000, 10_000, 1, 1},
		{"100 URLs", 1000, 1, 100, 1},
		{"10,000 URLs", 1000, 1, 10_000, 1},
		{"2 daemons, 100 URLs", 1000, 1, 100, 2},
		{"4 daemons, 100 URLs", 1000, 1, 100, 4},
	} {
		b.log("  %s ...", c.what)
		rate, err := b.curve(ctx, c.log, c.hooks, c.urls, c.daemons)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.what, err)
		}
		if first == 0 {
			first = rate
		}
		results = append(results, against("delivered: "+c.what, "the first line", "/s", first, rate, 0, false))
	}
	fresh, err := b.afterMany(ctx, false)
	if err != nil {
		return nil, err
	}
	held, err := b.afterMany(ctx, true)
	if err != nil {
		return nil, err
	}
	return append(results, against("delivered while a transaction has been open for long", "the same without it", "/s", fresh, held, 0.5, false)), nil
}

// afterMany delivers many events and then measures some more. held: a transaction has been open since before the first, so that
// nothing could be vacuumed.
func (b *bench) afterMany(ctx context.Context, held bool) (float64, error) {
	s, _, err := b.running(ctx, b.receiver.url+"/hook")
	if err != nil {
		return 0, err
	}
	defer s.close()
	if held {
		conn, err := s.connect(ctx, s.server)
		if err != nil {
			return 0, err
		}
		if err := exec1(ctx, conn, "begin isolation level repeatable read; select txid_current()"); err != nil {
			return 0, err
		}
	}
	if err := b.receiver.forget(ctx); err != nil {
		return 0, err
	}
	many, n := b.n(500_000), b.n(50_000)
	// Some at a time, as on a long day: each part makes many small transactions of the store.
	const part = 1000
	for from := 0; from < many; from += part {
		if err := s.write(ctx, min(part, many-from), 10, fmt.Sprintf("insert into respondent (id, assessment_id) values (%d + i, 1)", from)); err != nil {
			return 0, err
		}
	}
	if err := b.arrived(ctx, many); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := s.write(ctx, n, 100, fmt.Sprintf("insert into respondent (id, assessment_id) values (%d + i, 1)", many)); err != nil {
		return 0, err
	}
	if err := b.arrived(ctx, many+n); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// curve delivers a backlog to so many URLs, with so many webhooks that match nothing beside, on a log of so many rows.
func (b *bench) curve(ctx context.Context, log, hooks, urls, daemons int) (float64, error) {
	s, err := b.newSite(ctx)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if err := s.attach(ctx); err != nil {
		return 0, err
	}
	for _, step := range []struct {
		sql  string
		args []any
	}{
		// Each URL has an assessment of its own, so that an event goes to one of them.
		{"insert into walhook.webhook (assessment_id, event_type, url) select g, 'response.created', $1 || g from generate_series(1, $2::int) g", []any{b.receiver.url + "/", urls}},
		{"insert into walhook.webhook (assessment_id, event_type, url) select 'other ' || g, 'response.created', $1 from generate_series(2, $2::int) g", []any{b.receiver.url + "/other", hooks}},
		{`insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id)
			select -g, 1, '0/1', g, now(), now(), 1, 1, 0, true, 'old ' || g from generate_series(1, $1::int) g`, []any{log}},
		{"vacuum analyze walhook.log", nil},
	} {
		if err := exec1(ctx, s.store, step.sql, step.args...); err != nil {
			return 0, err
		}
	}
	n := b.n(50_000)
	if err := s.write(ctx, n, 100, fmt.Sprintf("insert into respondent (id, assessment_id) values (i, 1 + i %% %d)", urls)); err != nil {
		return 0, err
	}
	if err := b.receiver.forget(ctx); err != nil {
		return 0, err
	}
	for range daemons {
		if _, err := s.start(ctx); err != nil {
			return 0, err
		}
	}
	if err := b.arrived(ctx, 1); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := b.arrived(ctx, n); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
