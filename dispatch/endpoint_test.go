package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pendingRow is a row of the queue, as far as the senders care.
type pendingRow struct {
	id       int64
	response string
	hook     int64
	kind     int16
	attempts int
	due      time.Time // zero: never tried
	xid      int64
	edition  int64           // of its webhook when it was queued
	behind   map[int64]int64 // webhooks that kept the order then, with their editions
}

// bench stands for all that surrounds one endpoint: the store, the Scheduler's mutex sections, its loaders, look-ups, gate,
// recorder, timer and lease. Every section is one step, so that a test can run them in any order that could be. A query sees
// the store as it is at its own step, and its answer is used at a later one.
type bench struct {
	t     interface{ Fatalf(string, ...any) }
	e     *endpoint
	hooks map[int64]*webhook // as they are known
	store map[int64]*webhook // as they are
	now   time.Time
	trace []string

	rows    map[int64]*pendingRow
	nextID  int64
	visible int64 // transactions up to it are visible

	offered   []*delivery // committed, to be handed over
	offeredAt int64       // edition of the webhooks then
	offerOut  bool
	gated     []*delivery
	flight    []*delivery
	results   []result
	taken     []result // on their way into the store
	stored    bool     // of taken: the store has them
	lookups   []*lookup
	load      *loadStep
	find      *findStep
	woken     bool
	lookedAt  time.Time
	wakeAt    time.Time
	ring      bool
	sent      int
	started   map[int64]time.Time

	edited    int64
	reloading *reloadStep

	elsewhere int            // held by other endpoints
	ghosts    map[int64]bool // taken back by a crash of the store, and perhaps still held
	follow    map[int64]bool // what was found by a look-up, each in the place of one that had ended
}

type lookup struct {
	line    *line
	ordered []int64
	asked   bool
	next    *delivery
	due     bool
	stale   bool

	generation int
}

type loadStep struct {
	stage int
	*look
}

// reloadStep is how far the lease has got with loading the webhooks.
type reloadStep struct {
	loaded map[int64]*webhook
}

type findStep struct {
	stage  int
	cursor int64
	ids    []int64
	found  bool

	generation int
}

const (
	benchConcurrency = 8
	benchWindow      = 256
)

func newBench(t interface{ Fatalf(string, ...any) }, hooks ...*webhook) *bench {
	b := &bench{t: t, e: newEndpoint(1, &memory{window: benchWindow}), hooks: map[int64]*webhook{}, store: map[int64]*webhook{}, rows: map[int64]*pendingRow{}, now: time.Unix(1_800_000_000, 0)}
	for _, h := range hooks {
		b.hooks[h.id], b.store[h.id] = h, h
	}
	b.e.hooks = hooks
	b.claim()
	return b
}

func (b *bench) note(format string, args ...any) {
	b.trace = append(b.trace, fmt.Sprintf(format, args...))
}

func (b *bench) fail(format string, args ...any) {
	b.t.Fatalf("%s, after:\n  %s", fmt.Sprintf(format, args...), strings.Join(b.trace, "\n  "))
}

// What the store does.

func (b *bench) commit(count int, draw func(i int) (response string, hook int64), xid int64) {
	b.note("commit %d from id %d, transaction %d", count, b.nextID+1, xid)
	for i := range count {
		response, hook := draw(i)
		b.nextID++
		b.queue(response, hook, xid)
		b.note("  %d: response %s, webhook %d", b.nextID, response, hook)
	}
	b.offeredAt, b.offerOut = b.storedEdition(), true
}

func (b *bench) queue(response string, hook, xid int64) {
	r := &pendingRow{id: b.nextID, response: response, hook: hook, xid: xid, edition: b.store[hook].edition, behind: map[int64]int64{}}
	for id, h := range b.store {
		if h.enabled && h.ordered {
			r.behind[id] = h.edition
		}
	}
	b.rows[b.nextID] = r
	b.offered = append(b.offered, b.delivery(r))
}

