package dispatch

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"walhook/dispatch/post"
)

// latest tells when the latest attempts of either kind began. Attempts count in that order, and not in the order in which they end: a
// timeout that is over after a later attempt has succeeded is old news.
type latest struct{ succeeded, failed time.Time }

// ended takes an attempt that has ended into account. It reports whether none of the other kind began later.
func (l *latest) ended(o post.Outcome) (counts bool) {
	if o.Kind == post.Success {
		l.succeeded = later(l.succeeded, o.Started)
		return !o.Started.Before(l.failed)
	}
	l.failed = later(l.failed, o.Started)
	return !o.Started.Before(l.succeeded)
}

// failing reports whether the latest attempt of all failed.
func (l *latest) failing() bool {
	return l != nil && !l.failed.IsZero() && !l.failed.Before(l.succeeded)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// verdict is what results that are recorded together say of one activation of a webhook. The store alone knows which webhooks are in
// trouble.
type verdict struct {
	webhookID, activation int64

	succeeded bool // once at least: what failed before counts no more
	failing   bool // its latest attempt failed, recorded or not
}

// verdicts returns what results say of their webhooks, in the order of these. Results may be recorded in any order.
func verdicts(results []result) []verdict {
	type key struct{ webhookID, activation int64 }
	of := map[key]verdict{}
	for i := range results {
		r := &results[i]
		if r.outcome.Kind == post.Aborted {
			continue
		}
		k := key{r.d.webhookID, r.activation}
		v := of[k]
		of[k] = verdict{
			webhookID: k.webhookID, activation: k.activation,
			succeeded: v.succeeded || r.outcome.Kind == post.Success, failing: r.d.endpoint.byWebhook[k.webhookID].failing(),
		}
	}
	return slices.SortedFunc(maps.Values(of), func(a, b verdict) int {
		return cmp.Or(cmp.Compare(a.webhookID, b.webhookID), cmp.Compare(a.activation, b.activation))
	})
}
