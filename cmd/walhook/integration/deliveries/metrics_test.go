package deliveries

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Metrics reflect what happens.
func TestMetricsMove(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "2")
	s.Attach()
	d := s.Start()
	// The stream's metrics exist from the start, so that alerts work for a daemon that never gets further.
	d.Listens()
	if _, found := d.Scrape().Value("walhook_streaming"); !found {
		t.Error("walhook_streaming is not served while the daemon starts")
	}
	d.Ready()
	s.Hooks()
	broken := s.Hook("/broken?key=hunter2", "completed")
	off := s.Hook("/off", "completed", "enabled", "false")
	s.Receiver.Respond("/broken", testenv.Always(testenv.Reply{Status: 503}))
	s.Exec("insert into respondent (id, assessment_id, started_at, finished_at) values (1, 1, now(), now())")
	s.Exec("update respondent set finished_at = clock_timestamp() where id = 1")
	s.Expect("/hook", "created 1", "started 1", "completed 1", "changed 1")

	for event, n := range map[string]float64{"created": 1, "started": 1, "completed": 1, "changed": 1} {
		got, _ := d.Scrape().Value("walhook_events_total", "event_type", "response."+event)
		if event == "created" {
			n = 2 // the fence's own
		}
		if got != n {
			t.Errorf("walhook_events_total of %s is %v, not %v", event, got, n)
		}
	}
	d.Shows(1, "walhook_attempts_total", "outcome", "failed", "status_class", "5xx")
	d.Shows(1, "walhook_attempts_total", "outcome", "retry", "status_class", "5xx")
	d.Shows(4, "walhook_attempts_total", "outcome", "success", "status_class", "2xx")
	d.Shows(0, "walhook_attempts_total", "outcome", "failed", "status_class", "none")
	d.Shows(6, "walhook_attempt_duration_seconds")
	d.Shows(5, "walhook_first_attempt_latency_seconds")
	d.Shows(1, "walhook_streaming")
	d.Shows(0, "walhook_standby")
	d.Shows(1, "walhook_source_connected")
	d.Shows(1, "walhook_store_connected")
	d.Shows(1, "walhook_slot_active")
	d.Shows(1, "walhook_slot_wal_status", "status", "reserved")
	d.Shows(0, "walhook_slot_wal_status", "status", "lost")
	d.Shows(0, "walhook_slot_lag_seconds")
	d.Shows(3, "walhook_owned_endpoints")
	d.Shows(0, "walhook_attempts_in_flight")
	d.Shows(1, "walhook_endpoints_in_trouble")
	d.Shows(5, "walhook_webhooks", "state", "enabled")
	d.Shows(1, "walhook_webhooks", "state", "disabled")
	d.Shows(1, "walhook_daemons")
	d.Shows(1, "walhook_enabled")
	d.Shows(0, "walhook_queue_deliveries")
	d.Shows(0, "walhook_queue_oldest_age_seconds")
	if got, _ := d.Scrape().Value("walhook_build_info", "version", cli.Version()); got != 1 {
		t.Error("walhook_build_info does not show the version")
	}

	// Deliveries of a disabled webhook count, but not as late.
	testenv.Exec(t, s.Store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values ($1, now() - interval '1 day', 3, '1')", off)
	d.Shows(1, "walhook_queue_deliveries")
	d.Shows(0, "walhook_queue_oldest_age_seconds")
	testenv.Exec(t, s.Store, "insert into walhook.incident_log (kind, detail) values ('retention', 'x'), ('of_a_newer_version', 'x')")
	testenv.Exec(t, s.Store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id, attempts, last_attempt_at, next_attempt_at) values ($1, now() - interval '1 hour', 3, '2', 1, now(), now() + interval '1 day')", broken)
	d.Shows(2, "walhook_queue_deliveries")
	d.Shows(1, "walhook_open_incidents", "kind", "retention")
	d.Shows(1, "walhook_open_incidents", "kind", "other")
	if got, _ := d.Scrape().Value("walhook_queue_oldest_age_seconds"); got < 3600 || got > 7200 {
		t.Errorf("the oldest delivery is reported as %v s old", got)
	}

	// A gap is closed, and the comparison's events count as well.
	before, _ := d.Scrape().Value("walhook_events_total", "event_type", "response.started")
	s.Exec("alter publication walhook drop table respondent; insert into respondent (id, assessment_id, started_at) values (3, 1, now())")
	d.Shows(1, "walhook_reconciles_total", "outcome", "done")
	d.Shows(before+1, "walhook_events_total", "event_type", "response.started")
	d.Ready()

	_, text := d.Get("/metrics")
	for _, secret := range []string{"hunter2", "/hook", "/broken", "127.0.0.1", "http:"} {
		if strings.Contains(text, secret) {
			t.Errorf("/metrics shows %q", secret)
		}
	}
	checkDocumented(s, d.Scrape())
}