// crash takes back what the store had not on disk: the last of what was queued, and nothing that was recorded or queued by hand, since such
// commits are waited for. The stream queues it anew.
func (b *bench) crash(last int) {
	var back []*pendingRow
	for id := b.nextID; id > 0 && len(back) < last; id-- {
		r := b.rows[id]
		if r == nil || r.attempts > 0 || !r.due.IsZero() {
			break
		}
		back = append(back, r)
	}
	slices.Reverse(back)
	b.note("crash: %d taken back", len(back))
	for _, r := range back {
		delete(b.rows, r.id)
		put(&b.ghosts, r.id, true)
	}
	b.offered, b.offerOut = nil, false // what was committed is found in the store
	b.woken = true
	b.e.miss()
	b.wantLoad()
	b.nextID += 1000
	for _, r := range back {
		b.nextID++
		b.queue(r.response, r.hook, r.xid)
		b.note("  %d: response %s, webhook %d, was %d", b.nextID, r.response, r.hook, r.id)
	}
	b.offeredAt, b.offerOut = b.storedEdition(), len(back) > 0
}

func (b *bench) byHand(response string, hook int64, kind int16) {
	b.nextID++
	b.note("by hand %d of kind %d: response %s, webhook %d", b.nextID, kind, response, hook)
	b.rows[b.nextID] = &pendingRow{id: b.nextID, response: response, hook: hook, kind: kind, due: b.now}
	b.woken = true
}

func (b *bench) delivery(r *pendingRow) *delivery {
	return &delivery{id: r.id, webhookID: r.hook, edition: b.store[r.hook].edition, responseID: r.response, xid: r.xid, attempts: r.attempts, kind: r.kind}
}

// edit inserts a webhook of the endpoint's URL, or changes one.
func (b *bench) edit(id int64, enabled, ordered bool) {
	b.note("in the store, webhook %d: enabled %v, ordered %v", id, enabled, ordered)
	b.edited++
	b.store[id] = &webhook{id: id, endpointID: 1, edition: b.edited, enabled: enabled, ordered: ordered}
}

// storedEdition is that of the webhooks that the endpoint's URL has in the store.
func (b *bench) storedEdition() int64 { return editionOf(slices.Collect(maps.Values(b.store))) }

// unknown reports whether something that matches is pending for webhooks that keep the order and are not among these.
func (b *bench) unknown(ordered []int64, match func(*pendingRow) bool) bool {
	for _, r := range b.rows {
		if h := b.store[r.hook]; h.enabled && h.ordered && !slices.Contains(ordered, r.hook) && match(r) {
			return true
		}
	}
	return false
}

// query returns the rows that match, in order, as a statement of the store would.
func (b *bench) query(limit int, match func(*pendingRow) bool, compare func(x, y *pendingRow) int) []*delivery {
	var rows []*pendingRow
	for _, r := range b.rows {
		if match(r) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, compare)
	var found []*delivery
	for _, r := range rows[:min(limit, len(rows))] {
		found = append(found, b.delivery(r))
	}
	return found
}

func byID(x, y *pendingRow) int { return int(x.id - y.id) }

func byDue(x, y *pendingRow) int {
	if c := x.due.Compare(y.due); c != 0 {
		return c
	}
	return byID(x, y)
}

// waits reports whether a delivery about the response of r is pending that stands before it.
func (b *bench) waits(r *pendingRow, ordered []int64) bool {
	if !slices.Contains(ordered, r.hook) || r.kind == kindTest {
		return false
	}
	for _, o := range b.rows {
		if o.response == r.response && o.id < r.id && slices.Contains(ordered, o.hook) && o.kind != kindTest {
			return true
		}
	}
	return false
}

// others returns what FetchFresh tells at the first delivery about a response.
func (b *bench) others(r *pendingRow, l *look) (ids []int64) {
	last := int64(0)
	for _, o := range b.rows {
		if o.response != r.response || !slices.Contains(l.asked.Ordered, o.hook) || o.kind == kindTest {
			continue
		}
		if o.id <= l.asked.After {
			last = max(last, o.id)
		} else if !o.due.IsZero() || slices.Contains(l.asked.Moving, o.hook) {
			ids = append(ids, o.id)
		}
	}
	if last > 0 {
		ids = append(ids, last)
	}
	return ids
}

// What the Scheduler does.

func (b *bench) adopt(d *delivery) bool {
	d.hook, d.endpoint = b.hooks[d.webhookID], b.e
	return d.hook != nil
}

func (b *bench) current(d *delivery) bool {
	hook := b.hooks[d.webhookID]
	return hook != nil && hook.edition == d.edition
}

