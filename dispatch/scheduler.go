package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/trace"

	"walhook/cdc"
)

// Config is what a Scheduler needs. All fields but Tracer are required.
type Config struct {
	Original  *cdc.Original // whose deliveries are sent; nil: those of any store
	StoreURL  string
	NumericID bool // ResponseId is a JSON number

	Client              *Client
	Horizon             *cdc.Horizon
	Backoff             Backoff
	MaxAttempts         int
	Timeout             time.Duration // of one attempt: leases outlive it
	Concurrency         int
	EndpointConcurrency int
	DisableAfter        time.Duration // 0: never
	Retention           time.Duration // 0: for ever
	Version             string
	Observe             func(Attempted)    // called after each attempt; must not block
	Loaded              func(webhooks int) // called whenever the webhooks were loaded; must not block
	Log                 *slog.Logger

	Tracer trace.Tracer // takes a span of each attempt; nil: no traces
}

// Attempted is what is told of each attempt, for metrics.
type Attempted struct {
	Outcome     Outcome
	Final       bool
	Test        bool
	SinceCommit time.Duration // from the commit of the application's transaction to the answer
	First       bool
}

const (
	// unrecordedLimit is how many answers may wait to be recorded before no attempt is begun any more: all that is sent
	// again if the process dies now.
	unrecordedLimit = 2048

	// loaders is how many looks into the store there are at a time.
	loaders = 3

	// horizonPause is how long to wait before asking the source again whether a commit has become visible.
	horizonPauseMin = time.Millisecond
	horizonPauseMax = 100 * time.Millisecond
)

// Scheduler sends what is queued. It holds a bounded part of the queue in memory, decides what is attempted when, and records
// what came of it.
//
// One mutex guards all that is in memory; no query and no attempt is made under it.
type Scheduler struct {
	cfg  Config
	pool *pgxpool.Pool

	mu         sync.Mutex
	webhooks   *webhooks
	endpoints  map[int64]*endpoint
	ring       []*endpoint          // that may have something to send, in turn
	parked     [reasons][]*endpoint // that were turned away, by what for
	gated      []*delivery          // whose transaction the source cannot show yet
	results    []result
	troubled   map[*endpoint]struct{} // whose failures are to be written
	elsewhere  map[int64]struct{}     // endpoints of others for which something was queued
	memory     memory
	toLoad     []*endpoint   // in turn
	strangers  map[int64]int // webhooks that were not known as the store had them when something was queued: the number of the last such delivery
	came       int           // how many such deliveries have come so far
	inFlight   int
	inTroubled int // of those, at endpoints whose last attempt failed
	unrecorded int
	stopping   bool
	aliveUntil time.Time // no attempt may begin that could outlast the lease

	recorded   chan struct{} // capacity 1: results is not empty
	gate       chan struct{} // capacity 1: gated is not empty
	loadable   chan struct{} // capacity 1: toLoad is not empty
	foreseen   chan struct{} // capacity 1: deliveries are being queued, and their transactions will be asked for
	woken      chan struct{} // capacity 1: look for work in the store
	tell       chan struct{} // capacity 1: elsewhere is not empty
	sampled    atomic.Pointer[Sample]
	attempts   sync.WaitGroup
	lookups    sync.WaitGroup
	attemptCtx context.Context
	abort      context.CancelFunc
}

// NewScheduler returns a Scheduler that Run starts.
func NewScheduler(cfg Config) *Scheduler {
	attemptCtx, abort := context.WithCancel(context.Background())
	return &Scheduler{
		cfg: cfg, endpoints: map[int64]*endpoint{}, troubled: map[*endpoint]struct{}{}, elsewhere: map[int64]struct{}{}, strangers: map[int64]int{},
		webhooks: &webhooks{byID: map[int64]*webhook{}},
		recorded: make(chan struct{}, 1), gate: make(chan struct{}, 1), foreseen: make(chan struct{}, 1), woken: make(chan struct{}, 1),
		tell: make(chan struct{}, 1), loadable: make(chan struct{}, 1), memory: memory{window: window}, attemptCtx: attemptCtx, abort: abort,
	}
}