// While the store is away, the lag grows with what the application writes, and the outage is logged in short lines.
func TestMetricsWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	store := testenv.NewServer(t, nil)
	s := harness.NewSite(t, harness.SampleSchema).WithStore(store)
	d := s.Run()
	store.HaltImmediately()
	d.Readyz(503, "")
	lag := func() float64 {
		value, found := d.Scrape().Value("walhook_slot_lag_bytes")
		if !found {
			t.Fatal("walhook_slot_lag_bytes is not served")
		}
		return value
	}
	const row = 1 << 16
	s.Exec("insert into respondent (id, assessment_id, name) values (1, 1, (select string_agg(md5(n::text), '') from generate_series(1, $1) n))", row/32)
	testenv.Eventually(t, harness.Patience, "the lag to include a row that is not stored", func() (bool, string) {
		got := lag()
		return got >= row/2, fmt.Sprint(got)
	})
	s.Up(store)
	d.Ready()
	testenv.Eventually(t, harness.Patience, "the lag to end", func() (bool, string) {
		got := lag()
		return got < row/2, fmt.Sprint(got)
	})
	for line := range strings.SplitSeq(d.Log.String(), "\n") {
		if strings.Contains(line, "index of the log") || strings.Contains(line, `\n`) {
			t.Errorf("the log of an outage has the line %s", line)
		}
	}
}

// A limit that another one makes useless is reported, unless it is the default.
func TestUselessLimitIsReported(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	for limit, reported := range map[string]bool{"": false, "2": false, "3": true} {
		d := s.With("CONCURRENCY", "2", "ENDPOINT_CONCURRENCY", limit).Start()
		d.Listens()
		d.Stop()
		if strings.Contains(d.Log.String(), "WALHOOK_ENDPOINT_CONCURRENCY has no effect above WALHOOK_CONCURRENCY") != reported {
			t.Errorf("a daemon with %q of 2 attempts for each URL logs:\n%s", limit, d.Log)
		}
	}
}

// checkDocumented compares the table in docs/reference/metrics.md with /metrics, and the names with Prometheus's
// conventions.
func checkDocumented(s *harness.Site, got harness.Scraped) {
	s.T.Helper()
	served := map[string]string{}
	var ours []*dto.MetricFamily
	for name, family := range got {
		if strings.HasPrefix(name, "walhook_") {
			served[name] = strings.ToLower(family.GetType().String())
			ours = append(ours, family)
		}
		if family.GetHelp() == "" {
			s.T.Errorf("%s has no help", name)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(ours).Lint()
	if err != nil {
		s.T.Error(err)
	}
	for _, problem := range problems {
		s.T.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	if diff := cmp.Diff(harness.DocumentedMetrics(s.T, "../../../.."), served); diff != "" {
		s.T.Errorf("docs/reference/metrics.md (-) and /metrics (+):\n%s", diff)
	}
}
