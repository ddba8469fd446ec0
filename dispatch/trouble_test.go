package dispatch

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"walhook/dispatch/post"
)

// Once all results are recorded, a webhook is in trouble if and only if its latest attempt failed, however attempts
// overlap, and in whatever batches and order they are recorded. Trouble never dates from before a success.
func TestTroubleFollowsTheLatestAttempt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := newEndpoint(1, &memory{window: maxWindow})
		start := time.Unix(1_800_000_000, 0)
		hooks := []*webhook{{id: 1, activation: 4}, {id: 2, activation: 5}}
		var active []*delivery
		var batch []result
		begun := map[int64]time.Time{}
		ended := map[int64][]result{}
		trouble := map[int64]int{} // as in the store: the number of the result that it dates from
		for n := range rapid.IntRange(1, 40).Draw(t, "steps") {
			now := start.Add(time.Duration(n) * time.Second)
			switch step := rapid.IntRange(0, 5).Draw(t, "step"); {
			case step < 2:
				hook := hooks[rapid.IntRange(0, 1).Draw(t, "webhook")]
				d := &delivery{id: int64(n + 1), webhookID: hook.id, hook: hook, endpoint: e}
				put(&e.active, d.id, d)
				begun[d.id] = now
				active = append(active, d)
			case step < 5 && len(active) > 0:
				i := rapid.IntRange(0, len(active)-1).Draw(t, "ends")
				d := active[i]
				active = append(active[:i:i], active[i+1:]...)
				kind := rapid.SampledFrom([]post.OutcomeKind{post.Success, post.Retry, post.Gone}).Draw(t, "outcome")
				o := post.Outcome{Kind: kind, Started: begun[d.id]}
				e.attemptEnded(d, o, now, 8)
				r := result{d: d, outcome: o, activation: d.hook.activation}
				batch = append(batch, r)
				ended[d.webhookID] = append(ended[d.webhookID], r)
			case step == 5:
				recorded := batch
				if rapid.Bool().Draw(t, "in parts") {
					recorded = nil
					rest := batch[:0:0]
					for _, r := range batch {
						if rapid.Bool().Draw(t, "now") {
							recorded = append(recorded, r)
						} else {
							rest = append(rest, r)
						}
					}
					batch = rest
				} else {
					batch = nil
				}
				for _, v := range verdicts(recorded) {
					if v.activation != hooks[v.webhookID-1].activation {
						t.Fatalf("webhook %d is judged for activation %d", v.webhookID, v.activation)
					}
					_, before := trouble[v.webhookID]
					if v.succeeded {
						delete(trouble, v.webhookID)
						before = false
					}
					if v.failing && !before {
						trouble[v.webhookID] = len(ended[v.webhookID])
					}
				}
				for i := range recorded {
					e.resultRecorded(recorded[i].d, true)
				}
				for _, hook := range hooks {
					if len(batch) > 0 {
						break
					}
					checkTrouble(t, hook.id, ended[hook.id], trouble)
				}
			}
		}
	})
}

func checkTrouble(t *rapid.T, webhookID int64, ended []result, trouble map[int64]int) {
	since, is := trouble[webhookID]
	if len(ended) == 0 {
		if is {
			t.Fatalf("webhook %d is in trouble and was never tried", webhookID)
		}
		return
	}
	last := ended[0]
	for n, r := range ended {
		if !r.outcome.Started.Before(last.outcome.Started) {
			last = r
		}
		if r.outcome.Kind == post.Success && is && n >= since {
			t.Fatalf("webhook %d has been in trouble since result %d, and result %d is a success", webhookID, since, n+1)
		}
	}
	if failed := last.outcome.Kind != post.Success; failed != is {
		t.Fatalf("webhook %d is in trouble: %t, and its latest attempt failed: %t", webhookID, is, failed)
	}
}