// handOver takes what this process's own stream has just queued. rest are webhooks for which the store has more, behind that, and urls
// all endpoints that any of it is for, with the edition of their webhooks then.
func (s *Scheduler) handOver(queued []*delivery, rest map[int64]struct{}, urls map[int64]int64) {
	s.mu.Lock()
	changed := false
	for _, d := range queued {
		adopted := s.adopt(d)
		switch known := s.greet(d.webhookID, d.endpoint, urls); {
		case !known || !adopted:
			changed = true
			if d.endpoint != nil {
				d.endpoint.miss()
				s.lacks(d.endpoint)
			}
		case d.endpoint.handOver(d):
			s.admit(d)
		default:
			s.lacks(d.endpoint)
		}
	}
	for id := range rest {
		var e *endpoint
		if hook := s.webhooks.byID[id]; hook != nil {
			e = s.endpoints[hook.endpointID]
			e.miss()
			s.lacks(e)
		}
		changed = !s.greet(id, e, urls) || changed
	}
	s.pump()
	s.mu.Unlock()
	if changed {
		s.wake()
	}
}

// greet reports whether a webhook of which a delivery was queued is known, with all others of its URL, as the store had them, and notes it as
// a stranger otherwise. An edit counts for every later transaction: what comes for a URL after one must not overtake what its webhooks
// have in the store.
func (s *Scheduler) greet(id int64, at *endpoint, urls map[int64]int64) (known bool) {
	if at != nil {
		if edition, queued := urls[at.id]; queued && edition == at.edition {
			return true
		}
	}
	s.came++
	s.strangers[id] = s.came
	return false
}

// meet is called when the webhooks are known as they were when so many strangers had come, or later. Now it is known whose their
// deliveries are.
func (s *Scheduler) meet(came int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, number := range s.strangers {
		if number > came {
			continue
		}
		delete(s.strangers, id)
		if hook := s.webhooks.byID[id]; hook != nil && !s.endpoints[hook.endpointID].owned {
			s.lacks(s.endpoints[hook.endpointID])
		}
	}
}

// outdated is called when the store has other webhooks of the endpoint's URL than are known, and deliveries of theirs may come first. Once
// they are loaded, what is pending is looked for anew.
func (s *Scheduler) outdated(e *endpoint) {
	e.lookLater(time.Now())
	s.rearm(e)
	s.wake()
}

// lacks is called when the store has something for an endpoint that is not held here: it is loaded, or its owner is told.
func (s *Scheduler) lacks(e *endpoint) {
	if e.owned {
		s.wantLoad(e)
		return
	}
	s.elsewhere[e.id] = struct{}{}
	signal(s.tell)
}

// doubt makes sure that what is queued from now on is not taken for the next of its endpoint before the store was looked at.
func (s *Scheduler) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		e.miss()
		s.wantLoad(e)
	}
}

// adopt finds the delivery's webhook and endpoint. It reports false where there is none, and while attempts at the URL that the webhook
// had before have not ended.
func (s *Scheduler) adopt(d *delivery) bool {
	d.hook = s.webhooks.byID[d.webhookID]
	if d.hook == nil {
		return false
	}
	d.endpoint = s.endpoints[d.hook.endpointID]
	return d.endpoint != nil && !d.hook.moving()
}

// current reports whether the webhook of a delivery that was found in the store for an endpoint is known as the store had it.
func (s *Scheduler) current(d *delivery, e *endpoint) bool {
	hook := s.webhooks.byID[d.webhookID]
	return hook != nil && hook.edition == d.edition && hook.endpointID == e.id
}

// allCurrent reports whether that is so for all that a look has found. One that is not would be overtaken by what stands behind it.
func (s *Scheduler) allCurrent(l *look) bool {
	for d := range l.found {
		if !s.current(d, l.endpoint) {
			return false
		}
	}
	return true
}

