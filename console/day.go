package console

import (
	"fmt"
	"html/template"
	"strings"
	"time"
)

// day is the last day by the hour, oldest first.
type day struct {
	hours []dayHour
	zone  zone
}

type dayHour struct {
	Hour                 time.Time
	Deliveries, Failures int64
	Estimated            bool
}

func (d day) total(of func(dayHour) int64) string {
	sum, about := int64(0), ""
	for _, h := range d.hours {
		sum += of(h)
		if h.Estimated {
			about = "about "
		}
	}
	return about + count(sum)
}

// Deliveries are those of the whole day.
func (d day) Deliveries() string { return d.total(func(h dayHour) int64 { return h.Deliveries }) }

// Failures are those of the whole day.
func (d day) Failures() string { return d.total(func(h dayHour) int64 { return h.Failures }) }

// Empty reports a day without deliveries.
func (d day) Empty() bool { return d.total(func(h dayHour) int64 { return h.Deliveries }) == "0" }

// Most is the number of deliveries in the busiest hour: the height of the graph.
func (d day) Most() int64 {
	most := int64(0)
	for _, h := range d.hours {
		most = max(most, h.Deliveries)
	}
	return most
}

// Graph draws a bar for each hour, with its failures at the foot. The page stretches it to its width.
func (d day) Graph() template.HTML {
	const width, height, step = 720, 120, 30
	most := max(d.Most(), 1)
	scaled := func(n int64) int64 {
		if n == 0 {
			return 0
		}
		return max(2, n*height/most)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="graph" viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" `+
		`aria-label="The last day by the hour: %s deliveries, %s of them failed">`,
		width, height+1, d.Deliveries(), d.Failures())
	for i, h := range d.hours {
		about := ""
		if h.Estimated {
			about = "about "
		}
		bar := scaled(h.Deliveries)
		failed := min(bar, scaled(h.Failures))
		x, wide := i*step+3, step-6
		fmt.Fprintf(&b, `<g><title>%s: %s%s deliveries, %s failed</title>`,
			h.Hour.In(d.zone.loc).Format("Mon 15:04"), about, count(h.Deliveries), count(h.Failures))
		fmt.Fprintf(&b, `<rect class="room" x="%d" y="0" width="%d" height="%d"/>`, i*step, step, height)
		fmt.Fprintf(&b, `<rect class="rest" x="%d" y="%d" width="%d" height="1"/>`, x, height, wide)
		if bar > failed {
			fmt.Fprintf(&b, `<rect class="ok" x="%d" y="%d" width="%d" height="%d"/>`, x, height-bar, wide, bar-failed)
		}
		if failed > 0 {
			fmt.Fprintf(&b, `<rect class="bad" x="%d" y="%d" width="%d" height="%d"/>`, x, height-failed, wide, failed)
		}
		b.WriteString("</g>")
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// Hours are the labels below the graph, in the site's time: each stands for six hours.
func (d day) Hours() (labels []string) {
	for i := 0; i < len(d.hours); i += 6 {
		labels = append(labels, d.hours[i].Hour.In(d.zone.loc).Format("15:04"))
	}
	return labels
}
