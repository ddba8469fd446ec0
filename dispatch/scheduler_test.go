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
	return &webhook{id: id, endpointID: endpoint, edition: edit, enabled: true, ordered: true}
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

// own makes endpoints this daemon's, with nothing pending in the store.
func (s *Scheduler) own(ids ...int64) {
	for _, id := range ids {
		s.markClaimed(0, id, 0, 0)
		s.endpoints[id].moreInStore = false
	}
}

// queued hands over a delivery about the same response for one of a store's webhooks, or, where it is one too many to
// be kept, tells of it.
func (s *Scheduler) queued(id int64, h *webhook, kept bool, store ...*webhook) {
	var at []*webhook
	for _, o := range store {
		if o.endpointID == h.endpointID {
			at = append(at, o)
		}
	}
	urls := map[int64]int64{h.endpointID: editionOf(at)}
	if kept {
		s.handOver([]*delivery{{id: id, webhookID: h.id, responseID: "7"}}, nil, urls)
	} else {
		s.handOver(nil, map[int64]struct{}{h.id: {}}, urls)
	}
}

// The owner of a URL may have looked there before the first delivery of a new webhook was queued.
func TestOwnerIsToldOfWhatANewWebhookGot(t *testing.T) {
	t.Parallel()
	ours, others := edited(1, 10, 1), edited(2, 20, 2)
	s := newKnowing(ours)
	s.own(10)
	s.queued(1, others, true, ours, others)
	if got := s.takeQueuedForOthers(); got != "" {
		t.Fatalf("endpoint %s was told of, and nobody knows whose the delivery is", got)
	}
	_, came := s.knownWebhooks()
	s.learn(ours, others)
	s.clearStale(came - 1)
	if got := s.takeQueuedForOthers(); got != "" {
		t.Errorf("endpoint %s was told of before the webhooks were loaded", got)
	}
	s.clearStale(came)
	if got := s.takeQueuedForOthers(); got != "20" {
		t.Errorf("endpoints %q were told of, not 20", got)
	}
}

// Nothing is held at a URL whose webhooks are not known as the store had them: others may be first there.
func TestNothingIsHeldAmongStrangers(t *testing.T) {
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
					t.Fatalf("%d deliveries are held, and %d looks at the webhooks asked for, where a delivery is kept: %t", held(), len(s.refreshWanted), kept)
				}
				<-s.refreshWanted
			}
			s.learn(hooks...)
			e := s.endpoints[store[1].endpointID]
			e.loading, e.moreInStore = false, false // a look has found nothing else
			s.queued(3, store[1], true, hooks...)
			if held() != 1 || len(e.held) != 1 {
				t.Errorf("%d deliveries are held, not the one that came afterwards", held())
			}
		})
	}
}

// A look that found other webhooks than are known is not made again before they may have been loaded: it would find the
// same.
func TestStaleLookWaits(t *testing.T) {
	t.Parallel()
	s := newKnowing(edited(1, 10, 1))
	s.own(10)
	e := s.endpoints[10]
	s.queueLoad(e)
	looks := s.takeLoads()
	if len(looks) != 1 {
		t.Fatalf("%d looks were begun, not 1", len(looks))
	}
	looks[0].stale = true
	s.loadsEnded(looks, nil)
	s.startAttempts()
	if len(s.toLoad) > 0 || e.dueAt.IsZero() {
		t.Errorf("%d looks are asked for at once; the next is due at %s", len(s.toLoad), e.dueAt)
	}
	if len(s.refreshWanted) != 1 {
		t.Error("the webhooks are not loaded")
	}
}

// Endpoints that fail may take half of all attempts. Those that were turned away for it get their turn as soon as there
// is room, also where the last answers are of endpoints that have nothing more to send.
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
		editions := map[int64]int64{}
		for _, h := range hooks {
			s.own(h.id)
			editions[h.id] = s.endpoints[h.id].edition
			for n := range int64(each) {
				queued = append(queued, &delivery{id: h.id*each + n, webhookID: h.id, responseID: strconv.FormatInt(n, 10)})
			}
		}
		random := rand.New(rand.NewPCG(seed, 0))
		s.handOver(queued, nil, editions)
		recorded := 0
		for recorded < urls*each {
			// What is recorded comes in batches, while others are in flight.
			runtime.Gosched()
			s.mu.Lock()
			for why, turnedAway := range s.throttledEndpoints {
				if len(turnedAway) > 0 && s.inFlight < concurrency && s.roomFor(why) {
					t.Errorf("seed %d: %d endpoints wait for room that there is, of kind %d", seed, len(turnedAway), why)
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
