package dispatch

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
	kindStream int16 = iota
	kindRecovered
	kindTest
	kindManual
)

// delivery is a pending delivery that this process holds in memory: it will send it, and nobody else will.
type delivery struct {
	edition     int64  // of its webhook, as the store had it when the delivery was read
	origin      string // what its webhook-id is made from
	id          int64
	webhookID   int64
	responseID  string
	lsn         pglogrepl.LSN
	ordinal     int64
	xid         int64
	committedAt time.Time
	attempts    int // made before
	event       cdc.EventType
	kind        int16
	wasDue      bool // found among those that are due
	hook        *webhook
	endpoint    *endpoint
	generation  int                // of its endpoint's memory
	line        *line              // that it is the head of; nil: none
	queuedBy    *trace.SpanContext // of the store transaction that queued it; nil: none, or it is not known here
}

// ordered reports whether the delivery keeps its place among those about its response.
func (d *delivery) ordered() bool { return d.hook.ordered && d.kind != kindTest }

const (
	// failingAfter is how many failures in a row make an endpoint a failing one.
	failingAfter = 5

	// window is how many deliveries of one endpoint are held in memory at most. Endpoints that hold some share crowded ones,
	// but each may have a chunk, for less is not worth a look into the store. Only while all together hold crowded ones, each
	// has to do with narrow.
	window  = 2048
	chunk   = 32
	narrow  = 2
	crowded = 1 << 12

	// probes is how many deliveries that are due again may be held at least, beside all others, while there is no crowd.
	probes = 16

	// slowAfter is how long an endpoint in use may answer nothing before it counts as one in trouble.
	slowAfter = time.Second

	// duePause is the wait before looking again for deliveries that are due and could not be loaded.
	duePause = 100 * time.Millisecond

	// probeInterval is the longest that a failing endpoint is left in peace while something waits for it.
	probeInterval = 5 * time.Minute
)

// endpoint is what this process knows of one URL. The Scheduler's mutex guards it.
//
// While it is owned, no other daemon sends to it. Never-tried deliveries come in the order of their ids: up to cursor each
// was held, or lies behind an earlier one about the same response; after it, more tells that the store may have others.
type endpoint struct {
	id      int64
	hooks   []*webhook
	edition int64 // of hooks

	owned    bool
	leaving  bool // to be released as soon as nothing is in flight or unrecorded
	moving   bool // a webhook has come here, and what is in flight at its URL before has not ended
	queued   bool // in the ring of endpoints that may have something to send
	loading  bool
	missed   bool // something was offered and not held since the store was last looked at
	more     bool
	later    bool // the next look waits for dueAt; missed is set as well
	troubled bool // the store has failures > 0

	parked [reasons]bool // among those that were turned away, by what for

	generation int // of what is held: forget begins a new one
	held       map[int64]struct{}
	memory     *memory
	flying     map[int64]*delivery // in flight or unrecorded; all of them are held
	due        []*delivery         // ready: tests first, then those tried before, then those redelivered by hand
	fresh      []*delivery         // ready: never tried
	pickedDue  bool                // the last attempt was for one of due
	lines      map[string]*line
	cursor     int64
	ended      map[int64]bool // what was attempted and recorded while loading: whether it ended
	aside      map[int64]int  // webhooks whose results wait for somebody's lock, and how many do

	inFlight int
	waiting  int       // tried and failed, due later: as far as is known
	dueAt    time.Time // when something must be loaded again
	wakeAt   time.Time // when timer fires; zero: it does not
	timer    *time.Timer

	failures    int // in a row
	limit       int // attempts in flight allowed by slow start: one until the first success, and twice as many with each
	notBefore   time.Time
	latest      latest            // attempts
	byWebhook   map[int64]*latest // the same for each webhook, while anything is in flight or unrecorded
	lastAttempt time.Time
	quietSince  time.Time // the last answer, or the attempt that was begun while none was in flight
	lastError   string
}

// memory is what all endpoints of a process share.
type memory struct {
	held   int // deliveries, at all of them
	busy   int // endpoints that hold some
	window int // how many one of them may hold while it does well
}

func newEndpoint(id int64, m *memory) *endpoint {
	return &endpoint{id: id, memory: m, limit: 1, more: true}
}

// put and drop let a map exist only while something is in it: most endpoints are idle most of the time.
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

// failing reports whether the endpoint answers nothing at the moment.
func (e *endpoint) failing() bool { return e.failures >= failingAfter }

// troublesome reports whether the endpoint fails, or lets its attempts wait.
func (e *endpoint) troublesome(now time.Time) bool {
	return e.failures > 0 || e.inFlight > 0 && now.Sub(e.quietSince) > slowAfter
}

