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
	Original  *catalog.Original // the store to send from; nil: any
	StoreURL  string
	NumericID bool // ResponseId is a JSON number

	Client              *post.Client
	Horizon             *stream.Horizon
	Backoff             post.Backoff
	MaxAttempts         int
	Timeout             time.Duration // of one attempt
	Concurrency         int
	EndpointConcurrency int
	DisableAfter        time.Duration // 0: never
	Retention           time.Duration // of the log; 0: for ever
	Version             string
	Observe             func(Attempted)    // called after each attempt; must not block
	Loaded              func(webhooks int) // called after each reload of webhooks; must not block
	Report              func() Report      // called with each heartbeat; must not block
	Log                 *slog.Logger
	Failed              func(error) // called before Run ends with an error and waits for attempts in flight; must not block

	Tracer trace.Tracer // gets a span for each attempt; nil: no traces
}

// Report is what a daemon reports to others with its heartbeat.
type Report struct {
	Reads   bool   // it reads the slot
	Unready string // why /readyz answers 503; "" if it answers 200
}

// Attempted describes an attempt, for metrics.
type Attempted struct {
	Outcome     post.Outcome
	Final       bool
	Test        bool
	SinceCommit time.Duration // from the commit of the application's transaction to the answer
	First       bool
}

const (
	// loaders is how many loads may run at a time.
	loaders = 3

	// The horizon is refreshed with a backoff between these limits while deliveries wait for it.
	horizonPauseMin = time.Millisecond
	horizonPauseMax = 100 * time.Millisecond

	// horizonPatience is how long the source may hide a commit before the horizon gets a new connection: after a
	// failover, the existing one may lead to the old server.
	horizonPatience = 5 * time.Second
)

// Scheduler runs the loops around a schedule: it queries the store, sends what the schedule picks, and records the
// results. It holds the schedule's mutex during no query and no attempt.
type Scheduler struct {
	cfg Config

	asciiText atomic.Bool // the store's encoding may be unable to hold an error's text
	numericID atomic.Bool // ResponseId is a JSON number
	pool      *pgxpool.Pool

	*schedule
	rejected []result // refused by the store one by one; they count as unrecorded

	horizonPrefetch wakeup // for visibilityLoop: deliveries are being queued, and will need a new horizon
	sampled         atomic.Pointer[Sample]
	reader          atomic.Pointer[Reader] // another daemon that reads the slot; nil: none

	reportedReady atomic.Bool // the last heartbeat reported this daemon as ready

	health       health
	refusedAt    atomic.Pointer[time.Time] // when the log last refused results; nil: it takes them
	upkeepWanted wakeup                    // for upkeepLoop: the log has refused results

	stopRequested chan struct{} // closed when the daemon begins to stop
	attempts      sync.WaitGroup
	queries       sync.WaitGroup
	attemptCtx    context.Context
	abort         context.CancelFunc
}

// NewScheduler returns a Scheduler. Call Run to start it.
func NewScheduler(cfg Config) *Scheduler {
	attemptCtx, abort := context.WithCancel(context.Background())
	s := &Scheduler{
		cfg: cfg, horizonPrefetch: newWakeup(), upkeepWanted: newWakeup(), stopRequested: make(chan struct{}),
		attemptCtx: attemptCtx, abort: abort,
		schedule: newSchedule(limits{
			concurrency: cfg.Concurrency, endpointConcurrency: cfg.EndpointConcurrency,
			maxAttempts: cfg.MaxAttempts, backoff: cfg.Backoff,
		}),
	}
	s.numericID.Store(cfg.NumericID)
	s.now, s.visible, s.send, s.querySuccessor, s.arm = time.Now, cfg.Horizon.Visible, s.sendAttempt, s.findSuccessor, s.setTimer
	return s
}

func (s *Scheduler) attempt(d *delivery) post.Outcome {
	if d.hook.targetErr != nil {
		return post.Misconfigured(d.hook.targetErr, time.Now())
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

// sendAttempt makes an attempt in a goroutine of its own.
func (s *Scheduler) sendAttempt(d *delivery, unhealthy bool) {
	s.attempts.Add(1)
	go func() {
		defer s.attempts.Done()
		o := s.attemptTraced(d)
		r, was, is := s.attemptEnded(d, o, unhealthy)
		if o.Kind != post.Aborted {
			s.reportAttempt(d, r, was, is)
		}
	}()
}

// reportAttempt reports an attempt to Observe and the log.
func (s *Scheduler) reportAttempt(d *delivery, r result, was, is bool) {
	o := r.outcome
	s.cfg.Observe(Attempted{
		Outcome: o, Final: r.final, Test: d.kind == kindTest, First: d.attempts == 0, SinceCommit: r.at.Sub(d.committedAt),
	})
	s.logAttempt(d, r)
	switch {
	case is && !was:
		s.cfg.Log.Warn("endpoint failing; its deliveries wait",
			"host", d.hook.displayURL(), "failures", failingAfter, "error", o.Error)
	case was && !is:
		s.cfg.Log.Info("endpoint works again", "host", d.hook.displayURL())
	}
}

// logAttempt logs an attempt: a warning if the delivery has failed for good, and a debug message otherwise.
func (s *Scheduler) logAttempt(d *delivery, r result) {
	level := slog.LevelDebug
	if r.final && r.outcome.Kind != post.Success {
		level = slog.LevelWarn
	}
	if !s.cfg.Log.Enabled(context.Background(), level) {
		return
	}
	s.cfg.Log.Log(context.Background(), level, "attempt",
		"delivery_id", d.id, "webhook_id", d.webhookID, "message_id", d.messageID(), "response_id", d.responseID,
		"event_type", d.event.String(), "attempt", d.attempts+1,
		"host", d.hook.displayURL(), "outcome", r.outcome.Kind.String(), "final", r.final, "http_status", r.outcome.HTTPStatus,
		"error", r.outcome.Error, "duration_ms", r.outcome.Duration.Milliseconds(), "next_in", r.delay.Round(time.Millisecond))
}

func (s *Scheduler) setTimer(e *endpoint, in time.Duration) {
	if e.timer != nil {
		e.timer.Stop()
	}
	if in >= 0 {
		e.timer = time.AfterFunc(in, func() { s.timerFired(e) })
	}
}
