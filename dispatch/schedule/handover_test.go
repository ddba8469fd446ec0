package schedule

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"walhook/dispatch/post"
)

// edited is a webhook as it was after some edit.
func edited(id, endpoint, edit int64) *Webhook {
	return &Webhook{ID: id, EndpointID: endpoint, Version: edit, Enabled: true, Ordered: true}
}

// newKnowing returns a schedule that knows these webhooks and sends nothing.
func newKnowing(hooks ...*Webhook) *Schedule {
	s := New(Limits{}, Actions{
		Now: time.Now, Visible: func(int64) bool { return true }, Arm: func(*Endpoint, time.Duration) {},
	})
	s.learn(hooks...)
	return s
}

func (s *Schedule) learn(hooks ...*Webhook) {
	known := &Webhooks{ByID: map[int64]*Webhook{}}
	for _, h := range hooks {
		known.ByID[h.ID] = h
	}
	s.ApplyWebhooks(known)
}

// own claims endpoints, with nothing pending in the store.
func (s *Schedule) own(ids ...int64) {
	for _, id := range ids {
		s.MarkClaimed(0, id, 0, 0)
		s.endpoints[id].on(nothingPending)
	}
}

// queued hands over a delivery for one of the webhooks of a store, or, unless kept, only the fact that it was queued.
func (s *Schedule) queued(id int64, h *Webhook, kept bool, store ...*Webhook) {
	var at []*Webhook
	for _, o := range store {
		if o.EndpointID == h.EndpointID {
			at = append(at, o)
		}
	}
	versions := map[int64]int64{h.EndpointID: versionOf(at)}
	if kept {
		s.HandOver([]*Delivery{{ID: id, WebhookID: h.ID, ResponseID: "7"}}, nil, versions)
	} else {
		s.HandOver(nil, map[int64]struct{}{h.ID: {}}, versions)
	}
}

// The owner of a URL is notified of what was queued there, even if the URL or its new webhook is unknown here, or is
// believed to be at another URL.
func TestOwnerIsNotifiedOfANewWebhook(t *testing.T) {
	t.Parallel()
	ours, others := edited(1, 10, 1), edited(2, 20, 2)
	for _, known := range [][]*Webhook{{ours}, {ours, others}, {ours, edited(2, 10, 1)}} {
		for _, kept := range []bool{true, false} {
			s := newKnowing(known...)
			s.own(10)
			s.queued(1, others, kept, ours, others)
			if got := s.TakeQueuedForOthers(); !slices.Equal(got, []int64{20}) || len(s.endpoints[10].held) > 0 {
				t.Errorf("endpoints %d were named, not 20, and %v are held", got, s.endpoints[10].held)
			}
		}
	}
}

// No delivery is held at a URL with stale webhooks, because others may come first there.
func TestStaleWebhooksHoldNothing(t *testing.T) {
	t.Parallel()
	here, elsewhere, off := edited(1, 10, 1), edited(2, 20, 2), edited(3, 10, 3)
	off.Enabled = false
	for name, edit := range map[string]*Webhook{
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
			store := map[int64]*Webhook{1: here, 2: elsewhere, 3: off}
			store[edit.ID] = edit
			var hooks []*Webhook
			for _, h := range store {
				hooks = append(hooks, h)
			}
			for _, kept := range []bool{true, false} {
				s.queued(2, store[1], kept, hooks...)
				if held() != 1 || len(s.RefreshWanted) != 1 {
					t.Fatalf("%d deliveries are held, and %d refreshes requested, with a delivery kept: %t", held(), len(s.RefreshWanted), kept)
				}
				<-s.RefreshWanted
			}
			s.learn(hooks...)
			e := s.endpoints[store[1].EndpointID]
			e.state = complete // a load has found nothing else
			s.queued(3, store[1], true, hooks...)
			want := 1
			if edit.ID == here.ID && edit.equivalent(here) {
				want = 2 // with the one of before; a load brings the one in between
			}
			if held() != want || len(e.held) != want {
				t.Errorf("%d deliveries are held, not %d", held(), want)
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
	loads := s.TakeLoads()
	if len(loads) != 1 {
		t.Fatalf("%d loads began, not 1", len(loads))
	}
	loads[0].Stale = true
	s.LoadsEnded(loads, nil)
	s.startAttempts()
	if !s.loads.empty() || e.state != deferred || e.dueAt.IsZero() {
		t.Errorf("%d loads are queued at once; the next is due at %s", len(s.loads.queue), e.dueAt)
	}
	if len(s.RefreshWanted) != 1 {
		t.Error("the webhooks are not loaded")
	}
}

// Unhealthy endpoints may take half of all attempts. Throttled ones are released as soon as there is room, even if the
// last answers are from endpoints that have nothing more to send.
func TestTurnedAwayEndpointsGetTheirTurn(t *testing.T) {
	t.Parallel()
	const urls, each, concurrency = 300, 3, 16
	for seed := range uint64(20) {
		var hooks []*Webhook
		for id := range int64(urls) {
			hooks = append(hooks, &Webhook{ID: id + 1, EndpointID: id + 1, Enabled: true})
		}
		var s *Schedule
		s = New(Limits{MaxAttempts: 1, Concurrency: concurrency, EndpointConcurrency: 8}, Actions{
			Now: time.Now, Visible: func(int64) bool { return true }, Arm: func(*Endpoint, time.Duration) {},
			Send: func(d *Delivery, unhealthy bool) {
				go func() { s.AttemptEnded(d, post.Outcome{Kind: post.Retry, Started: time.Now()}, unhealthy) }()
			},
		})
		s.learn(hooks...)
		s.webhooks.Enabled = true
		s.AllowStartsUntil(time.Now().Add(time.Hour))
		var queued []*Delivery
		versions := map[int64]int64{}
		for _, h := range hooks {
			s.own(h.ID)
			versions[h.ID] = s.endpoints[h.ID].version
			for n := range int64(each) {
				queued = append(queued, &Delivery{ID: h.ID*each + n, WebhookID: h.ID, ResponseID: strconv.FormatInt(n, 10)})
			}
		}
		random := rand.New(rand.NewPCG(seed, 0))
		s.HandOver(queued, nil, versions)
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
			s.ResultsRecorded(batch)
			recorded += n
		}
	}
}