// ordered returns the ids of the webhooks that keep the order.
func (e *endpoint) ordered() []int64 {
	ids := make([]int64, 0, len(e.hooks))
	for _, h := range e.hooks {
		if h.enabled && h.ordered {
			ids = append(ids, h.id)
		}
	}
	return ids
}

// waits reports whether nothing may be sent for the webhook now, nor what stands behind its deliveries.
func (e *endpoint) waits(h *webhook) bool { return h.moving() || e.aside[h.id] > 0 }

// freed takes it that a result of the webhook waits no longer, and reports whether none does.
func (e *endpoint) freed(webhookID int64) bool {
	if n := e.aside[webhookID]; n > 1 {
		e.aside[webhookID] = n - 1
		return false
	}
	drop(&e.aside, webhookID)
	return true
}

// sends reports whether something is in flight or unrecorded for the webhook.
func (e *endpoint) sends(webhookID int64) bool {
	for _, d := range e.flying {
		if d.webhookID == webhookID {
			return true
		}
	}
	return false
}

// handOver offers a delivery that was queued a moment ago. It reports whether the delivery is now held; if not, it will be
// loaded from the store in its turn.
func (e *endpoint) handOver(d *delivery) bool {
	if d.id <= e.cursor || !d.hook.enabled {
		return false // a look into the store, or at the webhooks, was faster
	}
	if e.more || e.moving || len(e.aside) > 0 || e.loading || e.waiting > 0 || !e.dueAt.IsZero() || e.room() <= 0 {
		return false
	}
	e.hold(d)
	e.cursor = d.id
	return true
}

// lookLater lets the next look wait: the last one failed, or counts for nothing.
func (e *endpoint) lookLater(now time.Time) {
	e.missed, e.later, e.dueAt = true, true, now.Add(time.Second)
}

func (e *endpoint) hold(d *delivery) {
	if len(e.held) == 0 {
		e.memory.busy++
	}
	put(&e.held, d.id, struct{}{})
	e.memory.held++
	d.generation = e.generation
}

// letGo is the reverse of hold.
func (e *endpoint) letGo(id int64) {
	if _, held := e.held[id]; held {
		drop(&e.held, id)
		e.memory.held--
		if len(e.held) == 0 {
			e.memory.busy--
		}
	}
}

// ready takes a delivery that nothing keeps from being attempted.
func (e *endpoint) ready(d *delivery) {
	switch {
	case d.kind == kindTest: // somebody waits for the answer
		e.due = slices.Insert(e.due, 0, d)
	case d.kind == kindManual:
		e.due = append(e.due, d)
	case d.attempts > 0: // before redeliveries, of which there may be many
		at := slices.IndexFunc(e.due, func(d *delivery) bool { return d.kind == kindManual })
		if at < 0 {
			at = len(e.due)
		}
		e.due = slices.Insert(e.due, at, d)
	default:
		e.fresh = append(e.fresh, d)
	}
}

