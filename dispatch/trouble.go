package dispatch

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

// webhookVerdict is what a batch of results says about one activation of a webhook. Only the store knows which webhooks
// are in trouble.
type webhookVerdict struct {
	webhookID, activation int64

	succeeded bool // at least once: earlier failures no longer count
	failing   bool // its latest attempt failed, whether recorded or not
}

// verdicts returns the verdicts of a batch, sorted. Results may be recorded in any order.
func verdicts(results []result) []webhookVerdict {
	type key struct{ webhookID, activation int64 }
	of := map[key]webhookVerdict{}
	for i := range results {
		r := &results[i]
		if r.outcome.Kind == post.Aborted {
			continue
		}
		k := key{r.d.webhookID, r.activation}
		v := of[k]
		of[k] = webhookVerdict{
			webhookID: k.webhookID, activation: k.activation,
			succeeded: v.succeeded || r.outcome.Kind == post.Success, failing: r.d.endpoint.byWebhook[k.webhookID].failing(),
		}
	}
	return slices.SortedFunc(maps.Values(of), func(a, b webhookVerdict) int {
		return cmp.Or(cmp.Compare(a.webhookID, b.webhookID), cmp.Compare(a.activation, b.activation))
	})
}
