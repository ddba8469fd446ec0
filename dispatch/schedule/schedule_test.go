package schedule

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"walhook/dispatch/post"
)

// world simulates what surrounds the schedules of some daemons: the store, receivers, the source, the clock, and the
// loops that carry queries and attempts. A query sees the store at one step, and its answer is used at a later one, so
// that a test can reach any possible order. The schedules make all decisions.
type world struct {
	t     interface{ Fatalf(string, ...any) }
	now   time.Time
	trace []string
	rules worldRules

	hooks   map[int64]*Webhook // as the store has them
	edited  int64
	moves   map[int64]map[int64]bool // by webhook: previous endpoints
	owner   map[int64]*process       // of endpoints
	mine    map[int64]int            // the number of the daemon that rendezvous hashing would pick
	saved   map[int64]savedEndpoint
	trouble map[int64]int64 // activations of webhooks that have failed since their last success

	rows    map[int64]*pendingRow
	nextID  int64
	xid     int64
	visible int64          // transactions up to it are visible
	ghosts  map[int64]bool // lost in a crash of the store, and perhaps still held

	daemons          []*process // the first one reads the slot
	sent             int
	notificationLost bool                     // a notification was lost
	ended            map[int64][]endedAttempt // of webhooks
}

type endedAttempt struct {
	begun      time.Time
	activation int64
	failed     bool
}

// savedEndpoint is what the store keeps of an endpoint.
type savedEndpoint struct {
	failures int
	until    time.Time
}

// pendingRow is a row of the queue, as far as the schedule needs it.
type pendingRow struct {
	id       int64
	response string
	hook     int64
	kind     int16
	attempts int
	due      time.Time // zero: never tried
	xid      int64
	version  int64           // of its webhook when it was queued
	behind   map[int64]int64 // enabled webhooks of the URL that kept the order then, with their versions
}

// process is a daemon: its schedule, and the queries and attempts under way.
type process struct {
	w *world
	n int
	s *Schedule

	offered   []*Delivery // committed, to be handed over
	versions  map[int64]int64
	flights   []*flight
	taken     []Result // being recorded
	endpoints []EndpointFailures
	stored    bool     // of taken: the store has them
	deferred  []Result // deferred because of a lock
	queries   []*successorStep
	loads     []*loadStep
	find      *findStep
	reload    *Webhooks // read, but not applied yet
	timers    map[*Endpoint]time.Time
	lookedAt  time.Time

	elsewhere int            // held by endpoints outside of the test
	follow    map[int64]bool // found by successor queries, each in the place of one that had ended
}

type flight struct {
	d         *Delivery
	unhealthy bool
	begun     time.Time
}

type successorStep struct {
	*SuccessorQuery
	asked      bool
	next       *Delivery
	due, stale bool
}

type loadStep struct {
	loads []*Load
	stage int
}

type findStep struct {
	asked        map[*Endpoint]int
	ids, cursors []int64
	found        []int64
	answered     bool
}

const (
	worldConcurrency = 8
	worldWindow      = 256
)

// worldRules lists the events that a test lets happen.
type worldRules struct {
	hooks                                 []bool // ordered or not, for each webhook
	responses, urls, daemons              int
	fails, gate, edits, leaves, kills     bool
	handmade, bursts, crowd, crashes, few bool // few: all endpoints share few attempts
	locks                                 bool // other transactions lock rows that results are about
}

func newWorld(t interface{ Fatalf(string, ...any) }, rules worldRules) *world {
	w := &world{
		t: t, now: time.Unix(1_800_000_000, 0), rules: rules, hooks: map[int64]*Webhook{}, moves: map[int64]map[int64]bool{}, owner: map[int64]*process{},
		mine: map[int64]int{}, saved: map[int64]savedEndpoint{}, trouble: map[int64]int64{}, rows: map[int64]*pendingRow{}, ghosts: map[int64]bool{}, ended: map[int64][]endedAttempt{},
	}
	w.rules.urls, w.rules.daemons = max(rules.urls, 1), max(rules.daemons, 1)
	for i, ordered := range rules.hooks {
		w.edit(int64(i+1), true, ordered, int64(i%w.rules.urls)+1)
	}
	for n := range w.rules.daemons {
		w.daemons = append(w.daemons, w.start(n))
	}
	for _, p := range w.daemons {
		p.learn()
		p.share()
	}
	if !rules.gate {
		w.visible = 1 << 62
	}
	return w
}

func (w *world) start(n int) *process {
	p := &process{w: w, n: n, timers: map[*Endpoint]time.Time{}, follow: map[int64]bool{}, lookedAt: w.now}
	concurrency := 64
	if w.rules.few {
		concurrency = 3
	}
	p.s = New(Limits{Concurrency: concurrency, EndpointConcurrency: worldConcurrency, MaxAttempts: 6, Backoff: post.Backoff{Base: time.Second, Cap: 5 * time.Second}}, Actions{
		Now:            func() time.Time { return w.now },
		Visible:        func(xid int64) bool { return xid <= w.visible },
		Send:           p.send,
		QuerySuccessor: func(q *SuccessorQuery) { p.queries = append(p.queries, &successorStep{SuccessorQuery: q}) },
		Arm: func(e *Endpoint, in time.Duration) {
			delete(p.timers, e)
			if in >= 0 {
				p.timers[e] = w.now.Add(in)
			}
		},
	})
	p.s.memory.window = worldWindow
	if w.rules.crowd {
		p.elsewhere = crowdedAt
		p.s.memory.held += crowdedAt
	}
	p.s.AllowStartsUntil(time.Unix(4_000_000_000, 0))
	return p
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	w.t.Fatalf("%s, after:\n  %s", fmt.Sprintf(format, args...), strings.Join(w.trace, "\n  "))
}

