package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace"

	"walhook/cdc/catalog"
	"walhook/cdc/stream"
	"walhook/dispatch/post"
)

// Config is what a Scheduler needs. All fields but Tracer are required.
type Config struct {
	Original  *catalog.Original // whose deliveries are sent; nil: those of any store
	StoreURL  string
	NumericID bool // ResponseId is a JSON number

	Client              *post.Client
	Horizon             *stream.Horizon
	Backoff             post.Backoff
	MaxAttempts         int
	Timeout             time.Duration // of one attempt: leases outlive it
	Concurrency         int
	EndpointConcurrency int
	DisableAfter        time.Duration // 0: never
	Retention           time.Duration // 0: for ever
	Version             string
	Observe             func(Attempted)    // called after each attempt; must not block
	Loaded              func(webhooks int) // called whenever the webhooks were loaded; must not block
	Report              func() Report      // asked with each heartbeat; must not block
	Log                 *slog.Logger
	Failed              func(error) // called when Run is going to return an error, before attempts in flight have ended; must not block

	Tracer trace.Tracer // takes a span of each attempt; nil: no traces
}

// Report is what a daemon reports of itself to others.
type Report struct {
	Reads   bool   // the slot
	Unready string // what its /readyz says with 503; "" while that says 200
}

// Attempted is what is told of each attempt, for metrics.
type Attempted struct {
	Outcome     post.Outcome
	Final       bool
	Test        bool
	SinceCommit time.Duration // from the commit of the application's transaction to the answer
	First       bool
}

const (
	// loaders is how many looks into the store there are at a time.
	loaders = 3

	// horizonPause is how long to wait before asking the source again whether a commit has become visible.
	horizonPauseMin = time.Millisecond
	horizonPauseMax = 100 * time.Millisecond

	// horizonPatience is how long the source may hide a commit before it is asked through a new connection: a failover may have left
	// the one there is on the server of before.
	horizonPatience = 5 * time.Second
)

// Scheduler sends what is queued, as its schedule decides, and records what came of it. No query and no attempt is made under the
// schedule's mutex.
type Scheduler struct {
	cfg Config

	asciiText atomic.Bool // the store's encoding may lack letters of an error's text
	numericID atomic.Bool // ResponseId is a JSON number, as the key's column is now
	pool      *pgxpool.Pool

	*schedule
	rejected []result // that the store refuses, each by itself; they count as unrecorded

	foreseen chan struct{} // capacity 1: deliveries are being queued, and their transactions will be asked for
	sampled  atomic.Pointer[Sample]
	reader   atomic.Pointer[Reader] // another daemon that reads the slot; nil: none is known

	reportedReady atomic.Bool // the store has it from the last heartbeat that this daemon is ready

	health       health
	refusedAt    atomic.Pointer[time.Time] // when the log last refused results; nil: it takes them
	upkeepWanted chan struct{}             // capacity 1: the log refuses results

	drains     chan struct{} // closed when the daemon is being stopped
	attempts   sync.WaitGroup
	lookups    sync.WaitGroup
	attemptCtx context.Context
	abort      context.CancelFunc
}

// NewScheduler returns a Scheduler that Run starts.
func NewScheduler(cfg Config) *Scheduler {
	attemptCtx, abort := context.WithCancel(context.Background())
	s := &Scheduler{
		cfg: cfg, foreseen: make(chan struct{}, 1), upkeepWanted: make(chan struct{}, 1), drains: make(chan struct{}), attemptCtx: attemptCtx, abort: abort,
		schedule: newSchedule(limits{
			concurrency: cfg.Concurrency, endpointConcurrency: cfg.EndpointConcurrency, maxAttempts: cfg.MaxAttempts, backoff: cfg.Backoff,
		}),
	}
	s.numericID.Store(cfg.NumericID)
	s.now, s.visible, s.send, s.find, s.arm = time.Now, cfg.Horizon.Visible, s.sendAttempt, s.findSuccessor, s.setTimer
	return s
}

func (s *Scheduler) attempt(d *delivery) post.Outcome {
	if d.hook.broken != nil {
		return post.Misconfigured(d.hook.broken, time.Now())
	}
	id := d.messageID()
	body := post.AppendBody(make([]byte, 0, 128), d.event.String(), d.committedAt, d.responseID, s.numericID.Load())
	outcome := s.cfg.Client.Attempt(s.attemptCtx, post.Request{Target: d.hook.target, MessageID: id, Body: body})
	outcome.Error = s.storable(outcome.Error)
	return outcome
}

func (d *delivery) messageID() string {
	if d.kind == kindTest || d.kind == kindManual {
		return ManualMessageID(d.origin, d.id)
	}
	return MessageID(d.origin, d.lsn, d.ordinal, d.event, d.webhookID)
}

// sendAttempt makes one attempt in a goroutine of its own.
func (s *Scheduler) sendAttempt(d *delivery, troubled bool) {
	s.attempts.Add(1)
	go func() {
		defer s.attempts.Done()
		o := s.traced(d)
		r, was, is := s.answered(d, o, troubled)
		if o.Kind != post.Aborted {
			s.report(d, r, was, is)
		}
	}()
}

// report tells of an attempt that has ended.
func (s *Scheduler) report(d *delivery, r result, was, is bool) {
	o := r.outcome
	s.cfg.Observe(Attempted{
		Outcome: o, Final: r.final, Test: d.kind == kindTest, First: d.attempts == 0, SinceCommit: r.at.Sub(d.committedAt),
	})
	s.logAttempt(d, r)
	switch {
	case is && !was:
		s.cfg.Log.Warn("an endpoint is failing; what goes there waits", "endpoint", d.hook.display(), "failures", failingAfter, "error", o.Error)
	case was && !is:
		s.cfg.Log.Info("an endpoint works again", "endpoint", d.hook.display())
	}
}

// logAttempt writes the one line that tells all of an attempt: a warning where the delivery has failed for good, and else for those who
// debug.
func (s *Scheduler) logAttempt(d *delivery, r result) {
	level := slog.LevelDebug
	if r.final && r.outcome.Kind != post.Success {
		level = slog.LevelWarn
	}
	if !s.cfg.Log.Enabled(context.Background(), level) {
		return
	}
	s.cfg.Log.Log(context.Background(), level, "attempt",
		"delivery_id", d.id, "webhook_id", d.webhookID, "message_id", d.messageID(), "response_id", d.responseID, "event", d.event.String(), "attempt", d.attempts+1,
		"endpoint", d.hook.display(), "outcome", r.outcome.Kind.String(), "final", r.final, "http_status", r.outcome.HTTPStatus,
		"error", r.outcome.Error, "duration_ms", r.outcome.Duration.Milliseconds(), "next_in", r.delay.Round(time.Millisecond))
}

// setTimer lets the endpoint's timer run.
func (s *Scheduler) setTimer(e *endpoint, in time.Duration) {
	if e.timer != nil {
		e.timer.Stop()
	}
	if in >= 0 {
		e.timer = time.AfterFunc(in, func() { s.due(e) })
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
