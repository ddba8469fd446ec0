package dispatch

import (
	"testing"

	"walhook/cdc"
)

// edited is a webhook as it was after some edit.
func edited(id, endpoint, edit int64) *webhook {
	return &webhook{id: id, endpointID: endpoint, edition: &edit, enabled: true, ordered: true}
}

// newKnowing returns a Scheduler that knows these webhooks and sends nothing.
func newKnowing(hooks ...*webhook) *Scheduler {
	s := NewScheduler(Config{Loaded: func(int) {}, Horizon: cdc.NewHorizon(nil)})
	s.learn(hooks...)
	return s
}

func (s *Scheduler) learn(hooks ...*webhook) {
	known := &webhooks{byID: map[int64]*webhook{}, trouble: map[int64]struct{}{}}
	for _, h := range hooks {
		known.byID[h.id] = h
	}
	s.apply(known)
}

// own makes endpoints this daemon's, with nothing pending in the store.
func (s *Scheduler) own(ids ...int64) {
	for _, id := range ids {
		s.claimed(id, 0, nil)
		s.endpoints[id].more = false
	}
}

func queuedFor(h *webhook, id int64) []*delivery {
	return []*delivery{{id: id, webhookID: h.id, edition: h.edition, responseID: "7"}}
}

// The owner of a URL may have looked there before the first delivery of a new webhook was queued.
func TestOwnerIsToldOfWhatANewWebhookGot(t *testing.T) {
	t.Parallel()
	ours, others := edited(1, 10, 1), edited(2, 20, 2)
	s := newKnowing(ours)
	s.own(10)
	s.handOver(queuedFor(others, 1), nil)
	if got := s.takeElsewhere(); got != "" {
		t.Fatalf("endpoint %s was told of, and nobody knows whose the delivery is", got)
	}
	_, came := s.known()
	s.learn(ours, others)
	s.meet(came)
	if got := s.takeElsewhere(); got != "20" {
		t.Errorf("endpoints %q were told of, not 20", got)
	}
}

// What comes behind a delivery of a webhook that is not known as the store had it is not held until the webhooks were loaded.
func TestNothingOvertakesAStranger(t *testing.T) {
	t.Parallel()
	here, elsewhere, moved := edited(1, 10, 1), edited(2, 20, 2), edited(2, 10, 3)
	for name, come := range map[string]func(s *Scheduler){
		"handed over":            func(s *Scheduler) { s.handOver(queuedFor(moved, 1), nil) },
		"more than is kept":      func(s *Scheduler) { s.handOver(nil, map[int64]*int64{moved.id: moved.edition}) },
		"of an unknown webhook":  func(s *Scheduler) { s.handOver(queuedFor(edited(3, 10, 4), 1), nil) },
		"more of an unknown one": func(s *Scheduler) { s.handOver(nil, map[int64]*int64{3: nil}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newKnowing(here, elsewhere)
			s.own(10, 20)
			come(s)
			_, came := s.known()
			s.handOver(queuedFor(here, 2), nil)
			if held := len(s.endpoints[10].held); held != 0 {
				t.Fatalf("%d deliveries are held", held)
			}
			s.meet(came - 1)
			if !s.strange() {
				t.Fatal("the webhooks counted as known before they were loaded")
			}
			s.learn(here, moved, edited(3, 10, 4))
			s.meet(came)
			s.endpoints[10].loading, s.endpoints[10].more = false, false // a look has found nothing else
			s.handOver(queuedFor(here, 3), nil)
			if held := len(s.endpoints[10].held); held != 1 {
				t.Errorf("%d deliveries are held, not the one that came afterwards", held)
			}
		})
	}
}

// A look that found other webhooks than are known is not made again before they may have been loaded: it would find the same.
func TestStaleLookWaits(t *testing.T) {
	t.Parallel()
	s := newKnowing(edited(1, 10, 1))
	s.own(10)
	e := s.endpoints[10]
	s.wantLoad(e)
	looks := s.takeLooks()
	if len(looks) != 1 {
		t.Fatalf("%d looks were begun, not 1", len(looks))
	}
	looks[0].stored = editions{webhooks: 2, sum: 3}
	s.loaded(looks[0], nil)
	s.pump()
	if len(s.toLoad) > 0 || e.dueAt.IsZero() {
		t.Errorf("%d looks are asked for at once; the next is due at %s", len(s.toLoad), e.dueAt)
	}
	if len(s.woken) != 1 {
		t.Error("the webhooks are not loaded")
	}
}