// What administrators and the stream do in the store.

// edit inserts or changes a webhook.
func (w *world) edit(id int64, enabled, ordered bool, url int64) {
	w.note("in the store, webhook %d: enabled %v, ordered %v, URL %d", id, enabled, ordered, url)
	w.edited++
	h := &Webhook{ID: id, EndpointID: url, Version: w.edited, Activation: w.edited, Enabled: enabled, Ordered: ordered}
	if old := w.hooks[id]; old != nil {
		if old.EndpointID == url && (old.Enabled || !enabled) {
			h.Activation = old.Activation
		} else {
			for _, r := range w.rows {
				if r.hook == id && r.due.After(w.now) {
					r.due = w.now
				}
			}
		}
		if old.EndpointID == url && !old.Enabled && enabled {
			delete(w.saved, url)
		}
		if old.EndpointID != url {
			if w.moves[id] == nil {
				w.moves[id] = map[int64]bool{}
			}
			delete(w.moves[id], url)
			w.moves[id][old.EndpointID] = true
		}
	}
	w.hooks[id] = h
}

// at returns the webhooks of a URL.
func (w *world) at(url int64) (hooks []*Webhook) {
	for _, h := range w.hooks {
		if h.EndpointID == url {
			hooks = append(hooks, h)
		}
	}
	return hooks
}

// loaded returns the webhooks as a daemon reads them.
func (w *world) loaded() *Webhooks {
	l := &Webhooks{ByID: map[int64]*Webhook{}, Enabled: true}
	for id, h := range w.hooks {
		loaded := *h
		for left := range w.moves[id] {
			if w.owner[left] != nil {
				loaded.PreviousEndpoints = append(loaded.PreviousEndpoints, left)
			}
		}
		l.ByID[id] = &loaded
	}
	return l
}

func (w *world) commit(count int, draw func(i int) (response string, hook int64)) {
	p := w.daemons[0]
	w.xid++
	w.note("commit %d from id %d, transaction %d", count, w.nextID+1, w.xid)
	p.versions = map[int64]int64{}
	for i := range count {
		if response, hook := draw(i); w.hooks[hook].Enabled {
			w.queue(response, hook, w.xid)
		}
	}
}

func (w *world) queue(response string, hook, xid int64) {
	w.nextID++
	url := w.hooks[hook].EndpointID
	r := &pendingRow{id: w.nextID, response: response, hook: hook, xid: xid, version: w.hooks[hook].Version, behind: map[int64]int64{}}
	for _, h := range w.at(url) {
		if h.Enabled && h.Ordered {
			r.behind[h.ID] = h.Version
		}
	}
	w.note("  %d: response %s, webhook %d", r.id, response, hook)
	w.rows[r.id] = r
	p := w.daemons[0]
	p.offered = append(p.offered, w.delivery(r))
	p.versions[url] = versionOf(w.at(url))
}

// crash reverts the last commits of the stream, which nobody waited for. Results and deliveries queued by hand stay,
// since their commits are waited for. The stream queues again what it lost.
func (w *world) crash(last int) {
	var back []*pendingRow
	for id := w.nextID; id > 0 && len(back) < last; id-- {
		r := w.rows[id]
		if r == nil || r.attempts > 0 || !r.due.IsZero() {
			break
		}
		back = append(back, r)
	}
	slices.Reverse(back)
	w.note("crash: %d taken back", len(back))
	for _, r := range back {
		delete(w.rows, r.id)
		w.ghosts[r.id] = true
	}
	p := w.daemons[0]
	p.offered, p.versions = nil, map[int64]int64{} // loaded from the store instead
	p.s.RequestRefresh()
	p.s.QueueLoadAll()
	w.nextID += 1000
	for _, r := range back {
		if w.hooks[r.hook].Enabled {
			w.queue(r.response, r.hook, r.xid)
		}
	}
}

func (w *world) byHand(response string, hook int64, kind int16) {
	w.nextID++
	w.note("by hand %d of kind %d: response %s, webhook %d", w.nextID, kind, response, hook)
	w.rows[w.nextID] = &pendingRow{id: w.nextID, response: response, hook: hook, kind: kind, due: w.now}
	w.notify()
}

// notify requests a refresh of all daemons.
func (w *world) notify() {
	for _, p := range w.daemons {
		p.s.RequestRefresh()
	}
}

func (w *world) delivery(r *pendingRow) *Delivery {
	return &Delivery{ID: r.id, WebhookID: r.hook, Version: w.hooks[r.hook].Version, ResponseID: r.response, XID: r.xid, Attempts: r.attempts, Kind: r.kind}
}

// Queries.

// unknown reports whether a matching row is pending of a webhook of the URL that keeps the order and is not in ordered.
func (w *world) unknown(url int64, ordered []int64, match func(*pendingRow) bool) bool {
	for _, r := range w.rows {
		if h := w.hooks[r.hook]; h.EndpointID == url && h.Enabled && h.Ordered && !slices.Contains(ordered, r.hook) && match(r) {
			return true
		}
	}
	return false
}

