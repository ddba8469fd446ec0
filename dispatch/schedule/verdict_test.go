package schedule

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
		hooks := []*Webhook{{ID: 1, Activation: 4}, {ID: 2, Activation: 5}}
		var active []*Delivery
		var batch []Result
		begun := map[int64]time.Time{}
		ended := map[int64][]Result{}
		trouble := map[int64]int{} // as in the store: the number of the result that it dates from
		for n := range rapid.IntRange(1, 40).Draw(t, "steps") {
			now := start.Add(time.Duration(n) * time.Second)
			switch step := rapid.IntRange(0, 5).Draw(t, "step"); {
			case step < 2:
				hook := hooks[rapid.IntRange(0, 1).Draw(t, "webhook")]
				d := &Delivery{ID: int64(n + 1), WebhookID: hook.ID, Hook: hook, endpoint: e}
				put(&e.active, d.ID, d)
				begun[d.ID] = now
				active = append(active, d)
			case step < 5 && len(active) > 0:
				i := rapid.IntRange(0, len(active)-1).Draw(t, "ends")
				d := active[i]
				active = append(active[:i:i], active[i+1:]...)
				kind := rapid.SampledFrom([]post.OutcomeKind{post.Success, post.Retry, post.Gone}).Draw(t, "outcome")
				o := post.Outcome{Kind: kind, Started: begun[d.ID]}
				e.attemptEnded(d, o, now, 8)
				r := Result{Delivery: d, Outcome: o, Activation: d.Hook.Activation}
				batch = append(batch, r)
				ended[d.WebhookID] = append(ended[d.WebhookID], r)
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
					if v.Activation != hooks[v.WebhookID-1].Activation {
						t.Fatalf("webhook %d is judged for activation %d", v.WebhookID, v.Activation)
					}
					_, before := trouble[v.WebhookID]
					if v.Succeeded {
						delete(trouble, v.WebhookID)
						before = false
					}
					if v.Failing && !before {
						trouble[v.WebhookID] = len(ended[v.WebhookID])
					}
				}
				for i := range recorded {
					e.resultRecorded(recorded[i].Delivery, true)
				}
				for _, hook := range hooks {
					if len(batch) > 0 {
						break
					}
					checkTrouble(t, hook.ID, ended[hook.ID], trouble)
				}
			}
		}
	})
}

func checkTrouble(t *rapid.T, webhookID int64, ended []Result, trouble map[int64]int) {
	since, is := trouble[webhookID]
	if len(ended) == 0 {
		if is {
			t.Fatalf("webhook %d is in trouble and was never tried", webhookID)
		}
		return
	}
	last := ended[0]
	for n, r := range ended {
		if !r.Outcome.Started.Before(last.Outcome.Started) {
			last = r
		}
		if r.Outcome.Kind == post.Success && is && n >= since {
			t.Fatalf("webhook %d has been in trouble since result %d, and result %d is a success", webhookID, since, n+1)
		}
	}
	if failed := last.Outcome.Kind != post.Success; failed != is {
		t.Fatalf("webhook %d is in trouble: %t, and its latest attempt failed: %t", webhookID, is, failed)
	}
}
