package console

import (
	"context"
	"fmt"
	"html/template"
	"strings"

	"github.com/jackc/pgx/v5"
)

// activity has the deliveries of a webhook in each hour of the last day, oldest first.
type activity struct {
	deliveries, failures []int64
	estimated            bool
}

// readActivity returns the activity of some webhooks by id.
func readActivity(ctx context.Context, tx pgx.Tx, ids []int64, atMost int64) (map[int64]activity, error) {
	rows, err := tx.Query(ctx, "select webhook_id, deliveries, failures, estimated from walhook.webhook_activity($1, $2)", ids, atMost)
	if err != nil {
		return nil, err
	}
	days := map[int64]activity{}
	var id, deliveries, failures int64
	var estimated bool
	_, err = pgx.ForEachRow(rows, []any{&id, &deliveries, &failures, &estimated}, func() error {
		day := days[id]
		day.estimated = day.estimated || estimated
		day.deliveries, day.failures = append(day.deliveries, deliveries), append(day.failures, failures)
		days[id] = day
		return nil
	})
	return days, err
}

// total returns the sum, with "about" before an estimate.
func (a activity) total(hours []int64) string {
	sum := int64(0)
	for _, n := range hours {
		sum += n
	}
	if a.estimated && sum > 0 {
		return "about " + count(sum)
	}
	return count(sum)
}

// Deliveries and Failures of the whole day are for templates.
func (a activity) Deliveries() string { return a.total(a.deliveries) }
func (a activity) Failures() string   { return a.total(a.failures) }

// Failed reports whether any delivery failed.
func (a activity) Failed() bool { return a.Failures() != "0" }

// Graph draws a bar for each hour, its failures on top in another colour.
func (a activity) Graph() template.HTML {
	const barWidth, gap, height = 4, 1, 24
	most := int64(1)
	for _, n := range a.deliveries {
		most = max(most, n)
	}
	scaled := func(n int64) int64 {
		if n == 0 {
			return 0
		}
		return max(2, n*height/most)
	}
	var b strings.Builder
	width := len(a.deliveries)*(barWidth+gap) - gap
	fmt.Fprintf(&b, `<svg class="spark" viewBox="0 0 %d %d" width="%d" height="%d" role="img" `+
		`aria-label="Last day: deliveries %s, failures %s">`, width, height, width, height, a.Deliveries(), a.Failures())
	for i, n := range a.deliveries {
		x := i * (barWidth + gap)
		bar := scaled(n)
		failed := min(bar, scaled(a.failures[i]))
		switch {
		case n == 0:
			fmt.Fprintf(&b, `<rect class="rest" x="%d" y="%d" width="%d" height="1"/>`, x, height-1, barWidth)
			continue
		case bar > failed:
			fmt.Fprintf(&b, `<rect class="ok" x="%d" y="%d" width="%d" height="%d"/>`, x, height-bar+failed, barWidth, bar-failed)
		}
		if failed > 0 {
			fmt.Fprintf(&b, `<rect class="bad" x="%d" y="%d" width="%d" height="%d"/>`, x, height-bar, barWidth, failed)
		}
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}