func (b *bench) allCurrent(l *look) bool {
	for d := range l.found {
		if !b.current(d) {
			return false
		}
	}
	return true
}

func (b *bench) isVisible(xid int64) bool { return xid <= b.visible }

func (b *bench) admit(d *delivery) {
	if b.e.enqueue(d) {
		b.goOn(d)
	}
}

func (b *bench) goOn(d *delivery) {
	if !b.isVisible(d.xid) {
		b.gated = append(b.gated, d)
		return
	}
	b.e.ready(d)
	b.ring = true
}

func (b *bench) handOver() {
	b.note("hand over")
	for _, d := range b.offered {
		switch adopted := b.adopt(d); {
		case !adopted || b.offeredAt != b.e.edition:
			b.woken = true
			if d.hook != nil {
				b.e.miss()
				b.wantLoad()
			}
		case b.e.handOver(d):
			b.admit(d)
		default:
			b.wantLoad()
			b.woken = b.woken || !b.e.owned
		}
	}
	b.offered, b.offerOut = nil, false
	b.pump()
}

func (b *bench) wantLoad() {
	e := b.e
	if !e.owned || e.leaving {
		return
	}
	if e.loading {
		e.missed = true
		return
	}
	if e.roomDue() <= 0 {
		e.more = true
		return
	}
	e.loading, e.later = true, false
	e.ended = map[int64]bool{}
	b.load = &loadStep{}
}

func (b *bench) pump() {
	if !b.ring {
		return
	}
	b.ring = false
	for {
		d := b.e.pick(b.now, benchConcurrency)
		if d == nil {
			break
		}
		b.begin(d)
	}
	if b.e.low() {
		b.wantLoad()
	}
}

// begin starts an attempt, and holds it to the rules.
func (b *bench) begin(d *delivery) {
	e := b.e
	b.note("begin %d (response %s, attempt %d)", d.id, d.responseID, d.attempts+1)
	d.hook = b.hooks[d.webhookID]
	r := b.rows[d.id]
	if r == nil && b.ghosts[d.id] {
		r = &pendingRow{id: d.id, response: d.responseID, hook: d.webhookID, xid: d.xid}
	}
	switch {
	case r == nil:
		b.fail("%d is sent though it has ended", d.id)
	case r.attempts != d.attempts || e.flying[d.id] != nil:
		b.fail("%d is sent twice", d.id)
	case b.now.Before(e.notBefore):
		b.fail("%d is sent though the receiver asked for a pause", d.id)
	case e.inFlight >= min(benchConcurrency, e.limit):
		b.fail("%d is sent over the limit", d.id)
	case e.failing() && e.inFlight > 0:
		b.fail("%d is sent to a failing endpoint beside its probe", d.id)
	case !e.owned || e.leaving:
		b.fail("%d is sent by one who does not own the endpoint", d.id)
	case !d.hook.enabled && d.kind != kindTest:
		b.fail("%d of a disabled webhook is sent", d.id)
	case !b.isVisible(r.xid):
		b.fail("%d is sent before its transaction is visible", d.id)
	case d.hook.edition < r.edition:
		b.fail("%d is sent as its webhook was before an edit that counts for it", d.id)
	case r.due.After(b.now):
		b.fail("%d is sent before it is due", d.id)
	}
	if d.ordered() {
		ordered := e.ordered()
		// A redelivery by hand repeats an earlier commit: it is sent beside nothing, and its place is its own.
		for _, o := range b.rows {
			edition, keeps := r.behind[o.hook]
			unknown := keeps && edition == b.store[o.hook].edition // perhaps
			if o.id < r.id && o.response == r.response && o.kind < kindTest && (slices.Contains(ordered, o.hook) || unknown) {
				b.fail("%d is sent before %d about the same response has ended", d.id, o.id)
			}
		}
		for _, f := range e.flying {
			if f.responseID == d.responseID && f.kind != kindTest && b.hooks[f.webhookID].ordered {
				b.fail("%d is sent beside %d about the same response", d.id, f.id)
			}
		}
	}
	e.inFlight++
	put(&e.flying, d.id, d)
	b.flight = append(b.flight, d)
	put(&b.started, d.id, b.now)
	b.sent++
}