// admit takes a held delivery to its place.
func (s *Scheduler) admit(d *delivery) {
	if d.endpoint.enqueue(d) {
		s.pass(d)
	}
}

// pass makes a delivery ready once the source can show its transaction. Only what nothing else keeps back comes to this gate,
// so it knows no order.
func (s *Scheduler) pass(d *delivery) {
	if !s.cfg.Horizon.Visible(d.xid) {
		s.gated = append(s.gated, d)
		signal(s.gate)
		return
	}
	d.endpoint.ready(d)
	s.turn(d.endpoint)
}

// turn puts the endpoint into the ring of those that may have something to send.
func (s *Scheduler) turn(e *endpoint) {
	if !e.queued {
		e.queued = true
		s.ring = append(s.ring, e)
	}
}

// pump begins as many attempts as limits allow, one endpoint after the other.
func (s *Scheduler) pump() {
	if s.stopping || !s.webhooks.enabled {
		return
	}
	now := time.Now()
	for s.inFlight < s.cfg.Concurrency && s.unrecorded < unrecordedLimit {
		if now.After(s.aliveUntil) {
			return
		}
		if len(s.ring) == 0 {
			s.unpark()
		}
		if len(s.ring) == 0 {
			return
		}
		e := s.ring[0]
		s.ring[0] = nil
		s.ring = s.ring[1:]
		e.queued = false
		if why, turned := s.turnsAway(e, now); turned {
			s.park(e, why)
			continue
		}
		if d := e.pick(now, s.cfg.EndpointConcurrency); d != nil {
			s.begin(d, now)
			s.turn(e)
		}
		if e.low() {
			s.wantLoad(e)
		}
	}
}

// What an endpoint is turned away for, although attempts may be begun: room is kept for others. It waits until there is room of that kind.
const (
	// The last quarter of all attempts is for endpoints that have none in flight and were tried before: of those that never were, any
	// number may hang.
	lastQuarter = iota
	// Endpoints that fail or do not answer may not take more than half of all.
	halfForTroubled
	reasons
)

// roomFor reports whether there is room of the kind that an endpoint was turned away for.
func (s *Scheduler) roomFor(why int) bool {
	of := s.cfg.Concurrency
	if why == lastQuarter {
		return of == 1 || s.inFlight < of-max(of/4, 1)
	}
	return s.inTroubled < max(of/2, 1)
}

// turnsAway tells whether the endpoint may begin nothing, and what for.
func (s *Scheduler) turnsAway(e *endpoint, now time.Time) (why int, turned bool) {
	if (e.inFlight > 0 || e.lastAttempt.IsZero()) && !s.roomFor(lastQuarter) {
		return lastQuarter, true
	}
	return halfForTroubled, e.troublesome(now) && !s.roomFor(halfForTroubled)
}

func (s *Scheduler) park(e *endpoint, why int) {
	if !e.parked[why] {
		e.parked[why] = true
		s.parked[why] = append(s.parked[why], e)
	}
}

// unparkBatch is how many endpoints of each kind that were turned away get another turn with each answer.
const unparkBatch = 2

// unpark gives endpoints that were turned away another turn, as far as there is room.
func (s *Scheduler) unpark() {
	for why := range s.parked {
		if !s.roomFor(why) {
			continue
		}
		n := min(unparkBatch, len(s.parked[why]))
		for i, e := range s.parked[why][:n] {
			s.parked[why][i] = nil
			e.parked[why] = false
			s.turn(e)
		}
		s.parked[why] = s.parked[why][n:]
	}
}

// begin makes one attempt in a goroutine of its own.
func (s *Scheduler) begin(d *delivery, now time.Time) {
	e := d.endpoint
	if hook := s.webhooks.byID[d.webhookID]; hook != nil {
		d.hook = hook // with the secret of today
	}
	troubled := e.troublesome(now)
	if e.inFlight == 0 {
		e.quietSince = now
	}
	e.inFlight++
	s.inFlight++
	if troubled {
		s.inTroubled++
	}
	put(&e.flying, d.id, d)
	s.attempts.Add(1)
	go func() {
		defer s.attempts.Done()
		o := s.traced(d)
		s.answered(d, o, troubled)
	}()
}

