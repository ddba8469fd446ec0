package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// measureLatency inserts respondents at a steady rate, one per statement, and measures the time from sending the
// statement until it returns, which the application has to wait for anyway, and until its POST arrives.
func measureLatency(ctx context.Context, b *bench) ([]Result, error) {
	s, err := b.newSite(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.attach(ctx); err != nil {
		return nil, err
	}
	if err := s.hook(ctx, "created", b.receiver.url+"/timed"); err != nil {
		return nil, err
	}
	d, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	var results []Result
	first := 1
	for _, load := range []struct {
		rate, seconds, clients int
		median, p99            float64 // targets
	}{{50, 10, 4, 3, 10}, {500, 10, 8, 0, 0}, {5000, 5, 32, 0, 0}} {
		l := &steady{rate: load.rate, n: int(float64(load.rate) * b.seconds(load.seconds).Seconds()), clients: load.clients, first: first}
		first += l.n
		if err := b.receiver.forget(ctx); err != nil {
			return nil, err
		}
		if err := l.run(ctx, s); err != nil {
			return nil, err
		}
		if err := b.arrived(ctx, l.n); err != nil {
			return nil, err
		}
		arrivals, err := b.receiver.arrivals(ctx)
		if err != nil {
			return nil, err
		}
		commits, posts, err := l.times(arrivals)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("statement to POST at %d/s", load.rate)
		results = append(results,
			against(name+", median", "statement to answer", "ms", quantile(commits, 0.5), quantile(posts, 0.5), load.median, true),
			against(name+", p99", "statement to answer", "ms", quantile(commits, 0.99), quantile(posts, 0.99), load.p99, true))
	}
	return results, nil
}

// steady is a load of inserts at a rate.
type steady struct {
	rate, n, clients, first int
	began, ended            []time.Time // by number of the insert
}

// run runs the inserts, each at its time or as soon as a client is free.
func (l *steady) run(ctx context.Context, s *site) error {
	l.began, l.ended = make([]time.Time, l.n), make([]time.Time, l.n)
	conns := make([]*pgx.Conn, l.clients)
	for i := range conns {
		var err error
		if conns[i], err = pgx.Connect(ctx, s.server.URL("postgres")); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		defer conns[i].Close(context.WithoutCancel(ctx))
		if _, err := conns[i].Prepare(ctx, "insert", "insert into respondent (id, assessment_id) values ($1, 1)"); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	errs := make([]error, l.clients)
	var clients sync.WaitGroup
	start := time.Now()
	for c, conn := range conns {
		clients.Go(func() {
			for i := c; i < l.n && errs[c] == nil; i += l.clients {
				time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(l.rate))))
				l.began[i] = time.Now()
				_, errs[c] = conn.Exec(ctx, "insert", l.first+i)
				l.ended[i] = time.Now()
			}
		})
	}
	clients.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("insert: %w", err)
		}
	}
	return nil
}

// times returns, sorted and in milliseconds, how long the statements took and how long until their POSTs arrived.
func (l *steady) times(arrivals map[string]int64) (commits, posts []float64, err error) {
	for i := range l.n {
		at, ok := arrivals[fmt.Sprint(l.first+i)]
		if !ok {
			return nil, nil, fmt.Errorf("no POST arrived for response %d", l.first+i)
		}
		commits = append(commits, float64(l.ended[i].Sub(l.began[i]))/1e6)
		posts = append(posts, float64(at-l.began[i].UnixNano())/1e6)
	}
	slices.Sort(commits)
	slices.Sort(posts)
	return commits, posts, nil
}

func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(float64(len(sorted))*q), len(sorted)-1)]
}