// pick returns the delivery to attempt next, nil where there is none that may be. of is the limit for one URL. Due and fresh deliveries take
// turns, so that neither waits behind a backlog of the other; while the endpoint fails, due ones serve as probes and come first.
func (e *endpoint) pick(now time.Time, of int) *delivery {
	if !e.owned || e.leaving || now.Before(e.notBefore) || e.inFlight >= min(e.limit, of) || e.failing() && e.inFlight > 0 {
		return nil
	}
	// While nothing gets through, hardly any other than those that have been tried is added.
	admit := !e.failing() || e.waiting < of || now.Sub(e.lastAttempt) >= probeInterval
	if !e.pickedDue || e.failing() {
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

func (e *endpoint) pickDue(admit bool) *delivery {
	for i, d := range e.due {
		if d.attempts > 0 || d.kind == kindTest || admit {
			e.due = append(e.due[:i], e.due[i+1:]...)
			e.pickedDue = true
			return d
		}
	}
	return nil
}

func (e *endpoint) pickFresh(admit bool) *delivery {
	if len(e.fresh) == 0 || !admit {
		return nil
	}
	d := e.fresh[0]
	e.fresh[0] = nil
	e.fresh = e.fresh[1:]
	e.pickedDue = false
	return d
}

// answered takes the outcome of an attempt into account, before it is recorded.
func (e *endpoint) answered(d *delivery, o post.Outcome, now time.Time, of int) {
	if o.Kind == post.Aborted {
		return
	}
	e.lastAttempt, e.quietSince = now, now
	counts := e.latest.ended(o)
	switch {
	case o.Kind == post.Success && counts:
		if e.failures > 0 {
			// The gate opens by one, and further with each success.
			e.limit = 1
		}
		e.failures = 0
		e.limit = min(e.limit*2, of)
	case o.Kind != post.Success:
		if counts {
			e.failures++
			if e.failures == failingAfter {
				e.forget() // what is held would only wait
			}
		}
		if e.failing() || o.SlowEndpoint {
			e.limit = 1
		}
		if o.RetryAfter > 0 {
			e.notBefore = later(e.notBefore, now.Add(o.RetryAfter))
		}
	}
	hook := e.byWebhook[d.webhookID]
	if hook == nil {
		hook = &latest{}
		put(&e.byWebhook, d.webhookID, hook)
	}
	hook.ended(o)
}

// reset forgets the endpoint's failures: an administrator has enabled a webhook again.
func (e *endpoint) reset(now time.Time) {
	e.failures, e.notBefore = 0, time.Time{}
	e.latest.succeeded = now // what is in flight does not count either
}

// finished takes a recorded end into account: of the delivery, or of this attempt with more to come. It returns the delivery
// that goes on in its place, or the line whose next one must be looked up in the store.
func (e *endpoint) finished(d *delivery, final bool) (next *delivery, lookUp *line) {
	e.letGo(d.id)
	drop(&e.flying, d.id)
	if len(e.flying) == 0 {
		e.byWebhook = nil
	}
	if e.loading {
		// What is being loaded may show it as it was before.
		put(&e.ended, d.id, final)
		e.missed = e.missed || !final
	}
	switch {
	case final && d.attempts > 0:
		e.waiting = max(e.waiting-1, 0)
	case !final && d.attempts == 0:
		e.waiting++
	}
	return e.advance(d, final)
}

// forget drops everything from memory that is not in flight or unrecorded, to be loaded again from the store.
func (e *endpoint) forget() {
	e.generation++
	e.due, e.fresh = nil, nil
	e.memory.held += len(e.flying) - len(e.held)
	if len(e.held) > 0 && len(e.flying) == 0 {
		e.memory.busy--
	}
	e.held = nil
	for id := range e.flying {
		put(&e.held, id, struct{}{})
	}
	e.redraw()
	e.cursor, e.more, e.missed = 0, true, true
}

// width is how many deliveries may be held: few while they would only wait, or while all endpoints together hold many.
func (e *endpoint) width() int {
	if e.failing() || e.memory.held >= crowded {
		return narrow
	}
	return min(max(crowded/max(e.memory.busy, 1), chunk), e.memory.window)
}

// room is how many more deliveries may be held that were never tried.
func (e *endpoint) room() int { return max(e.width()-len(e.held), 0) }

// roomDue is the same for those that are due: at most half, so that fresh ones have the rest; and what was never tried and waits must not keep
// the probes out.
func (e *endpoint) roomDue() int {
	least := probes
	if e.memory.held >= crowded {
		least = narrow
	}
	return max(min(e.room(), e.width()/2-len(e.due)), least-len(e.due), 0)
}

// full reports whether nothing more may be held.
func (e *endpoint) full() bool { return e.room() <= 0 && e.roomDue() <= 0 }

// lowDue reports whether it is time to load more that is due.
func (e *endpoint) lowDue() bool { return len(e.due) <= e.width()/4 }

// low reports whether it is time to load more.
func (e *endpoint) low() bool { return e.more && !e.later && len(e.held) < e.width()/2 }

// integrate takes what a look into the store brought. admit lets a delivery that is now held pass on.
func (e *endpoint) integrate(l *look, now time.Time, admit func(*delivery)) {
	take := func(d *delivery) {
		_, twice := e.held[d.id]
		_, over := e.ended[d.id]
		if !twice && !over {
			e.hold(d)
			admit(d)
		}
	}
	for _, d := range l.tests {
		take(d)
	}
	for _, d := range l.due {
		d.wasDue = true
		take(d)
	}
	unheld := func(id int64) bool {
		_, held := e.held[id]
		return id != 0 && !held && !e.ended[id]
	}
	last, others := map[string]int64{}, map[string][]int64{}
	for _, f := range l.fresh {
		e.cursor = max(e.cursor, f.id)
		if f.keeps {
			response := f.responseID
			if f.others != nil {
				others[response] = f.others
			}
			waits := unheld(last[response]) || slices.ContainsFunc(others[response], func(id int64) bool { return id < f.id && unheld(id) })
			last[response] = f.id
			if waits {
				if line := e.lines[response]; line != nil {
					line.viaStore, line.unheld = true, true
				}
				continue // found again when the earlier one has ended
			}
		}
		take(f.delivery)
	}
	e.more = e.missed || len(l.fresh) >= l.asked.Room
	e.waiting = l.waiting
	e.dueAt = l.dueAt
	if !e.dueAt.IsZero() && e.dueAt.Before(now) {
		// More is due than fits, or it stands behind something: look again soon, not at once.
		e.dueAt = now.Add(duePause)
	}
	e.ended = nil
}

// nextWake is when the endpoint must be looked at again though nothing happens; zero: never.
func (e *endpoint) nextWake(now time.Time) time.Time {
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