func (s *Scheduler) attempt(d *delivery) Outcome {
	if d.hook.broken != nil {
		return Misconfigured(d.hook.broken, time.Now())
	}
	id := d.messageID()
	body := AppendBody(make([]byte, 0, 128), d.event.String(), d.committedAt, d.responseID, s.cfg.NumericID)
	return s.cfg.Client.Attempt(s.attemptCtx, Request{Target: d.hook.target, MessageID: id, Body: body})
}

func (d *delivery) messageID() string {
	if d.kind == kindTest || d.kind == kindManual {
		return ManualMessageID(d.origin, d.id)
	}
	return MessageID(d.origin, d.lsn, d.ordinal, d.event, d.webhookID)
}

// answered takes the outcome of an attempt: the endpoint's slot is free again, and the result goes to be recorded.
func (s *Scheduler) answered(d *delivery, o Outcome, troubled bool) {
	now := time.Now()
	r := s.decide(d, o, now)
	s.mu.Lock()
	e := d.endpoint
	e.inFlight--
	s.inFlight--
	if troubled {
		s.inTroubled--
	}
	if o.Kind == Aborted {
		drop(&e.flying, d.id)
		s.mu.Unlock()
		return
	}
	was := e.failing()
	e.answered(d, o, now, s.cfg.EndpointConcurrency)
	is, failures := e.failing(), e.failures
	if e.failures > 0 || e.troubled {
		e.lastError = o.Error
		s.troubled[e] = struct{}{}
	}
	s.results = append(s.results, r)
	s.unrecorded++
	s.turn(e)
	// Endpoints that were turned away get their turn before those that come from now on.
	s.unpark()
	s.pump()
	s.rearm(e)
	s.mu.Unlock()
	signal(s.recorded)
	s.cfg.Observe(Attempted{
		Outcome: o, Final: r.final, Test: d.kind == kindTest, First: d.attempts == 0, SinceCommit: now.Sub(d.committedAt),
	})
	s.logAttempt(d, r)
	switch {
	case is && !was:
		s.cfg.Log.Warn("an endpoint is failing; what goes there waits", "endpoint", d.hook.display(), "failures", failures, "error", o.Error)
	case was && !is:
		s.cfg.Log.Info("an endpoint works again", "endpoint", d.hook.display())
	}
}

// logAttempt writes the one line that tells all of an attempt: a warning where the delivery has failed for good, and else for those who
// debug.
func (s *Scheduler) logAttempt(d *delivery, r result) {
	level := slog.LevelDebug
	if r.final && r.outcome.Kind != Success {
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

// rearm sets the endpoint's timer to when it must be looked at again.
func (s *Scheduler) rearm(e *endpoint) {
	at := e.nextWake(time.Now())
	if at.Equal(e.wakeAt) {
		return
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	e.wakeAt = at
	if at.IsZero() || s.stopping {
		return
	}
	e.timer = time.AfterFunc(max(time.Until(at), 0), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		e.wakeAt = time.Time{}
		if !e.owned || s.stopping {
			return
		}
		if !e.dueAt.IsZero() && !time.Now().Before(e.dueAt) {
			e.dueAt = time.Time{}
			s.wantLoad(e)
		}
		s.turn(e)
		s.pump()
		s.rearm(e)
	})
}

// wantLoad sends the endpoint to a loader, unless one is at it.
func (s *Scheduler) wantLoad(e *endpoint) {
	if !e.owned || e.leaving || s.stopping {
		return
	}
	if e.loading {
		e.missed = true
		return
	}
	if e.roomDue() <= 0 {
		e.more = true // pump asks again when there is room
		return
	}
	e.loading, e.later = true, false
	s.toLoad = append(s.toLoad, e)
	signal(s.loadable)
}

// wake makes the scheduler look for changed webhooks and pending deliveries in the store.
func (s *Scheduler) wake() { signal(s.woken) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