func (b *bench) answer(i int, o Outcome, final bool, delay time.Duration) {
	d := b.flight[i]
	b.flight = slices.Delete(b.flight, i, i+1)
	b.note("answer %d: %s, final %v", d.id, o.Kind, final)
	b.e.inFlight--
	o.Started = b.started[d.id]
	b.e.answered(d, o, b.now, benchConcurrency)
	b.results = append(b.results, result{d: d, outcome: o, at: b.now, final: final, delay: delay})
	b.ring = true
	b.pump()
	b.rearm()
}

// record moves results into the store, and at the next call lets go of them.
func (b *bench) record() {
	switch {
	case b.taken == nil:
		b.taken, b.results, b.stored = b.results, nil, false
	case !b.stored:
		missing := false
		for _, r := range b.taken {
			b.note("recorded %d", r.d.id)
			if r.final {
				delete(b.rows, r.d.id)
				continue
			}
			row := b.rows[r.d.id]
			if row == nil && b.ghosts[r.d.id] {
				missing = true
				continue
			}
			row.attempts++
			row.due, row.xid = b.now.Add(r.delay), 0
		}
		for i := range b.taken {
			b.taken[i].unknown = missing && !b.taken[i].final
		}
		b.stored = true
	default:
		for _, r := range b.taken {
			b.note("let go of %d", r.d.id)
			next, line := b.e.finished(r.d, r.final)
			if next != nil {
				b.goOn(next)
			}
			if line != nil {
				b.lookUp(line)
			}
			if r.unknown {
				b.e.forget()
				b.wantLoad()
			}
			if at := r.at.Add(r.delay); !r.final && (b.e.dueAt.IsZero() || at.Before(b.e.dueAt)) {
				b.e.dueAt = at
			}
			b.ring = true
			b.rearm()
			b.woken = b.woken || b.e.leaving && len(b.e.flying) == 0
		}
		b.taken = nil
		b.pump()
	}
}

func (b *bench) lookUp(l *line) {
	b.lookups = append(b.lookups, &lookup{line: l, ordered: b.e.ordered(), generation: b.e.generation})
}

func (b *bench) stepLookup(i int) {
	l := b.lookups[i]
	if !l.asked {
		l.asked = true
		if next := b.query(1, func(r *pendingRow) bool {
			return r.response == l.line.response && slices.Contains(l.ordered, r.hook) && r.kind != kindTest
		}, byID); len(next) > 0 {
			l.next, l.due = next[0], !b.rows[next[0].id].due.After(b.now)
			l.stale = b.unknown(l.ordered, func(r *pendingRow) bool {
				return r.response == l.line.response && r.id < next[0].id && r.kind != kindTest
			})
		}
		b.note("look-up of the next about response %s: %v", l.line.response, l.next != nil)
		return
	}
	b.lookups = slices.Delete(b.lookups, i, i+1)
	b.note("look-up of the next about response %s comes back", l.line.response)
	if l.generation != b.e.generation {
		return
	}
	if l.stale || l.next != nil && !b.current(l.next) {
		b.e.forget()
		b.outdated()
		return
	}
	if l.next != nil && !(l.due && b.adopt(l.next)) {
		l.next = nil
	}
	goes, again := b.e.succeeded(l.line, l.next)
	if goes {
		put(&b.follow, l.next.id, true)
		b.goOn(l.next)
		b.pump()
	}
	if again {
		b.lookUp(l.line)
	}
}

