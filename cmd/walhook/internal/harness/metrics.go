package harness

import (
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"walhook/testenv"
)

// Scraped is the content of /metrics, by name.
type Scraped map[string]*dto.MetricFamily

// Scrape reads /metrics.
func (d *Daemon) Scrape() Scraped {
	d.T.Helper()
	status, body := d.Get("/metrics")
	if status != 200 {
		d.T.Fatalf("/metrics: %d %s", status, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		d.T.Fatalf("/metrics cannot be parsed: %v\n%s", err, body)
	}
	return families
}

// Value returns the value of a series, or the number of observations of a histogram. Labels alternate name and value.
func (s Scraped) Value(name string, labels ...string) (value float64, found bool) {
	family := s[name]
	if family == nil {
		return 0, false
	}
series:
	for _, m := range family.Metric {
		for i := 0; i < len(labels); i += 2 {
			if !slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool {
				return l.GetName() == labels[i] && l.GetValue() == labels[i+1]
			}) {
				continue series
			}
		}
		return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
	}
	return 0, false
}

// Shows waits until a series has a value.
func (d *Daemon) Shows(want float64, name string, labels ...string) {
	d.T.Helper()
	testenv.Eventually(d.T, Patience, fmt.Sprintf("%s%v to be %v", name, labels, want), func() (bool, string) {
		got, found := d.Scrape().Value(name, labels...)
		return found && got == want, fmt.Sprintf("%v (there: %v)", got, found)
	})
}
