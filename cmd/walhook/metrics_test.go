package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"walhook/testenv"
)

// scraped is what /metrics said, by name.
type scraped map[string]*dto.MetricFamily

func (d *daemon) scrape() scraped {
	d.t.Helper()
	status, body := d.get("/metrics")
	if status != 200 {
		d.t.Fatalf("/metrics: %d %s", status, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		d.t.Fatalf("/metrics cannot be parsed: %v\n%s", err, body)
	}
	return families
}

// value returns the value of a series, the count of observations for a histogram. Labels are name and value in turn.
func (s scraped) value(name string, labels ...string) (value float64, found bool) {
	family := s[name]
	if family == nil {
		return 0, false
	}
series:
	for _, m := range family.Metric {
		for i := 0; i < len(labels); i += 2 {
			if !slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] }) {
				continue series
			}
		}
		return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
	}
	return 0, false
}

// shows waits until a series has a value.
func (d *daemon) shows(want float64, name string, labels ...string) {
	d.t.Helper()
	testenv.Eventually(d.t, patience, fmt.Sprintf("%s%v to be %v", name, labels, want), func() (bool, string) {
		got, found := d.scrape().value(name, labels...)
		return found && got == want, fmt.Sprintf("%v (there: %v)", got, found)
	})
}

// What an operator watches moves with what happens.
func TestMetricsMove(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).with("MAX_ATTEMPTS", "2")
	s.attach()
	d := s.start()
	// All that the stream says is there from the first moment, so that an alert on it works for a daemon that never got further.
	d.listens()
	if _, found := d.scrape().value("walhook_streaming"); !found {
		t.Error("walhook_streaming is not served while the daemon starts")
	}
	d.ready()
	s.hooks()
	broken := s.hook("/broken?key=hunter2", "completed")
	off := s.hook("/off", "completed", "enabled", "false")
	s.receiver.Respond("/broken", testenv.Always(testenv.Reply{Status: 503}))
	s.exec("insert into respondent (id, assessment_id, started_at, finished_at) values (1, 1, now(), now())")
	s.exec("update respondent set finished_at = clock_timestamp() where id = 1")
	s.expect("/hook", "created 1", "started 1", "completed 1", "changed 1")

	for event, n := range map[string]float64{"created": 1, "started": 1, "completed": 1, "changed": 1} {
		got, _ := d.scrape().value("walhook_events_total", "event_type", "response."+event)
		if event == "created" {
			n = 2 // the fence's own
		}
		if got != n {
			t.Errorf("walhook_events_total of %s is %v, not %v", event, got, n)
		}
	}
	d.shows(1, "walhook_attempts_total", "outcome", "failed", "status_class", "5xx")
	d.shows(1, "walhook_attempts_total", "outcome", "retry", "status_class", "5xx")
	d.shows(4, "walhook_attempts_total", "outcome", "success", "status_class", "2xx")
	d.shows(0, "walhook_attempts_total", "outcome", "failed", "status_class", "none")
	d.shows(6, "walhook_attempt_duration_seconds")
	d.shows(5, "walhook_first_attempt_latency_seconds")
	d.shows(1, "walhook_streaming")
	d.shows(0, "walhook_standby")
	d.shows(1, "walhook_source_connected")
	d.shows(1, "walhook_store_connected")
	d.shows(1, "walhook_slot_active")
	d.shows(1, "walhook_slot_wal_status", "status", "reserved")
	d.shows(0, "walhook_slot_wal_status", "status", "lost")
	d.shows(0, "walhook_slot_lag_seconds")
	d.shows(3, "walhook_owned_endpoints")
	d.shows(0, "walhook_attempts_in_flight")
	d.shows(1, "walhook_endpoints_in_trouble")
	d.shows(5, "walhook_webhooks", "state", "enabled")
	d.shows(1, "walhook_webhooks", "state", "disabled")
	d.shows(1, "walhook_daemons")
	d.shows(1, "walhook_switched_on")
	d.shows(0, "walhook_queue_deliveries")
	d.shows(0, "walhook_queue_oldest_seconds")
	if got, _ := d.scrape().value("walhook_build_info", "version", Version()); got != 1 {
		t.Error("walhook_build_info does not tell the version")
	}

	// What waits for a disabled webhook counts, and is not called late.
	testenv.Exec(t, s.store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values ($1, now() - interval '1 day', 3, '1')", off)
	d.shows(1, "walhook_queue_deliveries")
	d.shows(0, "walhook_queue_oldest_seconds")
	testenv.Exec(t, s.store, "insert into walhook.incident_log (kind, detail) values ('retention', 'x'), ('of_a_newer_version', 'x')")
	testenv.Exec(t, s.store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id, attempts, last_attempt_at, next_attempt_at) values ($1, now() - interval '1 hour', 3, '2', 1, now(), now() + interval '1 day')", broken)
	d.shows(2, "walhook_queue_deliveries")
	d.shows(1, "walhook_open_incidents", "kind", "retention")
	d.shows(1, "walhook_open_incidents", "kind", "other")
	if got, _ := d.scrape().value("walhook_queue_oldest_seconds"); got < 3600 || got > 7200 {
		t.Errorf("the oldest delivery is said to be %v s old", got)
	}

	// A gap is mended, and what the comparison fires counts as an event, too.
	before, _ := d.scrape().value("walhook_events_total", "event_type", "response.started")
	s.exec("alter publication walhook drop table respondent; insert into respondent (id, assessment_id, started_at) values (3, 1, now())")
	d.shows(1, "walhook_reconciles_total", "outcome", "done")
	d.shows(before+1, "walhook_events_total", "event_type", "response.started")
	d.ready()

	_, text := d.get("/metrics")
	for _, secret := range []string{"hunter2", "/hook", "/broken", "127.0.0.1", "http:"} {
		if strings.Contains(text, secret) {
			t.Errorf("/metrics shows %q", secret)
		}
	}
	s.checkDocumented(d.scrape())
}

var metricRow = regexp.MustCompile("(?m)^\\| `(walhook_[a-z_]+)` \\| ([a-z]+) \\|")

// checkDocumented holds the table of docs/reference/metrics.md to what is served.
func (s *site) checkDocumented(got scraped) {
	s.t.Helper()
	served := map[string]string{}
	for name, family := range got {
		if strings.HasPrefix(name, "walhook_") {
			served[name] = strings.ToLower(family.GetType().String())
		}
		if family.GetHelp() == "" {
			s.t.Errorf("%s has no help", name)
		}
	}
	if diff := cmp.Diff(documentedMetrics(s.t), served); diff != "" {
		s.t.Errorf("docs/reference/metrics.md (-) and /metrics (+):\n%s", diff)
	}
}