// query returns the matching rows in order, as a statement would.
func (w *world) query(limit int, match func(*pendingRow) bool, compare func(x, y *pendingRow) int) []*Delivery {
	var rows []*pendingRow
	for _, r := range w.rows {
		if match(r) {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, compare)
	var found []*Delivery
	for _, r := range rows[:min(limit, len(rows))] {
		found = append(found, w.delivery(r))
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

// waits reports whether an earlier delivery about the same response is pending.
func (w *world) waits(r *pendingRow, ordered []int64) bool {
	if !slices.Contains(ordered, r.hook) || r.kind == KindTest {
		return false
	}
	for _, o := range w.rows {
		if o.response == r.response && o.id < r.id && slices.Contains(ordered, o.hook) && o.kind != KindTest {
			return true
		}
	}
	return false
}

// others returns what FetchFresh returns with the first delivery about a response.
func (w *world) others(r *pendingRow, l *Load) (ids []int64) {
	last := int64(0)
	for _, o := range w.rows {
		if o.response != r.response || !slices.Contains(l.Asked.Ordered, o.hook) || o.kind == KindTest {
			continue
		}
		if o.id <= l.Asked.After {
			last = max(last, o.id)
		} else if !o.due.IsZero() || slices.Contains(l.Asked.Moving, o.hook) {
			ids = append(ids, o.id)
		}
	}
	if last > 0 {
		ids = append(ids, last)
	}
	return ids
}

// The loops of a daemon.

func (p *process) handOver() {
	p.handOverSome(len(p.offered))
}

// handOverSome hands over no more than so many, and the webhooks of the rest, as Queue does beyond its limit.
func (p *process) handOverSome(most int) {
	kept := p.offered[:min(most, len(p.offered))]
	rest := map[int64]struct{}{}
	for _, d := range p.offered[len(kept):] {
		rest[d.WebhookID] = struct{}{}
	}
	p.w.note("hand over %d, and tell of the rest for %d webhooks", len(kept), len(rest))
	p.offered = nil
	p.s.HandOver(kept, rest, p.versions)
}

// send takes an attempt that the schedule starts, and checks it against the rules.
func (p *process) send(d *Delivery, unhealthy bool) {
	w, e := p.w, d.endpoint
	w.note("daemon %d begins %d (response %s, attempt %d)", p.n, d.ID, d.ResponseID, d.Attempts+1)
	r := w.rows[d.ID]
	if r == nil && w.ghosts[d.ID] {
		r = &pendingRow{id: d.ID, response: d.ResponseID, hook: d.WebhookID, xid: d.XID}
	}
	switch {
	case r == nil:
		w.fail("%d is sent though it has ended", d.ID)
	case r.attempts != d.Attempts:
		w.fail("%d is sent twice", d.ID)
	case w.now.Before(e.notBefore):
		w.fail("%d is sent though the receiver asked for a pause", d.ID)
	case e.inFlight > min(worldConcurrency, e.limit), p.s.inFlight > p.s.limits.Concurrency:
		w.fail("%d is sent over the limit", d.ID)
	case e.failing() && e.inFlight > 1:
		w.fail("%d is sent to a failing endpoint beside its probe", d.ID)
	case w.owner[e.id] != p || !e.state.sends():
		w.fail("%d is sent by one who does not own the endpoint", d.ID)
	case d.Hook.EndpointID != e.id:
		w.fail("%d is sent to a URL that its webhook does not have", d.ID)
	case !d.Hook.Enabled && d.Kind != KindTest:
		w.fail("%d of a disabled webhook is sent", d.ID)
	case r.xid > w.visible:
		w.fail("%d is sent before its transaction is visible", d.ID)
	case d.Hook.Version < r.version:
		w.fail("%d is sent as its webhook was before an edit that counts for it", d.ID)
	case r.due.After(w.now):
		w.fail("%d is sent before it is due", d.ID)
	}
	for i := range p.deferred {
		if p.deferred[i].Delivery.WebhookID == d.WebhookID {
			w.fail("%d is sent while the result of %d, of the same webhook, waits for a lock", d.ID, p.deferred[i].Delivery.ID)
		}
	}
	for _, other := range w.daemons {
		for _, f := range other.flights {
			switch {
			case f.d.ID == d.ID:
				w.fail("%d is sent twice at a time", d.ID)
			case f.d.WebhookID == d.WebhookID && f.d.endpoint.id != e.id:
				w.fail("%d is sent while %d of its webhook is in flight at another URL", d.ID, f.d.ID)
			case f.d.endpoint.id == e.id && d.ordered() && f.d.ResponseID == d.ResponseID && f.d.Kind != KindTest && keepsOrder(p.s.webhooks.ByID[f.d.WebhookID], f.d):
				w.fail("%d is sent beside %d about the same response", d.ID, f.d.ID)
			}
		}
	}
	if d.ordered() {
		ordered := e.ordered()
		// A manual redelivery repeats an earlier commit: it has a place of its own, and is not sent beside another.
		for _, o := range w.rows {
			version, keeps := r.behind[o.hook]
			unknown := keeps && version == w.hooks[o.hook].Version && w.hooks[o.hook].EndpointID == e.id // perhaps
			if o.id < r.id && o.response == r.response && o.kind < KindTest && (slices.Contains(ordered, o.hook) || unknown) {
				w.fail("%d is sent before %d about the same response has ended", d.ID, o.id)
			}
		}
	}
	p.flights = append(p.flights, &flight{d: d, unhealthy: unhealthy, begun: w.now})
	w.sent++
}

// KeepsOrder reports whether a delivery in flight keeps its place: as its webhook is now, or was before it left the URL.
func keepsOrder(known *Webhook, d *Delivery) bool {
	if known.EndpointID == d.endpoint.id {
		return known.Ordered
	}
	return d.Hook.Ordered
}

func (p *process) answer(i int, o post.Outcome) {
	f := p.flights[i]
	p.flights = slices.Delete(p.flights, i, i+1)
	o.Started = f.begun
	p.w.note("answer %d: %s", f.d.ID, o.Kind)
	p.w.ended[f.d.WebhookID] = append(p.w.ended[f.d.WebhookID], endedAttempt{begun: f.begun, activation: f.d.Hook.Activation, failed: o.Kind != post.Success})
	p.s.AttemptEnded(f.d, o, f.unhealthy)
}

// record takes results at the first call, stores those that are not locked at the second, and reports them to the
// schedule at the third.
func (p *process) record(locked func() bool) {
	w := p.w
	switch {
	case p.taken == nil && p.endpoints == nil:
		p.taken, p.endpoints = p.s.TakeResults()
		p.stored = false
	case !p.stored:
		var taken, waiting []Result
		before := p.waiting()
		for _, r := range p.taken {
			if locked() {
				waiting = append(waiting, r)
			} else {
				taken = append(taken, r)
			}
		}
		p.taken = taken
		if len(waiting) > 0 {
			w.note("%d results are locked", len(waiting))
			told := p.s.DeferLocked(waiting)
			p.deferred = append(p.deferred, waiting...)
			for id := range p.waiting() {
				if first := before[id] == 0; first != slices.Contains(told, id) {
					w.fail("webhook %d begins to wait for a lock: %t, and that is not told", id, first)
				}
			}
		}
		missing := false
		for i := range p.taken {
			r := &p.taken[i]
			w.note("recorded %d", r.Delivery.ID)
			if r.Final {
				delete(w.rows, r.Delivery.ID)
				continue
			}
			row := w.rows[r.Delivery.ID]
			if row == nil && w.ghosts[r.Delivery.ID] {
				missing = true
				continue
			}
			row.attempts++
			row.due, row.xid = w.now.Add(r.Delay), 0
		}
		for i := range p.taken {
			p.taken[i].Missing = missing && !p.taken[i].Final
		}
		for _, v := range p.s.Verdicts(p.taken) {
			if v.Succeeded && w.trouble[v.WebhookID] <= v.Activation {
				delete(w.trouble, v.WebhookID)
			}
			if v.Failing && w.hooks[v.WebhookID].Activation == v.Activation {
				w.trouble[v.WebhookID] = v.Activation
			}
		}
		for _, e := range p.endpoints {
			if w.owner[e.EndpointID] == p {
				w.saved[e.EndpointID] = savedEndpoint{failures: e.Failures, until: e.NotBefore}
			}
		}
		p.stored = true
	default:
		for i := range p.taken {
			w.note("let go of %d", p.taken[i].Delivery.ID)
		}
		results := p.taken
		p.taken, p.endpoints = nil, nil
		p.s.ResultsRecorded(results)
	}
}

// nobody holds a lock.
func nobody() bool { return false }

// unlock retries the deferred results.
func (p *process) unlock() {
	if p.taken == nil && p.endpoints == nil {
		p.taken, p.deferred, p.stored = p.deferred, nil, false
	}
}

func (p *process) recording() bool {
	return p.taken != nil || p.endpoints != nil || len(p.s.results) > 0 || len(p.s.endpointsToRecord) > 0
}

func (p *process) stepQuery(i int) {
	q, w := p.queries[i], p.w
	if !q.asked {
		q.asked = true
		if next := w.query(1, func(r *pendingRow) bool {
			return r.response == q.line.response && slices.Contains(q.Ordered, r.hook) && r.kind != KindTest
		}, byID); len(next) > 0 {
			q.next, q.due = next[0], !w.rows[next[0].ID].due.After(w.now)
			q.stale = w.unknown(q.endpoint.id, q.Ordered, func(r *pendingRow) bool {
				return r.response == q.line.response && r.id < next[0].ID && r.kind != KindTest
			})
		}
		w.note("look-up of the next about response %s: %v", q.line.response, q.next != nil)
		return
	}
	p.queries = slices.Delete(p.queries, i, i+1)
	w.note("look-up of the next about response %s comes back", q.line.response)
	if q.next != nil {
		p.follow[q.next.ID] = true
	}
	p.s.SuccessorFound(q.SuccessorQuery, q.next, q.due, q.stale)
}

// stepLoad begins a load, or takes one a step further.
func (p *process) stepLoad(i int, broken bool) {
	w := p.w
	if i == len(p.loads) {
		if loads := p.s.TakeLoads(); len(loads) > 0 {
			p.loads = append(p.loads, &loadStep{loads: loads})
		}
		return
	}
	step := p.loads[i]
	if step.stage++; step.stage > 4 {
		p.loads = slices.Delete(p.loads, i, i+1)
		var err error
		if broken {
			err = fmt.Errorf("the store is away")
		}
		for _, l := range step.loads {
			w.note("daemon %d loaded for URL %d: %d tests, %d due, %d fresh, broken %v, stale %v", p.n, l.endpoint.id, len(l.Tests), len(l.Due), len(l.Fresh), broken, l.Stale)
		}
		p.s.LoadsEnded(step.loads, err)
		return
	}
	for _, l := range step.loads {
		w.answer(l, step.stage)
	}
}

// answer is what one of the statements of a load finds for an endpoint.
func (w *world) answer(l *Load, statement int) {
	switch statement {
	case 1:
		l.Tests = w.query(int(l.Asked.RoomDue), func(r *pendingRow) bool {
			return r.kind == KindTest && slices.Contains(l.Asked.Tests, r.hook) && !r.due.After(w.now) && !slices.Contains(l.Asked.Held, r.id)
		}, byDue)
	case 2:
		l.Due = w.query(int(l.Asked.RoomDue), func(r *pendingRow) bool {
			return slices.Contains(l.Asked.Enabled, r.hook) && !r.due.IsZero() && !r.due.After(w.now) && r.kind != KindTest &&
				!slices.Contains(l.Asked.Held, r.id) && !w.waits(r, l.Asked.Ordered)
		}, byDue)
	case 3:
		told := map[string]bool{}
		for _, d := range w.query(int(l.Asked.Room), func(r *pendingRow) bool {
			return slices.Contains(l.Asked.Enabled, r.hook) && r.due.IsZero() && r.id > l.Asked.After
		}, byID) {
			f := FreshDelivery{Delivery: d, KeepsOrder: l.Asked.Keeps[slices.Index(l.Asked.Enabled, d.WebhookID)]}
			if f.KeepsOrder && !told[d.ResponseID] {
				told[d.ResponseID] = true
				f.Others = w.others(w.rows[d.ID], l)
			}
			l.Fresh = append(l.Fresh, f)
		}
	case 4:
		for _, r := range w.rows {
			if r.due.IsZero() {
				continue
			}
			enabled := slices.Contains(l.Asked.Enabled, r.hook)
			if enabled && r.attempts > 0 {
				l.Retrying++
			}
			if (enabled || r.kind == KindTest && slices.Contains(l.Asked.Tests, r.hook)) && !slices.Contains(l.Asked.Held, r.id) && (l.DueAt.IsZero() || r.due.Before(l.DueAt)) {
				l.DueAt = r.due
			}
		}
		l.Stale = w.unknown(l.endpoint.id, l.Asked.Ordered, func(*pendingRow) bool { return true })
	}
}

// learn reloads the webhooks.
func (p *process) learn() {
	p.reload = nil
	p.stepReload()
	p.stepReload()
}

// stepReload reads the webhooks, and applies them at the next call.
func (p *process) stepReload() {
	if p.reload == nil {
		p.reload = p.w.loaded()
		return
	}
	p.w.note("daemon %d knows the webhooks", p.n)
	loaded := p.reload
	p.reload = nil
	p.s.ApplyWebhooks(loaded)
}

// share claims and releases endpoints as w.mine says.
func (p *process) share() {
	w := p.w
	claim, release := p.s.Rebalance(func(id int64) bool { return w.mine[id] == p.n })
	for _, id := range release {
		w.note("daemon %d releases URL %d", p.n, id)
		w.owner[id] = nil
	}
	p.s.MarkReleased(0, release)
	claimed := false
	for _, id := range claim {
		if w.owner[id] == nil {
			claimed = true
			w.note("daemon %d claims URL %d", p.n, id)
			w.owner[id] = p
			p.s.MarkClaimed(0, id, w.saved[id].failures, max(w.saved[id].until.Sub(w.now), 0))
		}
	}
	if len(release) > 0 {
		w.notify()
	}
	// Moves are settled if nothing of the webhook is active at the previous endpoint, or nobody owns that.
	ended := false
	hooks, urls := p.s.SettledMoves()
	for i, hook := range hooks {
		ended = ended || w.moves[hook][urls[i]]
		delete(w.moves[hook], urls[i])
	}
	for _, left := range w.moves {
		for url := range left {
			if w.owner[url] == nil {
				delete(left, url)
				ended = true
			}
		}
	}
	if ended {
		w.notify()
	}
	if claimed {
		p.s.RequestRefresh()
	}
}

func (p *process) stepFind() {
	w := p.w
	if p.find == nil {
		p.lookedAt = w.now
		p.find = &findStep{}
		p.find.asked, p.find.ids, p.find.cursors = p.s.IdleEndpoints()
		return
	}
	f := p.find
	if !f.answered {
		f.answered = true
		for i, id := range f.ids {
			for _, r := range w.rows {
				if r.hook == id && (!r.due.IsZero() || r.id > f.cursors[i]) {
					f.found = append(f.found, id)
					break
				}
			}
		}
		return
	}
	p.find = nil
	w.note("daemon %d finds work for webhooks %d", p.n, f.found)
	if len(f.ids) > 0 {
		p.s.WorkFound(f.asked, f.found)
	}
}

// notifyOthers notifies the other daemons of what was queued for their endpoints. The notification may be lost.
func (p *process) notifyOthers(lost bool) {
	drain(p.s.NotificationPending)
	ids := p.s.TakeQueuedForOthers()
	p.w.notificationLost = p.w.notificationLost || lost && len(ids) > 0
	for _, other := range p.w.daemons {
		if other != p && !lost {
			other.s.QueuedElsewhere(ids)
		}
	}
}

// kill ends a daemon as kill -9 does, and starts another. Deliveries in flight or unrecorded are sent again.
func (w *world) kill(n int) {
	w.note("daemon %d is killed", n)
	for url, owner := range w.owner {
		if owner == w.daemons[n] {
			w.owner[url] = nil
		}
	}
	p := w.start(n)
	w.daemons[n] = p
	p.learn()
	p.s.QueueLoadAll()
	w.notify()
}

// pass advances the clock, and fires timers.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for _, p := range w.daemons {
		var fired []*Endpoint
		for e, at := range p.timers {
			if !at.After(w.now) {
				fired = append(fired, e)
			}
		}
		slices.SortFunc(fired, func(x, y *Endpoint) int { return int(x.id - y.id) })
		for _, e := range fired {
			delete(p.timers, e)
			p.s.TimerFired(e)
		}
	}
}

func drain(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// check checks the invariants of what is in memory.
func (w *world) check() {
	for _, p := range w.daemons {
		held, busy, inFlight, active, deferred := 0, 0, 0, 0, 0
		waiting := p.waiting()
		for _, n := range waiting {
			deferred += n
		}
		for _, e := range p.s.endpoints {
			p.checkEndpoint(e)
			held += len(e.held)
			busy += min(len(e.held), 1)
			inFlight += e.inFlight
			active += len(e.active)
			for id, n := range e.lockedResults {
				if waiting[id] != n {
					w.fail("%d results of webhook %d wait for a lock, and %d are counted", waiting[id], id, n)
				}
				deferred -= n
			}
		}
		m := p.s.memory
		if m.held-p.elsewhere != held || m.holders != busy {
			w.fail("%d are held at %d endpoints, and %d at %d counted", held, busy, m.held-p.elsewhere, m.holders)
		}
		if deferred != 0 {
			w.fail("%d more results wait for a lock than are counted", deferred)
		}
		if p.s.inFlight != inFlight || inFlight != len(p.flights) || p.s.unrecorded != active-inFlight-len(p.deferred)-countDeferred(p.taken) || p.s.inFlightUnhealthy < 0 {
			w.fail("%d in flight, %d of them counted, %d in trouble; %d unrecorded, %d counted", len(p.flights), p.s.inFlight, p.s.inFlightUnhealthy, active-inFlight, p.s.unrecorded)
		}
		p.checkRing()
		for why := waitsForQuarter; why < waits; why++ {
			if n := len(p.s.throttled[why].queue); n > 0 && p.s.ring.empty() && p.s.inFlight < p.s.limits.Concurrency && p.s.roomFor(why) {
				w.fail("%d endpoints are throttled although there is room", n)
			}
		}
	}
}

// checkRing makes sure that each endpoint is in a queue at most once, and that an endpoint that may start an attempt
// waits for nothing else.
func (p *process) checkRing() {
	w := p.w
	for _, q := range append([]fifo{p.s.ring, p.s.loads}, p.s.throttled[waitsForQuarter:]...) {
		places := map[*Endpoint]int{}
		for _, e := range q.queue {
			places[e]++
		}
		for _, e := range p.s.endpoints {
			if is := e.queues&q.bit != 0; places[e] > 1 || is != (places[e] == 1) {
				w.fail("URL %d is in queue %d in %d places; it has the bit: %t", e.id, q.bit, places[e], is)
			}
		}
	}
	for _, e := range p.s.endpoints {
		at, set := p.timers[e]
		if set != !e.timerAt.IsZero() || set && at.Before(e.timerAt) {
			w.fail("the timer of URL %d fires at %s, and not at %s", e.id, at, e.timerAt)
		}
		if p.s.inFlight >= p.s.limits.Concurrency || p.s.waitOf(e, w.now) != waitsForNothing {
			continue
		}
		copied := *e
		copied.due, copied.fresh = slices.Clone(e.due), slices.Clone(e.fresh)
		if d := copied.pick(w.now, worldConcurrency); d != nil {
			w.fail("%d may be sent and is not", d.ID)
		}
	}
}

func countDeferred(results []Result) (n int) {
	for i := range results {
		if results[i].wasLocked {
			n++
		}
	}
	return n
}

// waiting counts the results of each webhook that are deferred, or being recorded after that.
func (p *process) waiting() map[int64]int {
	of := map[int64]int{}
	for _, r := range p.deferred {
		of[r.Delivery.WebhookID]++
	}
	for _, r := range p.taken {
		if r.wasLocked {
			of[r.Delivery.WebhookID]++
		}
	}
	return of
}

func (p *process) checkEndpoint(e *Endpoint) {
	w := p.w
	p.checkState(e)
	places := map[int64]int{}
	for _, d := range e.due {
		places[d.ID]++
	}
	for _, d := range e.fresh {
		places[d.ID]++
	}
	for _, l := range e.lines {
		for _, d := range l.waiting {
			places[d.ID]++
		}
	}
	for _, d := range p.s.awaitingVisibility {
		if d.endpoint == e && d.generation == e.generation {
			places[d.ID]++
		}
	}
	for id := range e.active {
		places[id]++
	}
	for id, n := range places {
		if n > 1 {
			w.fail("%d is held in %d places", id, n)
		}
		if _, held := e.held[id]; !held {
			w.fail("%d is somewhere and not held", id)
		}
	}
	most := worldWindow + minDueHeld
	if p.elsewhere > 0 {
		most = 2 * narrowWindow
	}
	for id := range e.held {
		if places[id] == 0 {
			w.fail("%d is held and nowhere", id)
		}
		if p.follow[id] {
			most++
		}
	}
	if most += 3 * len(e.active); len(e.held) > most {
		w.fail("%d are held, and %d is the most", len(e.held), most)
	}
	if e.inFlight < 0 || e.retrying < 0 || e.limit < 1 || e.limit > worldConcurrency {
		w.fail("%d in flight, %d waiting, limit %d", e.inFlight, e.retrying, e.limit)
	}
}

// checkState makes sure that the state of an endpoint is the one that its other fields and the store show.
func (p *process) checkState(e *Endpoint) {
	w := p.w
	underWay := e.state == loading || e.state == reloading
	switch {
	case e.state.owned() != (w.owner[e.id] == p):
		w.fail("daemon %d has URL %d in state %d, and its owner is another one", p.n, e.id, e.state)
	case underWay != (e.load != nil):
		w.fail("URL %d is in state %d, and a load is under way: %t", e.id, e.state, !underWay)
	case underWay && !slices.ContainsFunc(p.loads, func(step *loadStep) bool { return slices.Contains(step.loads, e.load) }):
		w.fail("URL %d is in state %d, and its load never ends", e.id, e.state)
	case e.state == queued && !slices.Contains(p.s.loads.queue, e):
		w.fail("URL %d waits for a loader that does not know of it", e.id)
	case e.state == deferred && e.timerAt.IsZero():
		w.fail("URL %d is never loaded again", e.id)
	}
	if e.state != complete || p.n > 0 || !e.isCurrent(versionOf(w.at(e.id))) {
		return // others may miss a notification
	}
	for _, r := range w.rows {
		offered := slices.ContainsFunc(p.offered, func(d *Delivery) bool { return d.ID == r.id })
		h := p.s.webhooks.ByID[r.hook]
		if h != nil && h.EndpointID == e.id && h.Enabled && !e.blocked(h) && r.due.IsZero() && r.id > e.cursor && !offered {
			w.fail("daemon %d believes that it holds all of URL %d, and not %d", p.n, e.id, r.id)
		}
	}
}

// step takes the next step of a daemon that has something to do, and reports whether there was one.
func (p *process) step() bool {
	switch {
	case drain(p.s.RefreshWanted):
		p.learn()
		p.share()
		for p.find != nil { // from before
			p.stepFind()
		}
		p.stepFind()
	case len(p.offered) > 0:
		p.handOver()
	case len(p.loads) > 0:
		p.stepLoad(0, false)
	case drain(p.s.LoadsPending):
		p.stepLoad(0, false)
	case p.find != nil:
		p.stepFind()
	case len(p.queries) > 0:
		p.stepQuery(0)
	case drain(p.s.VisibilityPending):
		p.s.RecheckVisibility()
	case drain(p.s.NotificationPending):
		p.notifyOthers(false)
	case len(p.flights) > 0:
		p.answer(0, post.Outcome{Kind: post.Success})
	case p.recording():
		p.record(nobody)
	case len(p.deferred) > 0:
		p.unlock()
	default:
		return false
	}
	return true
}

// settle lets everything succeed until the store is empty, and fails if it never is.
func (w *world) settle() {
	w.note("from here on all goes well")
	w.visible = 1 << 62
	for id, h := range w.hooks {
		if !h.Enabled {
			w.edit(id, true, h.Ordered, h.EndpointID)
		}
	}
	w.notify()
	until := w.now.Add(time.Hour)
	for range 200_000 {
		w.check()
		went := false
		for _, p := range w.daemons {
			went = p.step() || went
		}
		if went {
			continue
		}
		if len(w.rows) == 0 {
			w.checkTrouble()
			return
		}
		if w.pass(50 * time.Millisecond); w.now.After(until) {
			break
		}
		for _, p := range w.daemons {
			if w.notificationLost && w.now.Sub(p.lookedAt) >= 10*time.Second {
				p.s.RequestRefresh()
			}
		}
	}
	w.fail("never sent: %d", slices.Sorted(maps.Keys(w.rows)))
}

// checkTrouble makes sure that a webhook is in trouble if its latest attempt since its last activation failed. Of
// attempts that started at the same moment either may be the latest. A killed daemon loses results.
func (w *world) checkTrouble() {
	for id, h := range w.hooks {
		if w.rules.kills {
			return
		}
		var latest time.Time
		failed, succeeded := false, false
		for _, a := range w.ended[id] {
			if a.activation != h.Activation || a.begun.Before(latest) {
				continue
			}
			if a.begun.After(latest) {
				latest, failed, succeeded = a.begun, false, false
			}
			failed, succeeded = failed || a.failed, succeeded || !a.failed
		}
		for _, a := range w.ended[id] { // an attempt that started at the very moment of the activation
			failed = failed || a.failed && a.begun.Equal(latest)
		}
		if is := w.trouble[id] == h.Activation && w.trouble[id] != 0; is && !failed || !is && failed && !succeeded {
			w.fail("webhook %d is in trouble: %t; its latest attempt failed: %t", id, is, failed)
		}
	}
}

func (rules worldRules) run(t *rapid.T) {
	w := newWorld(t, rules)
	draw := func(name string, n int) int { return rapid.IntRange(0, n-1).Draw(t, name) }
	response := func() string { return fmt.Sprint(draw("response", rules.responses)) }
	hook := func() int64 { return int64(draw("webhook", len(w.hooks)) + 1) }
	for range rapid.IntRange(1, 80).Draw(t, "steps") {
		p := w.daemons[draw("daemon", len(w.daemons))]
		switch draw("step", 14) {
		case 0, 1:
			if reader := w.daemons[0]; len(reader.offered) > 0 {
				reader.handOverSome(rapid.SampledFrom([]int{worldWindow, worldWindow, 1, 0}).Draw(t, "handed over"))
				break
			}
			count := 1 + draw("count", 3)
			if rules.bursts && draw("burst", 10) == 0 {
				count = worldWindow + draw("over", worldWindow)
			}
			burst := count > 3
			w.commit(count, func(i int) (string, int64) {
				if burst {
					return fmt.Sprint(i % 97 % (40 * rules.responses)), int64(i%len(w.hooks) + 1)
				}
				return response(), hook()
			})
		case 2, 3:
			for range 1 + draw("stages", 6) {
				i := draw("look", len(p.loads)+1)
				p.stepLoad(i, rules.fails && draw("broken", 8) == 0)
			}
		case 4, 5, 6:
			if len(p.flights) > 0 {
				i := draw("answered", len(p.flights))
				o := post.Outcome{Kind: post.Success}
				if rules.fails && rapid.Bool().Draw(t, "fails") {
					o = post.Outcome{Kind: post.Retry, SlowEndpoint: draw("slow", 4) == 0}
					if draw("gone", 12) == 0 {
						o.Kind = post.Gone
					} else if draw("pause", 6) == 0 {
						o.RetryAfter = 3 * time.Second
					}
				}
				p.answer(i, o)
			}
		case 7, 8:
			if len(p.deferred) > 0 && rapid.Bool().Draw(t, "unlock") {
				p.unlock()
			}
			if p.recording() {
				p.record(func() bool { return rules.locks && draw("locked", 3) == 0 })
			}
		case 9:
			if len(p.queries) > 0 {
				p.stepQuery(draw("look-up", len(p.queries)))
			}
		case 10:
			switch {
			case p.reload != nil || drain(p.s.RefreshWanted):
				p.stepReload()
			case rapid.Bool().Draw(t, "share"):
				p.share()
			default:
				p.stepFind()
			}
		case 11:
			w.pass([]time.Duration{time.Millisecond, 150 * time.Millisecond, time.Second, 4 * time.Second, probeInterval}[draw("time", 5)])
		case 12:
			if rules.gate && w.visible < w.xid {
				w.visible++
				for _, p := range w.daemons {
					p.s.RecheckVisibility()
				}
			} else {
				p.notifyOthers(rapid.Bool().Draw(t, "lost"))
			}
		case 13:
			switch draw("seldom", 5) {
			case 0:
				if rules.edits {
					id, url := int64(draw("edited", len(w.hooks)+1)+1), int64(draw("URL", w.rules.urls)+1)
					if old := w.hooks[id]; old != nil && draw("keep the URL", 3) > 0 {
						url = old.EndpointID
					}
					w.edit(id, draw("disabled", 4) > 0, draw("without order", 4) > 0, url)
					if rapid.Bool().Draw(t, "told") {
						w.notify()
					}
				}
			case 1:
				if rules.leaves {
					w.mine[int64(draw("URL", w.rules.urls)+1)] = draw("owner", len(w.daemons)+1)
				}
			case 2:
				if rules.handmade {
					w.byHand(response(), hook(), []int16{KindTest, KindManual}[draw("kind", 2)])
				}
			case 3:
				if rules.crashes {
					w.crash(1 + draw("taken back", 6))
				}
			case 4:
				if rules.kills {
					w.kill(draw("killed", len(w.daemons)))
				}
			}
		}
		w.check()
	}
	for url, n := range w.mine {
		w.mine[url] = n % len(w.daemons)
	}
	w.settle()
}

// However edits, failures, crashes of the store, kills of daemons and moves of endpoints combine, no endpoint loses a
// delivery or exceeds a limit, and no attempt breaks the order, a pause or a move.
func TestScheduleKeepsOrderAndLosesNothing(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]worldRules{
		"all goes well":                  {hooks: []bool{true}, responses: 2, bursts: true},
		"attempts fail":                  {hooks: []bool{true, true}, responses: 2, fails: true},
		"many endpoints hold much":       {hooks: []bool{true, false}, responses: 3, fails: true, bursts: true, crowd: true},
		"attempts fail in bursts":        {hooks: []bool{true, false}, responses: 3, fails: true, bursts: true},
		"commits become visible late":    {hooks: []bool{true}, responses: 2, gate: true},
		"late and failing":               {hooks: []bool{true, true}, responses: 2, gate: true, fails: true},
		"redelivered and tested by hand": {hooks: []bool{true, false}, responses: 2, fails: true, handmade: true},
		"late and redelivered by hand":   {hooks: []bool{true, true}, responses: 2, gate: true, handmade: true},
		"webhooks change":                {hooks: []bool{true, true}, responses: 2, edits: true},
		"webhooks change and fail":       {hooks: []bool{true, true}, responses: 1, edits: true, fails: true},
		"webhooks move":                  {hooks: []bool{true, true}, responses: 1, urls: 2, edits: true, fails: true},
		"webhooks move between daemons":  {hooks: []bool{true, true}, responses: 1, urls: 2, daemons: 2, edits: true, fails: true, leaves: true},
		"endpoints move":                 {hooks: []bool{true}, responses: 2, daemons: 2, leaves: true},
		"endpoints move and fail":        {hooks: []bool{true}, responses: 2, daemons: 2, leaves: true, fails: true},
		"daemons are killed":             {hooks: []bool{true, true}, responses: 2, urls: 2, daemons: 2, leaves: true, kills: true, fails: true},
		"the store crashes":              {hooks: []bool{true, false}, responses: 2, crashes: true},
		"attempts fail and crashes":      {hooks: []bool{true, true}, responses: 2, fails: true, crashes: true},
		"what results say is locked":     {hooks: []bool{true, true}, responses: 2, urls: 2, daemons: 2, fails: true, edits: true, leaves: true, locks: true},
		"few attempts for many URLs":     {hooks: []bool{true, true, false, false, true}, responses: 3, urls: 5, fails: true, few: true},
		"everything but crashes":         {hooks: []bool{true, true, false}, responses: 3, urls: 2, daemons: 2, fails: true, gate: true, edits: true, leaves: true, handmade: true},
		"everything in bursts":           {hooks: []bool{true, true, false}, responses: 3, urls: 2, fails: true, gate: true, handmade: true, bursts: true, crashes: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, rules.run)
		})
	}
}