func (b *bench) stepLoad(broken bool) {
	l, e := b.load, b.e
	switch l.stage {
	case 0:
		l.look = e.look()
	case 1:
		l.tests = b.query(l.asked.RoomDue, func(r *pendingRow) bool {
			return r.kind == kindTest && slices.Contains(l.asked.Tests, r.hook) && !r.due.After(b.now) && !slices.Contains(l.asked.Held, r.id)
		}, byDue)
	case 2:
		l.due = b.query(l.asked.RoomDue, func(r *pendingRow) bool {
			return slices.Contains(l.asked.Enabled, r.hook) && !r.due.IsZero() && !r.due.After(b.now) && r.kind != kindTest &&
				!slices.Contains(l.asked.Held, r.id) && !b.waits(r, l.asked.Ordered)
		}, byDue)
	case 3:
		told := map[string]bool{}
		for _, d := range b.query(l.asked.Room, func(r *pendingRow) bool {
			return slices.Contains(l.asked.Enabled, r.hook) && r.due.IsZero() && r.id > l.asked.After
		}, byID) {
			f := fresh{delivery: d, keeps: l.asked.Keeps[slices.Index(l.asked.Enabled, d.webhookID)]}
			if f.keeps && !told[d.responseID] {
				told[d.responseID] = true
				f.others = b.others(b.rows[d.id], l.look)
			}
			l.fresh = append(l.fresh, f)
		}
	case 4:
		for _, r := range b.rows {
			if r.due.IsZero() {
				continue
			}
			enabled := slices.Contains(l.asked.Enabled, r.hook)
			if enabled && r.attempts > 0 {
				l.waiting++
			}
			if (enabled || r.kind == kindTest) && !slices.Contains(l.asked.Held, r.id) && (l.dueAt.IsZero() || r.due.Before(l.dueAt)) {
				l.dueAt = r.due
			}
		}
		l.stale = b.unknown(l.asked.Ordered, func(*pendingRow) bool { return true })
	default:
		b.note("loaded: %d tests, %d due, %d fresh, broken %v, stale %v", len(l.tests), len(l.due), len(l.fresh), broken, l.stale)
		e.loading = false
		b.load = nil
		switch {
		case broken:
			e.lookLater(b.now)
		case e.generation != l.generation || !e.owned:
			b.wantLoad()
		case l.stale || !b.allCurrent(l.look):
			b.outdated()
		default:
			e.integrate(l.look, b.now, func(d *delivery) {
				b.adopt(d)
				b.admit(d)
			})
			if e.low() {
				b.wantLoad()
			}
		}
		b.ring = true
		b.pump()
		b.rearm()
		return
	}
	l.stage++
}

func (b *bench) release() {
	b.note("transactions up to %d are visible", b.visible)
	kept := b.gated[:0]
	for _, d := range b.gated {
		switch {
		case d.generation != b.e.generation:
		case b.isVisible(d.xid):
			b.e.ready(d)
			b.ring = true
		default:
			kept = append(kept, d)
		}
	}
	b.gated = kept
	b.pump()
}

// outdated is called when what was found is not of the webhooks that are known.
func (b *bench) outdated() {
	b.e.lookLater(b.now)
	b.rearm()
	b.woken = true
}

// stepReload is the lease's look at the webhooks.
func (b *bench) stepReload() {
	r, e := b.reloading, b.e
	switch {
	case r == nil:
		b.reloading = &reloadStep{}
		return
	case r.loaded == nil:
		b.note("read the webhooks")
		r.loaded = maps.Clone(b.store)
		return
	}
	b.reloading = nil
	changed := len(r.loaded) != len(b.hooks)
	for id, h := range r.loaded {
		changed = changed || !h.same(b.hooks[id])
	}
	b.note("know the webhooks, changed %v", changed)
	if !changed {
		return
	}
	b.hooks = r.loaded
	e.hooks, e.edition = slices.SortedFunc(maps.Values(b.hooks), func(x, y *webhook) int { return int(x.id - y.id) }), editionOf(slices.Collect(maps.Values(b.hooks)))
	e.forget()
	b.wantLoad()
	b.ring = true
	b.pump()
}

// reload lets the webhooks be known as they are.
func (b *bench) reload() {
	for b.reloading != nil {
		b.stepReload()
	}
	for range 3 {
		b.stepReload()
	}
}

// toggle is an administrator's change of a webhook which is known at once.
func (b *bench) toggle(id int64, enabled, ordered bool) {
	b.edit(id, enabled, ordered)
	b.reload()
}

// share is a look of the lease at whose the endpoint is.
func (b *bench) share(mine bool) {
	e := b.e
	switch {
	case mine && !e.owned:
		b.claim()
	case mine && e.leaving:
		b.note("stay")
		e.leaving = false
		b.wantLoad()
	case !mine && e.owned:
		b.note("leave")
		if !e.leaving {
			e.leaving = true
			e.forget()
		}
		if len(e.flying) == 0 {
			e.owned, e.leaving = false, false
			e.forget()
		}
	}
}

func (b *bench) claim() {
	b.note("claim")
	b.e.owned = true
	b.e.forget()
	b.e.missed = false
	b.rearm()
	b.woken = true
}

