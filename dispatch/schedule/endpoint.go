package schedule

import (
	"slices"
	"time"

	"github.com/jackc/pglogrepl"
	"go.opentelemetry.io/otel/trace"

	"walhook/cdc"
	"walhook/dispatch/post"
)

// Kinds of deliveries, as walhook.queue.kind has them.
const (
	KindStream int16 = iota
	KindRecovered
	KindTest
	KindManual
)

// Delivery is a pending delivery that this process holds in memory. Only this process sends it.
type Delivery struct {
	Version     int64  // of its webhook, as the store had it when the delivery was read
	Origin      string // the part of its webhook-id that names the store; the whole of it if OriginIsID
	ID          int64
	WebhookID   int64
	ResponseID  string
	LSN         pglogrepl.LSN
	Ordinal     int64
	XID         int64
	CommittedAt time.Time
	Attempts    int // recorded before this one
	Event       cdc.EventType
	Kind        int16
	OriginIsID  bool // of a redelivery, which has the webhook-id of the first delivery
	loadedDue   bool // by FetchDue
	Hook        *Webhook
	endpoint    *Endpoint
	generation  int                // of its endpoint when it was held
	line        *line              // nil unless the delivery is a head of it
	QueuedBy    *trace.SpanContext // of the store transaction that queued it; nil: no trace, or queued by another process
}

// ordered reports whether the delivery keeps its place among those about its response.
func (d *Delivery) ordered() bool { return d.Hook.Ordered && d.Kind != KindTest }

const (
	// FailingAfter is how many failures in a row make an endpoint a failing one.
	FailingAfter = 5

	// crowdedAt deliveries are shared by the endpoints that hold some: each may hold its share, but at most maxWindow,
	// and at least minWindow, because a query for fewer is not worth its cost. Once all endpoints together hold
	// crowdedAt, each has narrowWindow only.
	maxWindow    = 2048
	minWindow    = 32
	narrowWindow = 2
	crowdedAt    = 1 << 12

	// minDueHeld is how many due deliveries may be held in any case while it is not crowded, so that probes get
	// through.
	minDueHeld = 16

	// slowAfter is how long an endpoint with attempts in flight may answer none before it counts as unhealthy.
	slowAfter = time.Second

	// dueRecheck is the delay before due deliveries are loaded that could not be loaded at once.
	dueRecheck = 100 * time.Millisecond

	// probeInterval is the longest time between attempts to a failing endpoint that has deliveries pending.
	probeInterval = 5 * time.Minute
)

// Endpoint is what this process knows of one URL. The schedule's mutex guards it.
type Endpoint struct {
	id      int64
	hooks   []*Webhook
	version int64 // of hooks

	state  state
	load   *Load // under way; nil unless loading or reloading
	queues uint8 // those that it is in

	generation    int // of what is held
	held          map[int64]struct{}
	memory        *memory
	active        map[int64]*Delivery // in flight or unrecorded; all of them are held
	due           []*Delivery         // ready: tests first, then retries, then manual redeliveries
	fresh         []*Delivery         // ready: never tried
	lastPickedDue bool                // the last attempt was for one of due
	lines         map[string]*line    // by response
	cursor        int64
	lockedResults map[int64]int // by webhook: results that wait because another transaction has locked their rows

	inFlight int
	retrying int       // deliveries that failed and are due later, as far as is known
	dueAt    time.Time // when to load again
	timerAt  time.Time // when its timer fires; zero: it is stopped

	failures         int // in a row
	failuresRecorded int // the same, as the store has it
	limit            int // attempts in flight that slow start allows: one until the first success, doubled by each
	notBefore        time.Time
	latest           latestAttempts
	byWebhook        map[int64]*latestAttempts // the same for each webhook, while anything is active
	lastAttempt      time.Time
	quietSince       time.Time // the last answer, or the start of an attempt when none was in flight
	lastError        string
}

// memory counts what all endpoints of a process hold.
type memory struct {
	held    int // deliveries
	holders int // endpoints that hold some
	window  int // the most that one of them may hold
}

func newEndpoint(id int64, m *memory) *Endpoint {
	return &Endpoint{id: id, memory: m, limit: 1}
}

// put and drop keep an empty map nil, because most endpoints are idle most of the time.
func put[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = value
}

func drop[K comparable, V any](m *map[K]V, key K) {
	delete(*m, key)
	if len(*m) == 0 {
		*m = nil
	}
}

// failing reports whether the endpoint has failed so often in a row that it only gets probes.
func (e *Endpoint) failing() bool { return e.failures >= FailingAfter }

// unhealthy reports whether the endpoint fails, or does not answer attempts in flight.
func (e *Endpoint) unhealthy(now time.Time) bool {
	return e.failures > 0 || e.inFlight > 0 && now.Sub(e.quietSince) > slowAfter
}

// ordered returns the ids of the enabled webhooks that keep the order.
func (e *Endpoint) ordered() []int64 {
	ids := make([]int64, 0, len(e.hooks))
	for _, h := range e.hooks {
		if h.Enabled && h.Ordered {
			ids = append(ids, h.ID)
		}
	}
	return ids
}

