package dispatch

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"time"

	"walhook/cdc/stream"
)

// edited is a webhook as it was after some edit.
func edited(id, endpoint, edit int64) *webhook {
	return &webhook{id: id, endpointID: endpoint, version: edit, enabled: true, ordered: true}
}

// newKnowing returns a Scheduler that knows these webhooks and sends nothing.
func newKnowing(hooks ...*webhook) *Scheduler {
	s := NewScheduler(Config{Loaded: func(int) {}, Horizon: stream.NewHorizon(nil)})
	s.learn(hooks...)
	return s
}

func (s *Scheduler) learn(hooks ...*webhook) {
	known := &webhooks{byID: map[int64]*webhook{}}
	for _, h := range hooks {
		known.byID[h.id] = h
	}
	s.applyWebhooks(known)
}

// own claims endpoints, with nothing pending in the store.
func (s *Scheduler) own(ids ...int64) {
	for _, id := range ids {
		s.markClaimed(0, id, 0, 0)
		s.endpoints[id].on(nothingPending)
	}
}

// queued hands over a delivery for one of the webhooks of a store, or, unless kept, only the fact that it was queued.
func (s *Scheduler) queued(id int64, h *webhook, kept bool, store ...*webhook) {
	var at []*webhook
	for _, o := range store {
		if o.endpointID == h.endpointID {
			at = append(at, o)
		}
	}
	versions := map[int64]int64{h.endpointID: versionOf(at)}
	if kept {
		s.handOver([]*delivery{{id: id, webhookID: h.id, responseID: "7"}}, nil, versions)
	} else {
		s.handOver(nil, map[int64]struct{}{h.id: {}}, versions)
	}
}

// The owner of a URL is notified of what was queued there, even if the URL or its new webhook is unknown here, or is
// believed to be at another URL.
func TestOwnerIsNotifiedOfANewWebhook(t *testing.T) {
	t.Parallel()
	ours, others := edited(1, 10, 1), edited(2, 20, 2)
	for _, known := range [][]*webhook{{ours}, {ours, others}, {ours, edited(2, 10, 1)}} {
		for _, kept := range []bool{true, false} {
			s := newKnowing(known...)
			s.own(10)
			s.queued(1, others, kept, ours, others)
			if got := s.takeQueuedForOthers(); got != "20" || len(s.endpoints[10].held) > 0 {
				t.Errorf("endpoints %q were named, not 20, and %v are held", got, s.endpoints[10].held)
			}
		}
	}
}

// No delivery is held at a URL with stale webhooks, because others may come first there.
func TestStaleWebhooksHoldNothing(t *testing.T) {
	t.Parallel()
	here, elsewhere, off := edited(1, 10, 1), edited(2, 20, 2), edited(3, 10, 3)
	off.enabled = false
	for name, edit := range map[string]*webhook{
		"a webhook has come":       edited(4, 10, 4),
		"one has moved":            edited(2, 10, 4),
		"one is enabled again":     edited(3, 10, 4),
		"the same was edited":      edited(1, 10, 4),
		"it has moved":             edited(1, 20, 4),
		"another has left the URL": edited(3, 30, 4),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newKnowing(here, elsewhere, off)
			s.own(10, 20)
			held := func() int { return len(s.endpoints[10].held) + len(s.endpoints[20].held) }
			s.queued(1, here, true, here, elsewhere, off)
			if held() != 1 {
				t.Fatalf("%d deliveries are held, and everything is known", held())
			}
			store := map[int64]*webhook{1: here, 2: elsewhere, 3: off}
			store[edit.id] = edit
			var hooks []*webhook
			for _, h := range store {
				hooks = append(hooks, h)
			}
			for _, kept := range []bool{true, false} {
				s.queued(2, store[1], kept, hooks...)
				if held() != 1 || len(s.refreshWanted) != 1 {
					t.Fatalf("%d deliveries are held, and %d refreshes requested, with a delivery kept: %t", held(), len(s.refreshWanted), kept)
				}
				<-s.refreshWanted
			}
			s.learn(hooks...)
			e := s.endpoints[store[1].endpointID]
			e.state = complete // a load has found nothing else
			s.queued(3, store[1], true, hooks...)
			if held() != 1 || len(e.held) != 1 {
				t.Errorf("%d deliveries are held, not the one that seen afterwards", held())
			}
		})
	}
}

// A stale load is repeated only after the webhooks may have been reloaded, because it would be stale again.
func TestStaleLoadIsDeferred(t *testing.T) {
	t.Parallel()
	s := newKnowing(edited(1, 10, 1))
	s.own(10)
	e := s.endpoints[10]
	s.queueLoad(e)
	loads := s.takeLoads()
	if len(loads) != 1 {
		t.Fatalf("%d loads began, not 1", len(loads))
	}
	loads[0].stale = true
	s.loadsEnded(loads, nil)
	s.startAttempts()
	if !s.loads.empty() || e.state != deferred || e.dueAt.IsZero() {
		t.Errorf("%d loads are queued at once; the next is due at %s", len(s.loads.queue), e.dueAt)
	}
	if len(s.refreshWanted) != 1 {
		t.Error("the webhooks are not loaded")
	}
}

// Unhealthy endpoints may take half of all attempts. Throttled ones are released as soon as there is room, even if the
// last answers are from endpoints that have nothing more to send.
func TestTurnedAwayEndpointsGetTheirTurn(t *testing.T) {
	t.Parallel()
	const urls, each, concurrency = 300, 3, 16
	for seed := range uint64(20) {
		var hooks []*webhook
		for id := range int64(urls) {
			hooks = append(hooks, &webhook{id: id + 1, endpointID: id + 1, enabled: true, targetErr: errors.New("no target")})
		}
		s := NewScheduler(Config{
			Loaded: func(int) {}, Observe: func(Attempted) {}, Horizon: stream.NewHorizon(nil), Log: slog.New(slog.DiscardHandler),
			MaxAttempts: 1, Concurrency: concurrency, EndpointConcurrency: 8,
		})
		s.learn(hooks...)
		s.webhooks.enabled = true
		s.allowStartsUntil(time.Now().Add(time.Hour))
		var queued []*delivery
		versions := map[int64]int64{}
		for _, h := range hooks {
			s.own(h.id)
			versions[h.id] = s.endpoints[h.id].version
			for n := range int64(each) {
				queued = append(queued, &delivery{id: h.id*each + n, webhookID: h.id, responseID: strconv.FormatInt(n, 10)})
			}
		}
		random := rand.New(rand.NewPCG(seed, 0))
		s.handOver(queued, nil, versions)
		recorded := 0
		for recorded < urls*each {
			// Results are recorded in batches, while other attempts are in flight.
			runtime.Gosched()
			s.mu.Lock()
			for w := waitsForQuarter; w < waits; w++ {
				if n := len(s.throttled[w].queue); n > 0 && s.inFlight < concurrency && s.roomFor(w) {
					t.Errorf("seed %d: %d endpoints wait for %d although there is room", seed, n, w)
				}
			}
			idle := s.inFlight == 0
			n := len(s.results)
			if !idle {
				n = random.IntN(n + 1)
			}
			batch := s.results[:n:n]
			s.results = s.results[n:]
			s.mu.Unlock()
			if t.Failed() {
				return
			}
			if idle && n == 0 {
				t.Fatalf("seed %d: nothing is in flight, and of %d deliveries %d were sent", seed, urls*each, recorded)
			}
			s.resultsRecorded(batch)
			recorded += n
		}
	}
}