func (b *bench) stepFind() {
	e := b.e
	if b.find == nil {
		b.woken, b.lookedAt = false, b.now
		if !e.owned || e.leaving || e.loading || e.roomDue() <= 0 {
			return
		}
		if e.more && e.missed {
			b.wantLoad()
			return
		}
		b.find = &findStep{cursor: e.cursor, generation: e.generation}
		for _, h := range e.hooks {
			b.find.ids = append(b.find.ids, h.id)
		}
		return
	}
	f := b.find
	if f.stage == 0 {
		for _, r := range b.rows {
			f.found = f.found || slices.Contains(f.ids, r.hook) && (!r.due.IsZero() || r.id > f.cursor)
		}
		f.stage = 1
		return
	}
	b.note("look for work: %v", f.found)
	b.find = nil
	switch {
	case f.found:
		b.wantLoad()
	case !e.owned || e.loading || e.generation != f.generation:
	case e.missed:
		b.wantLoad()
	default:
		e.more = e.more && (len(e.held) > 0 || e.cursor > 0)
	}
}

func (b *bench) rearm() { b.wakeAt = b.e.nextWake(b.now) }

// pass lets time pass, and the timer fire.
func (b *bench) pass(d time.Duration) {
	b.now = b.now.Add(d)
	if b.wakeAt.IsZero() || b.now.Before(b.wakeAt) {
		return
	}
	b.wakeAt = time.Time{}
	e := b.e
	if !e.owned {
		return
	}
	b.note("timer")
	if !e.dueAt.IsZero() && !b.now.Before(e.dueAt) {
		e.dueAt = time.Time{}
		b.wantLoad()
	}
	b.ring = true
	b.pump()
	b.rearm()
}

// check holds what is in memory to its invariants.
func (b *bench) check() {
	e := b.e
	places := map[int64]int{}
	for _, d := range e.due {
		places[d.id]++
	}
	for _, d := range e.fresh {
		places[d.id]++
	}
	for _, l := range e.lines {
		for _, d := range l.waiting {
			places[d.id]++
		}
	}
	for _, d := range b.gated {
		if d.generation == e.generation {
			places[d.id]++
		}
	}
	for id := range e.flying {
		places[id]++
	}
	for id, n := range places {
		if n > 1 {
			b.fail("%d is held in %d places", id, n)
		}
		if _, held := e.held[id]; !held {
			b.fail("%d is somewhere and not held", id)
		}
	}
	for id := range e.held {
		if places[id] == 0 {
			b.fail("%d is held and nowhere", id)
		}
	}
	if counted := e.memory.held - b.elsewhere; counted != len(e.held) {
		b.fail("%d are held, and %d counted", len(e.held), counted)
	}
	if busy := min(len(e.held), 1); e.memory.busy != busy {
		b.fail("%d are held, and %d endpoints counted", len(e.held), e.memory.busy)
	}
	most := benchWindow + probes
	if b.elsewhere > 0 {
		most = 2 * narrow
	}
	for id := range e.held {
		if b.follow[id] {
			most++
		}
	}
	if most += 3 * len(e.flying); len(e.held) > most {
		b.fail("%d are held, and %d is the most", len(e.held), most)
	}
	if e.inFlight < 0 || e.waiting < 0 || e.limit < 1 || e.limit > benchConcurrency {
		b.fail("%d in flight, %d waiting, limit %d", e.inFlight, e.waiting, e.limit)
	}
}

// settle lets everything go well until the store is empty, and fails when it never is.
func (b *bench) settle() {
	b.note("from here on all goes well")
	b.reload()
	for id, h := range b.hooks {
		if !h.enabled {
			b.toggle(id, true, h.ordered)
		}
	}
	for range 200_000 {
		b.check()
		switch {
		case b.offerOut:
			b.handOver()
		case b.load != nil:
			b.stepLoad(false)
		case b.find != nil:
			b.stepFind()
		case len(b.lookups) > 0:
			b.stepLookup(0)
		case len(b.gated) > 0 && b.visible < b.nextID:
			b.visible = 1 << 62
			b.release()
		case len(b.flight) > 0:
			b.answer(0, Outcome{Kind: Success}, true, 0)
		case b.taken != nil || len(b.results) > 0:
			b.record()
		case len(b.rows) == 0 && b.e.owned && !b.e.leaving:
			return
		case !b.e.owned || b.e.leaving:
			b.share(true)
		case b.woken || b.now.Sub(b.lookedAt) >= lookInterval:
			b.stepFind()
		default:
			b.visible = 1 << 62
			b.pass(50 * time.Millisecond)
		}
		if b.now.After(time.Unix(1_900_000_000, 0)) {
			break
		}
	}
	var left []int64
	for id := range b.rows {
		left = append(left, id)
	}
	slices.Sort(left)
	b.fail("never sent: %d", left)
}

