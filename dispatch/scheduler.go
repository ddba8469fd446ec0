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
	"walhook/dispatch/schedule"
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

	// How far it is behind; nil if it does not read the slot.
	LagBytes   *int64   // between the reported end of WAL and the stored position
	LagSeconds *float64 // age of the oldest commit that was read and is not stored
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

	schedule *schedule.Schedule
	timers   map[*schedule.Endpoint]*time.Timer // guarded by the schedule's mutex
	rejected rejected

	horizonPrefetch schedule.Wakeup // for visibilityLoop: deliveries are being queued, and will need a new horizon
	sampled         atomic.Pointer[Sample]
	reader          atomic.Pointer[Reader] // another daemon that reads the slot; nil: none

	reportedReady atomic.Bool // the last heartbeat reported this daemon as ready

	health       health
	refusedAt    atomic.Pointer[time.Time] // when the log last refused results; nil: it takes them
	upkeepWanted schedule.Wakeup           // for upkeepLoop: the log has refused results

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
		cfg: cfg, horizonPrefetch: schedule.NewWakeup(), upkeepWanted: schedule.NewWakeup(), stopRequested: make(chan struct{}),
		attemptCtx: attemptCtx, abort: abort, timers: map[*schedule.Endpoint]*time.Timer{},
	}
	s.schedule = schedule.New(schedule.Limits{
		Concurrency: cfg.Concurrency, EndpointConcurrency: cfg.EndpointConcurrency,
		MaxAttempts: cfg.MaxAttempts, Backoff: cfg.Backoff,
	}, schedule.Actions{
		Now: time.Now, Visible: cfg.Horizon.Visible, Send: s.sendAttempt, QuerySuccessor: s.findSuccessor, Arm: s.setTimer,
	})
	s.numericID.Store(cfg.NumericID)
	return s
}

func (s *Scheduler) attempt(d *schedule.Delivery) post.Outcome {
	if d.Hook.TargetErr != nil {
		return post.Misconfigured(d.Hook.TargetErr, time.Now())
	}
	body := post.AppendBody(make([]byte, 0, 128), d.Event.String(), d.CommittedAt, d.ResponseID, s.numericID.Load())
	outcome := s.cfg.Client.Attempt(s.attemptCtx, post.Request{
		Target: d.Hook.Target, MessageID: messageID(d), Test: d.Kind == schedule.KindTest, Body: body,
	})
	outcome.Error = s.storable(outcome.Error)
	return outcome
}

func messageID(d *schedule.Delivery) string {
	switch {
	case d.OriginIsID:
		return d.Origin
	case d.Kind == schedule.KindTest || d.Kind == schedule.KindManual:
		return ManualMessageID(d.Origin, d.ID)
	}
	return MessageID(d.Origin, d.LSN, d.Ordinal, d.Event, d.WebhookID)
}

// sendAttempt makes an attempt in a goroutine of its own.
func (s *Scheduler) sendAttempt(d *schedule.Delivery, unhealthy bool) {
	s.attempts.Add(1)
	go func() {
		defer s.attempts.Done()
		o := s.attemptTraced(d)
		r, was, is := s.schedule.AttemptEnded(d, o, unhealthy)
		if o.Kind != post.Aborted {
			s.reportAttempt(d, r, was, is)
		}
	}()
}

// reportAttempt reports an attempt to Observe and the log.
func (s *Scheduler) reportAttempt(d *schedule.Delivery, r schedule.Result, was, is bool) {
	o := r.Outcome
	s.cfg.Observe(Attempted{
		Outcome: o, Final: r.Final, Test: d.Kind == schedule.KindTest, First: d.Attempts == 0, SinceCommit: r.At.Sub(d.CommittedAt),
	})
	s.logAttempt(d, r)
	switch {
	case is && !was:
		s.cfg.Log.Warn("endpoint failing; its deliveries wait",
			"host", d.Hook.DisplayURL(), "failures", schedule.FailingAfter, "error", o.Error)
	case was && !is:
		s.cfg.Log.Info("endpoint works again", "host", d.Hook.DisplayURL())
	}
}

// logAttempt logs an attempt: a warning if the delivery has failed for good, and a debug message otherwise.
func (s *Scheduler) logAttempt(d *schedule.Delivery, r schedule.Result) {
	level := slog.LevelDebug
	if r.Final && r.Outcome.Kind != post.Success {
		level = slog.LevelWarn
	}
	if !s.cfg.Log.Enabled(context.Background(), level) {
		return
	}
	s.cfg.Log.Log(context.Background(), level, "attempt",
		"delivery_id", d.ID, "webhook_id", d.WebhookID, "message_id", messageID(d), "response_id", d.ResponseID,
		"event_type", d.Event.String(), "attempt", d.Attempts+1,
		"host", d.Hook.DisplayURL(), "outcome", r.Outcome.Kind.String(), "final", r.Final, "http_status", r.Outcome.HTTPStatus,
		"error", r.Outcome.Error, "duration_ms", r.Outcome.Duration.Milliseconds(), "next_in", r.Delay.Round(time.Millisecond))
}

func (s *Scheduler) setTimer(e *schedule.Endpoint, in time.Duration) {
	if timer := s.timers[e]; timer != nil {
		timer.Stop()
		delete(s.timers, e)
	}
	if in >= 0 {
		s.timers[e] = time.AfterFunc(in, func() { s.schedule.TimerFired(e) })
	}
}
