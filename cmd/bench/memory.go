package main

import (
	"context"
	"fmt"
	"time"
)

// measureMemory measures the resident memory of the daemon's process.
func measureMemory(ctx context.Context, b *bench) ([]Result, error) {
	live, err := b.memoryLive(ctx)
	if err != nil {
		return nil, err
	}
	backlog, err := b.memoryBacklog(ctx)
	if err != nil {
		return nil, err
	}
	many, err := b.memoryManyWebhooks(ctx)
	return append(append(live, backlog...), many...), err
}

// memoryLive measures it after some seconds of ordinary work.
func (b *bench) memoryLive(ctx context.Context) ([]Result, error) {
	s, d, err := b.running(ctx, b.receiver.url+"/hook")
	if err != nil {
		return nil, err
	}
	defer s.close()
	l := &steady{rate: 500, n: int(500 * b.seconds(10).Seconds()), clients: 4, first: 1}
	if err := l.run(ctx, s); err != nil {
		return nil, err
	}
	now, _, err := d.resident()
	return []Result{ceiling("resident, live at 500 events/s", now, 32)}, err
}

// memoryBacklog measures it during one large transaction whose deliveries fail, and in a new daemon that finds them
// pending.
func (b *bench) memoryBacklog(ctx context.Context) ([]Result, error) {
	s, d, err := b.running(ctx, "http://127.0.0.1:1/")
	if err != nil {
		return nil, err
	}
	defer s.close()
	n := b.n(1_000_000)
	if err := s.exec(ctx, "insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", n); err != nil {
		return nil, err
	}
	if err := s.exec(ctx, "insert into respondent (id, assessment_id) values ($1, 999)", sentinel); err != nil {
		return nil, err
	}
	if err := s.seen(ctx, sentinel); err != nil {
		return nil, err
	}
	_, through, err := d.resident()
	if err != nil {
		return nil, err
	}
	d.stop()
	if d, err = s.start(ctx); err != nil {
		return nil, err
	}
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	time.Sleep(b.seconds(10))
	_, waiting, err := d.resident()
	return []Result{
		ceiling(fmt.Sprintf("peak through a transaction of %d rows, all queued", n), through, 64),
		ceiling(fmt.Sprintf("peak with %d deliveries waiting", n), waiting, 64),
	}, err
}

// memoryManyWebhooks measures it while each event goes to many URLs.
func (b *bench) memoryManyWebhooks(ctx context.Context) ([]Result, error) {
	s, d, err := b.running(ctx, b.receiver.url+"/hook")
	if err != nil {
		return nil, err
	}
	defer s.close()
	const urls = 10_000
	if err := exec1(ctx, s.store, "insert into walhook.webhook (assessment_id, event_type, url) select '1', 'response.created', $1 || g from generate_series(1, $2::int) g",
		b.receiver.url+"/", urls); err != nil {
		return nil, err
	}
	if err := b.receiver.forget(ctx); err != nil {
		return nil, err
	}
	events := b.n(20)
	if err := s.write(ctx, events, 1, insertRow); err != nil {
		return nil, err
	}
	if err := b.arrived(ctx, events*(urls+1)); err != nil {
		return nil, err
	}
	_, peak, err := d.resident()
	return []Result{ceiling(fmt.Sprintf("peak with %d webhooks on as many URLs, %d POSTs", urls, events*(urls+1)), peak, 64)}, err
}

// running returns a site with one webhook and a daemon that streams.
func (b *bench) running(ctx context.Context, url string) (*site, *daemon, error) {
	s, err := b.newSite(ctx)
	if err != nil {
		return nil, nil, err
	}
	d, err := s.attachAndStart(ctx, url)
	if err != nil {
		s.close()
		return nil, nil, err
	}
	return s, d, nil
}

func (s *site) attachAndStart(ctx context.Context, url string) (*daemon, error) {
	if err := s.attach(ctx); err != nil {
		return nil, err
	}
	if err := s.hook(ctx, "created", url); err != nil {
		return nil, err
	}
	d, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	return d, d.ready(ctx)
}

func ceiling(name string, value, target float64) Result {
	return Result{Name: name, Unit: "MiB", Value: value, Target: target, AtMost: true}
}