// benchRules says which of the things that can happen a test lets happen.
type benchRules struct {
	hooks                                  []bool // ordered or not, for each webhook
	responses                              int
	fails, gate, toggles, leaves, handmade bool
	bursts, crowd, crashes, strangers      bool
}

func (rules benchRules) run(t *rapid.T) {
	var hooks []*webhook
	for i, ordered := range rules.hooks {
		hooks = append(hooks, &webhook{id: int64(i + 1), endpointID: 1, enabled: true, ordered: ordered})
	}
	b := newBench(t, hooks...)
	if rules.crowd {
		b.elsewhere = crowded
		b.e.memory.held += crowded
	}
	draw := func(name string, n int) int { return rapid.IntRange(0, n-1).Draw(t, name) }
	response := func() string { return fmt.Sprint(draw("response", rules.responses)) }
	hook := func() int64 { return int64(draw("webhook", len(b.store)) + 1) }
	xid := int64(0)
	if !rules.gate {
		b.visible = 1 << 62
	}
	for range rapid.IntRange(1, 80).Draw(t, "steps") {
		switch draw("step", 14) {
		case 0, 1:
			if b.offerOut {
				b.handOver()
				b.pump()
				break
			}
			count := 1 + draw("count", 3)
			if rules.bursts && draw("burst", 10) == 0 {
				count = benchWindow + draw("over", benchWindow)
			}
			burst := count > 3
			xid++
			b.commit(count, func(i int) (string, int64) {
				if burst {
					return fmt.Sprint(i % 97 % (40 * rules.responses)), int64(i%len(b.store) + 1)
				}
				return response(), hook()
			}, xid)
		case 2, 3:
			if b.load != nil {
				for n := 1 + draw("stages", 6); n > 0 && b.load != nil; n-- {
					b.stepLoad(rules.fails && b.load.stage == 5 && draw("broken", 8) == 0)
				}
			}
		case 4, 5, 6:
			if len(b.flight) > 0 {
				i := draw("answered", len(b.flight))
				o, final, delay := Outcome{Kind: Success}, true, time.Duration(0)
				if rules.fails && rapid.Bool().Draw(t, "fails") {
					o = Outcome{Kind: Retry, SlowEndpoint: draw("slow", 4) == 0}
					if draw("pause", 6) == 0 {
						o.RetryAfter = 3 * time.Second
					}
					if final = draw("last", 6) == 0; !final {
						delay = max(time.Duration(1+draw("delay", 5))*time.Second, o.RetryAfter)
					}
				}
				b.answer(i, o, final, delay)
			}
		case 7, 8:
			if b.taken != nil || len(b.results) > 0 {
				b.record()
			}
		case 9:
			if len(b.lookups) > 0 {
				b.stepLookup(draw("look-up", len(b.lookups)))
			}
		case 10:
			if b.reloading != nil || rules.strangers && b.woken && rapid.Bool().Draw(t, "reload") {
				b.stepReload()
			} else if b.find != nil || b.woken {
				b.stepFind()
			}
		case 11:
			b.pass([]time.Duration{time.Millisecond, 150 * time.Millisecond, time.Second, 4 * time.Second, probeInterval}[draw("time", 5)])
		case 12:
			if rules.gate && b.visible < xid {
				b.visible++
				b.release()
			}
		case 13:
			switch draw("seldom", 5) {
			case 0:
				if rules.toggles {
					id := hook()
					b.toggle(id, rapid.Bool().Draw(t, "enabled"), rapid.Bool().Draw(t, "ordered"))
				}
			case 1:
				if rules.leaves {
					b.share(rapid.Bool().Draw(t, "mine"))
				}
			case 2:
				if rules.handmade {
					b.byHand(response(), hook(), []int16{kindTest, kindManual}[draw("kind", 2)])
				}
			case 3:
				if rules.crashes {
					b.crash(1 + draw("taken back", 6))
				}
			case 4:
				if rules.strangers {
					b.edit(int64(draw("edited", len(b.store)+1)+1), draw("disabled", 4) > 0, draw("without order", 4) > 0)
				}
			}
		}
		b.pump()
		b.check()
	}
	b.settle()
}