// blocked reports whether nothing may be sent for the webhook now, nor anything behind its deliveries.
func (e *Endpoint) blocked(h *Webhook) bool { return h.Moving() || e.lockedResults[h.ID] > 0 }

// lockedResultRecorded counts a locked result of the webhook as recorded, and reports whether it was the last.
func (e *Endpoint) lockedResultRecorded(webhookID int64) bool {
	if n := e.lockedResults[webhookID]; n > 1 {
		e.lockedResults[webhookID] = n - 1
		return false
	}
	drop(&e.lockedResults, webhookID)
	return true
}

// hasActive reports whether an attempt for the webhook is in flight or unrecorded.
func (e *Endpoint) hasActive(webhookID int64) bool {
	for _, d := range e.active {
		if d.WebhookID == webhookID {
			return true
		}
	}
	return false
}

// tryHold offers a delivery that was committed a moment ago. It reports whether the delivery is now held. If not, it
// will be loaded from the store.
func (e *Endpoint) tryHold(d *Delivery) bool {
	if d.ID <= e.cursor || !d.Hook.Enabled {
		return false // it was loaded before it was offered, or its webhook was disabled since
	}
	if e.state != complete || e.retrying > 0 || !e.dueAt.IsZero() || e.room() <= 0 ||
		len(e.lockedResults) > 0 || slices.ContainsFunc(e.hooks, (*Webhook).Moving) {
		return false
	}
	e.hold(d)
	e.cursor = d.ID
	return true
}

func (e *Endpoint) hold(d *Delivery) {
	if len(e.held) == 0 {
		e.memory.holders++
	}
	put(&e.held, d.ID, struct{}{})
	e.memory.held++
	d.generation = e.generation
}

// unhold is the reverse of hold.
func (e *Endpoint) unhold(id int64) {
	if _, held := e.held[id]; held {
		drop(&e.held, id)
		e.memory.held--
		if len(e.held) == 0 {
			e.memory.holders--
		}
	}
}

// makeReady takes a delivery that may be attempted as soon as its endpoint has room.
func (e *Endpoint) makeReady(d *Delivery) {
	switch {
	case d.Kind == KindTest: // an administrator waits for the answer
		e.due = slices.Insert(e.due, 0, d)
	case d.Kind == KindManual:
		e.due = append(e.due, d)
	case d.Attempts > 0: // before manual redeliveries, of which there may be many
		at := slices.IndexFunc(e.due, func(d *Delivery) bool { return d.Kind == KindManual })
		if at < 0 {
			at = len(e.due)
		}
		e.due = slices.Insert(e.due, at, d)
	default:
		e.fresh = append(e.fresh, d)
	}
}

// pick returns the delivery to attempt next, or nil. of is the limit of attempts in flight to one URL. Due and fresh
// deliveries alternate, so that neither waits behind a backlog of the other. While the endpoint is failing, due ones go
// first, as probes, and hardly any never-tried delivery joins them.
func (e *Endpoint) pick(now time.Time, of int) *Delivery {
	admit := !e.failing() || e.retrying < of || now.Sub(e.lastAttempt) >= probeInterval
	if !e.lastPickedDue || e.failing() {
		if d := e.pickDue(admit); d != nil {
			return d
		}
		return e.pickFresh(admit)
	}
	if d := e.pickFresh(admit); d != nil {
		return d
	}
	return e.pickDue(admit)
}

func (e *Endpoint) pickDue(admit bool) *Delivery {
	for i, d := range e.due {
		if d.Attempts > 0 || d.Kind == KindTest || admit {
			e.due = append(e.due[:i], e.due[i+1:]...)
			e.lastPickedDue = true
			return d
		}
	}
	return nil
}

func (e *Endpoint) pickFresh(admit bool) *Delivery {
	if len(e.fresh) == 0 || !admit {
		return nil
	}
	d := e.fresh[0]
	e.fresh[0] = nil
	e.fresh = e.fresh[1:]
	e.lastPickedDue = false
	return d
}

// attemptEnded takes the outcome of an attempt, before it is recorded.
func (e *Endpoint) attemptEnded(d *Delivery, o post.Outcome, now time.Time, of int) {
	if o.Kind == post.Aborted {
		return
	}
	e.lastAttempt, e.quietSince = now, now
	counts := e.latest.observe(o)
	switch {
	case o.Kind == post.Success && counts:
		if e.failures > 0 {
			// Slow start begins again.
			e.limit = 1
		}
		e.failures = 0
		e.limit = min(e.limit*2, of)
	case o.Kind != post.Success:
		if counts {
			e.failures++
			if e.failures == FailingAfter {
				e.invalidate() // the window has shrunk: what is held would only wait
			}
		}
		if e.failing() || o.SlowEndpoint {
			e.limit = 1
		}
		if o.RetryAfter > 0 {
			e.notBefore = later(e.notBefore, now.Add(o.RetryAfter))
		}
	}
	hook := e.byWebhook[d.WebhookID]
	if hook == nil {
		hook = &latestAttempts{}
		put(&e.byWebhook, d.WebhookID, hook)
	}
	hook.observe(o)
}

