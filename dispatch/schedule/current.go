package schedule

import "iter"

// Memory matches the store as long as each endpoint has the webhooks that the store has. An edit counts for every later
// transaction: a delivery queued after one must not overtake what the endpoint's webhooks already have in the store. So
// whatever comes from the store is compared with memory here, before it is held.

// isCurrent reports whether the endpoint's webhooks are known as the store had them at that version.
func (e *Endpoint) isCurrent(version int64) bool { return e != nil && e.version == version }

// matches reports whether memory matches what was found for the endpoint. stale means that the store had a webhook there
// that is not known here, and whose deliveries may come first. Each delivery's webhook must be known as the store had
// it: if one delivery had to be skipped, those behind it would overtake it.
func (s *Schedule) matches(e *Endpoint, stale bool, found iter.Seq[*Delivery]) bool {
	for d := range found {
		hook := s.webhooks.ByID[d.WebhookID]
		if hook == nil || hook.Version != d.Version || hook.EndpointID != e.id {
			return false
		}
	}
	return !stale
}

// awaitRefresh is called if memory does not match the store. It requests a refresh, and a load after that.
func (s *Schedule) awaitRefresh(e *Endpoint) {
	e.deferLoad(s.actions.Now())
	s.rearm(e)
	s.RequestRefresh()
}

// RequestRefresh makes the coordinator reload changed webhooks and find pending deliveries in the store.
func (s *Schedule) RequestRefresh() { s.RefreshWanted.Signal() }