func TestEndpointKeepsOrderAndLosesNothing(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]benchRules{
		"all goes well":                  {hooks: []bool{true}, responses: 2, bursts: true},
		"attempts fail":                  {hooks: []bool{true, true}, responses: 2, fails: true},
		"many endpoints hold much":       {hooks: []bool{true, false}, responses: 3, fails: true, bursts: true, crowd: true},
		"attempts fail in bursts":        {hooks: []bool{true, false}, responses: 3, fails: true, bursts: true},
		"commits become visible late":    {hooks: []bool{true}, responses: 2, gate: true},
		"late and failing":               {hooks: []bool{true, true}, responses: 2, gate: true, fails: true},
		"redelivered and tested by hand": {hooks: []bool{true, false}, responses: 2, fails: true, handmade: true},
		"webhooks change":                {hooks: []bool{true, true}, responses: 2, toggles: true},
		"webhooks change and fail":       {hooks: []bool{true, true}, responses: 2, toggles: true, fails: true},
		"endpoints move":                 {hooks: []bool{true}, responses: 2, leaves: true},
		"endpoints move and fail":        {hooks: []bool{true}, responses: 2, leaves: true, fails: true},
		"late and redelivered by hand":   {hooks: []bool{true, true}, responses: 2, gate: true, handmade: true},
		"webhooks come":                  {hooks: []bool{true}, responses: 2, strangers: true},
		"webhooks come and fail":         {hooks: []bool{true}, responses: 1, strangers: true, fails: true},
		"webhooks come, endpoints move":  {hooks: []bool{true}, responses: 2, strangers: true, fails: true, leaves: true, gate: true},
		"the store crashes":              {hooks: []bool{true, false}, responses: 2, crashes: true},
		"attempts fail and crashes":      {hooks: []bool{true, true}, responses: 2, fails: true, crashes: true},
		"everything but crashes":         {hooks: []bool{true, true, false}, responses: 3, fails: true, gate: true, toggles: true, leaves: true, handmade: true, strangers: true},
		"everything in bursts":           {hooks: []bool{true, true, false}, responses: 3, fails: true, gate: true, toggles: true, leaves: true, handmade: true, bursts: true, crashes: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, rules.run)
		})
	}
}

// What another daemon queued for a webhook that is not known yet comes first, also where the next of a response is looked up.
func TestNextIsNotTakenForAnotherOfAnUnknownWebhook(t *testing.T) {
	t.Parallel()
	b := newBench(t, &webhook{id: 1, endpointID: 1, enabled: true, ordered: true})
	b.visible = 1 << 62
	others := func(hooks ...int64) { // another daemon queues
		b.commit(len(hooks), func(i int) (string, int64) { return "7", hooks[i] }, 1)
		b.offered, b.offerOut, b.woken = nil, false, true
	}
	flies := func() bool { return len(b.flight) > 0 }
	until := func(reached func() bool) {
		t.Helper()
		for range 1000 {
			switch {
			case reached():
				return
			case b.taken != nil, len(b.results) > 0:
				b.record()
			case b.load != nil:
				b.stepLoad(false)
			case b.find != nil, b.woken:
				b.stepFind()
			default:
				b.pass(100 * time.Millisecond)
			}
		}
		b.fail("never reached")
	}
	others(1)
	until(flies)
	b.answer(0, Outcome{Kind: Retry}, false, time.Second)
	until(flies)
	b.edit(2, true, true)
	others(2, 1)
	b.answer(0, Outcome{Kind: Success}, true, 0)
	until(func() bool { return len(b.lookups) > 0 })
	b.stepLookup(0)
	b.stepLookup(0)
	b.settle()
	if b.sent != 4 {
		b.fail("%d attempts, not 4", b.sent)
	}
}