// reset clears the endpoint's failures, because an administrator has enabled a webhook again.
func (e *Endpoint) reset(now time.Time) {
	e.failures, e.notBefore = 0, time.Time{}
	e.latest.succeeded = now // failures of attempts in flight do not count either
}

// resultRecorded releases a delivery whose result is in the store: it has ended (final), or is to be retried. It
// returns the new head of its line, or the line if its successor must be queried from the store.
func (e *Endpoint) resultRecorded(d *Delivery, final bool) (next *Delivery, query *line) {
	e.unhold(d.ID)
	drop(&e.active, d.ID)
	if len(e.active) == 0 {
		e.byWebhook = nil
	}
	if e.load != nil {
		// The query under way may return it as it was before.
		put(&e.load.recorded, d.ID, final)
		if !final {
			e.on(moreStored)
		}
	}
	switch {
	case final && d.Attempts > 0:
		e.retrying = max(e.retrying-1, 0)
	case !final && d.Attempts == 0:
		e.retrying++
	}
	return e.advance(d, final)
}

// invalidate drops everything that is not active from memory, to be loaded again. Use it whenever something has changed
// that the order of deliveries depends on, such as a webhook.
func (e *Endpoint) invalidate() {
	e.on(invalidated)
	e.generation++
	e.due, e.fresh, e.cursor = nil, nil, 0
	e.memory.held += len(e.active) - len(e.held)
	if len(e.held) > 0 && len(e.active) == 0 {
		e.memory.holders--
	}
	e.held = nil
	for id := range e.active {
		put(&e.held, id, struct{}{})
	}
	e.rebuildLines()
}

// window is how many deliveries may be held: few while they would only wait, or while all endpoints together hold many.
func (e *Endpoint) window() int {
	if e.failing() || e.memory.held >= crowdedAt {
		return narrowWindow
	}
	return min(max(crowdedAt/max(e.memory.holders, 1), minWindow), e.memory.window)
}

// room is how many more never-tried deliveries may be held.
func (e *Endpoint) room() int { return max(e.window()-len(e.held), 0) }

// roomDue is how many more due deliveries may be held. They fill at most half of the window, so that fresh ones fit as
// well, but may always reach a minimum, so that fresh deliveries that wait cannot keep out the probes.
func (e *Endpoint) roomDue() int {
	least := minDueHeld
	if e.memory.held >= crowdedAt {
		least = narrowWindow
	}
	return max(min(e.room(), e.window()/2-len(e.due)), least-len(e.due), 0)
}

// full reports whether nothing more may be held.
func (e *Endpoint) full() bool { return e.room() <= 0 && e.roomDue() <= 0 }

// runningLowDue reports whether it is time to load more due deliveries.
func (e *Endpoint) runningLowDue() bool { return len(e.due) <= e.window()/4 }

// runningLow reports whether it is time to load more deliveries.
func (e *Endpoint) runningLow() bool {
	return (e.state == claimed || e.state == incomplete) && len(e.held) < e.window()/2
}

// applyLoad takes the deliveries that a load has found. admit makes a held delivery ready, or queues it in its line.
func (e *Endpoint) applyLoad(l *Load, now time.Time, admit func(*Delivery)) {
	if len(l.Fresh) < int(l.Asked.Room) {
		e.on(foundAll)
	} else {
		e.on(foundPart)
	}
	take := func(d *Delivery) {
		_, held := e.held[d.ID]
		_, recorded := l.recorded[d.ID]
		if !held && !recorded {
			e.hold(d)
			admit(d)
		}
	}
	for _, d := range l.Tests {
		take(d)
	}
	for _, d := range l.Due {
		d.loadedDue = true
		take(d)
	}
	unheld := func(id int64) bool {
		_, held := e.held[id]
		return id != 0 && !held && !l.recorded[id]
	}
	last, others := map[string]int64{}, map[string][]int64{}
	for _, f := range l.Fresh {
		e.cursor = max(e.cursor, f.ID)
		if f.KeepsOrder {
			response := f.ResponseID
			if f.Others != nil {
				others[response] = f.Others
			}
			behind := unheld(last[response]) ||
				slices.ContainsFunc(others[response], func(id int64) bool { return id < f.ID && unheld(id) })
			last[response] = f.ID
			if behind {
				if line := e.lines[response]; line != nil {
					line.successorInStore, line.othersInStore = true, true
				}
				continue // loaded again once the earlier one has ended
			}
		}
		take(f.Delivery)
	}
	e.retrying = l.Retrying
	e.dueAt = l.DueAt
	if !e.dueAt.IsZero() && e.dueAt.Before(now) {
		// More is due than fits, or it waits behind something: load again soon, but not at once.
		e.dueAt = now.Add(dueRecheck)
	}
}

// nextWake is when the endpoint may have something to do though nothing happens to it; zero: never.
func (e *Endpoint) nextWake(now time.Time) time.Time {
	at := e.dueAt
	sooner := func(t time.Time) {
		if t.After(now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	sooner(e.notBefore)
	if e.failing() {
		sooner(e.lastAttempt.Add(probeInterval))
	}
	return at
}
