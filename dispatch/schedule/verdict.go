package schedule

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"walhook/dispatch/post"
)

// latestAttempts holds when the latest success and the latest failure started. Attempts count in the order in which
// they started: a timeout does not count if an attempt that started later has succeeded before it.
type latestAttempts struct{ succeeded, failed time.Time }

// observe takes the outcome of an attempt. It reports whether the outcome is newer than all of the other kind.
func (l *latestAttempts) observe(o post.Outcome) (counts bool) {
	if o.Kind == post.Success {
		l.succeeded = later(l.succeeded, o.Started)
		return !o.Started.Before(l.failed)
	}
	l.failed = later(l.failed, o.Started)
	return !o.Started.Before(l.succeeded)
}

// failing reports whether the latest attempt failed.
func (l *latestAttempts) failing() bool {
	return l != nil && !l.failed.IsZero() && !l.failed.Before(l.succeeded)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Verdict is what a batch of results says about one activation of a webhook. Only the store knows which webhooks
// are in trouble.
type Verdict struct {
	WebhookID, Activation int64

	Succeeded bool // at least once: earlier failures no longer count
	Failing   bool // its latest attempt failed, whether recorded or not
}

// verdicts returns the verdicts of a batch, sorted. Results may be recorded in any order.
func verdicts(results []Result) []Verdict {
	type key struct{ webhookID, activation int64 }
	of := map[key]Verdict{}
	for i := range results {
		r := &results[i]
		if r.Outcome.Kind == post.Aborted {
			continue
		}
		k := key{r.Delivery.WebhookID, r.Activation}
		v := of[k]
		of[k] = Verdict{
			WebhookID: k.webhookID, Activation: k.activation,
			Succeeded: v.Succeeded || r.Outcome.Kind == post.Success, Failing: r.Delivery.endpoint.byWebhook[k.webhookID].failing(),
		}
	}
	return slices.SortedFunc(maps.Values(of), func(a, b Verdict) int {
		return cmp.Or(cmp.Compare(a.WebhookID, b.WebhookID), cmp.Compare(a.Activation, b.Activation))
	})
}

// Verdicts returns the verdicts of a batch.
func (s *Schedule) Verdicts(results []Result) []Verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return verdicts(results)
}