// A delivery that another daemon queued for a webhook that is not known yet comes first, even if only a successor is
// queried.
func TestNextIsNotTakenForAnotherOfAnUnknownWebhook(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldRules{hooks: []bool{true}, responses: 1})
	p := w.daemons[0]
	others := func(hooks ...int64) { // another daemon queues
		w.commit(len(hooks), func(i int) (string, int64) { return "7", hooks[i] })
		p.offered = nil
		p.s.RequestRefresh()
	}
	flies := func() bool { return len(p.flights) > 0 }
	until := func(reached func() bool) {
		t.Helper()
		for range 1000 {
			switch {
			case reached():
				return
			case p.recording():
				p.record(nobody)
			case len(p.loads) > 0 || drain(p.s.LoadsPending):
				p.stepLoad(0, false)
			case p.find != nil || drain(p.s.RefreshWanted):
				p.stepFind()
			default:
				w.pass(100 * time.Millisecond)
			}
		}
		w.fail("never reached")
	}
	others(1)
	until(flies)
	p.answer(0, post.Outcome{Kind: post.Retry})
	until(flies)
	w.edit(2, true, true, 1)
	others(2, 1)
	p.answer(0, post.Outcome{Kind: post.Success})
	until(func() bool { return len(p.queries) > 0 })
	p.stepQuery(0)
	p.stepQuery(0)
	w.settle()
	if w.sent != 4 {
		w.fail("%d attempts, not 4", w.sent)
	}
}
