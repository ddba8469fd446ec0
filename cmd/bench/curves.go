package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// measureCurves repeats the same small backlog while one factor grows a thousandfold. A cost that does not depend on
// the factor shows as a constant rate.
func measureCurves(ctx context.Context, b *bench) ([]Result, error) {
	var results []Result
	var first float64
	for _, c := range []curve{
		{what: "log of 1,000 rows"},
		{what: "log of 100,000 rows", log: 100_000},
		{what: "log of 1,000,000 rows", log: 1_000_000},
		{what: "log of 10,000,000 rows", log: 10_000_000},
		{what: "100 webhooks, of which one matches", others: 100},
		{what: "10,000 webhooks, of which one matches", others: 10_000},
		{what: "10,000 webhooks of one URL, of which one matches", others: 10_000, same: true},
		{what: "1,000 webhooks of one URL, each event to all", urls: 1000, toAll: true, same: true},
		{what: "100 URLs", urls: 100},
		{what: "10,000 URLs", urls: 10_000},
		{what: "100 URLs, each event to all", urls: 100, toAll: true},
		{what: "10,000 URLs, each event to all", urls: 10_000, toAll: true},
		{what: "2 daemons, 100 URLs", urls: 100, daemons: 2},
		{what: "4 daemons, 100 URLs", urls: 100, daemons: 4},
	} {
		if first > 0 && !strings.Contains(c.what, b.curves) {
			continue
		}
		b.log("  %s ...", c.what)
		rate, err := b.curve(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.what, err)
		}
		if first == 0 {
			first = rate
		}
		results = append(results, against("delivered: "+c.what, "the first line", "/s", first, rate, 0, false))
	}
	const long = "during a long-running transaction"
	if !strings.Contains(long, b.curves) {
		return results, nil
	}
	b.log("  %s ...", long)
	fresh, err := b.afterMany(ctx, false)
	if err != nil {
		return nil, err
	}
	held, err := b.afterMany(ctx, true)
	if err != nil {
		return nil, err
	}
	return append(results, against("delivered "+long, "the same without it", "/s", fresh, held, 0.5, false)), nil
}

// afterMany delivers many events and then measures some more. If held is true, a transaction has been open since before
// the first event, so nothing could be vacuumed.
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
	// A part at a time, as over a long day: each part makes many small store transactions.
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

// curve is a backlog and its surroundings. Zero values stand for the minimum.
type curve struct {
	what    string
	log     int  // rows of the log; at least 1,000
	others  int  // webhooks that match nothing; at least none
	urls    int  // at least 1, with a webhook each
	same    bool // all webhooks have the same URL
	toAll   bool // each event goes to all URLs, otherwise to one of them
	daemons int  // at least 1
}

// curve delivers the backlog, and returns the deliveries per second.
func (b *bench) curve(ctx context.Context, c curve) (float64, error) {
	c.log, c.urls, c.daemons = max(c.log, 1000), max(c.urls, 1), max(c.daemons, 1)
	n := b.n(50_000)
	events, assessments := n, c.urls
	if c.toAll {
		events, assessments = max(n/c.urls, 1), 1
		n = events * c.urls
	}
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
		{`insert into walhook.webhook (assessment_id, event_type, url) select 1 + g % $3::int, 'response.created', $1 || case when $4 then 0 else g end
			from generate_series(1, $2::int) g`, []any{b.receiver.url + "/", c.urls, assessments, c.same}},
		{`insert into walhook.webhook (assessment_id, event_type, url) select 'other ' || g, 'response.created', $1 || case when $3 then '0' else 'other' end
			from generate_series(1, $2::int) g`, []any{b.receiver.url + "/", c.others, c.same}},
		{`insert into walhook.log (delivery_id, webhook_id, lsn, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id)
			select -g, 1, '0/1', g, now(), now(), 1, 1, 0, true, 'old ' || g from generate_series(1, $1::int) g`, []any{c.log}},
		{"vacuum analyze walhook.log", nil},
	} {
		if err := exec1(ctx, s.store, step.sql, step.args...); err != nil {
			return 0, err
		}
	}
	if err := s.write(ctx, events, 100, fmt.Sprintf("insert into respondent (id, assessment_id) values (i, 1 + i %% %d)", assessments)); err != nil {
		return 0, err
	}
	if err := b.receiver.forget(ctx); err != nil {
		return 0, err
	}
	for range c.daemons {
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
