package dispatch

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

const (
	// sampleInterval is how often the queue, endpoints, webhooks and incidents are counted, and sampleTimeout how long
	// that may take.
	sampleInterval = 10 * time.Second
	sampleTimeout  = 5 * time.Second

	// sampleAge is how old a sample may be before it is dropped.
	sampleAge = time.Minute
)

// Sample is a recent count of what the store holds, for all daemons.
type Sample struct {
	Pending            int64
	Estimated          bool    // Pending is an estimate from the server's statistics, as it is beyond 10,000
	OldestSeconds      float64 // age of the oldest pending delivery, without those of disabled webhooks
	EndpointsInTrouble int64   // their last attempt failed
	WebhooksEnabled    int64
	WebhooksDisabled   int64
	Daemons            int64
	SwitchedOn         bool             // walhook.settings.enabled
	Covered            time.Duration    // how far ahead the log has partitions
	Incidents          map[string]int64 // open ones by kind

	at time.Time
}

// Sample returns the last sample, or nil if it is too old.
func (s *Scheduler) Sample() *Sample {
	if sample := s.sampled.Load(); sample != nil && time.Since(sample.at) < sampleAge {
		return sample
	}
	return nil
}

// sampleLoop takes samples from time to time.
func (s *Scheduler) sampleLoop(ctx context.Context) {
	for {
		if sample, err := s.takeSample(ctx); err == nil {
			s.sampled.Store(sample)
		} else if ctx.Err() == nil {
			// Whoever needs the store reports that it is away.
			s.cfg.Log.Debug("could not read the queue for the metrics", "error", err)
		}
		select {
		case <-time.After(sampleInterval):
		case <-ctx.Done():
			return
		}
	}
}

// takeSample queries the store. Its cost does not grow with the queue.
func (s *Scheduler) takeSample(ctx context.Context) (*Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	sample := &Sample{Incidents: map[string]int64{}, at: time.Now()}
	batch := &pgx.Batch{}
	batch.Queue(sql.QueueDepth.SQL).QueryRow(func(row pgx.Row) error {
		return row.Scan(&sample.Pending, &sample.Estimated, &sample.OldestSeconds)
	})
	batch.Queue(sql.Overview.SQL).QueryRow(func(row pgx.Row) error {
		return row.Scan(
			&sample.EndpointsInTrouble, &sample.WebhooksEnabled, &sample.WebhooksDisabled, &sample.Daemons, &sample.SwitchedOn,
		)
	})
	batch.Queue(sql.LogCovered.SQL).QueryRow(func(row pgx.Row) error {
		var covered *time.Duration
		err := row.Scan(&covered)
		if covered != nil {
			sample.Covered = *covered
		}
		return err
	})
	batch.Queue(sql.OpenIncidentKinds.SQL).Query(func(rows pgx.Rows) error {
		var kind string
		var n int64
		_, err := pgx.ForEachRow(rows, []any{&kind, &n}, func() error { sample.Incidents[kind] = n; return nil })
		return err
	})
	if err := s.pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("read the queue: %w", err)
	}
	return sample, nil
}

// Load is what this process has in memory.
type Load struct {
	Endpoints int // owned by this daemon
	InFlight  int // attempts
	Held      int // deliveries, including those in flight
	Alive     bool

	Unrecorded int // results that the store does not have yet
}

// Load returns it.
func (s *Scheduler) Load() Load {
	c := s.schedule.Counts()
	return Load{
		Endpoints: c.Endpoints, InFlight: c.InFlight, Held: c.Held, Unrecorded: c.Unrecorded,
		Alive: time.Now().Before(c.StartsUntil),
	}
}
