package documents

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"walhook/cmd/walhook/internal/harness"
)

const alertsFile = "../../../examples/prometheus/alerts.yml"

// readAlerts parses the rules like Prometheus, including its checks of expressions and templates.
func readAlerts(t *testing.T) []rulefmt.Rule {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation)
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil || len(groups.Groups) != 1 {
		t.Fatal("alerts.yml does not have exactly one group")
	}
	return groups.Groups[0].Rules
}

// checkExpr verifies that an expression uses only existing metrics.
func checkExpr(t *testing.T, where, text string, documented map[string]string) {
	t.Helper()
	expr, err := parser.ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %s: %v", where, text, err)
		return
	}
	names := 0
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		names++
		name := selector.Name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, cut := strings.CutSuffix(name, suffix); cut && documented[base] == "histogram" {
				name = base
			}
		}
		if documented[name] == "" || documented[selector.Name] == "histogram" {
			t.Errorf("%s: /metrics serves no %s", where, selector.Name)
		}
		return nil
	})
	if names == 0 {
		t.Errorf("%s: %s uses no metric", where, text)
	}
}

// Every alert parses, uses existing metrics, and has a severity and a runbook link.
func TestAlerts(t *testing.T) {
	t.Parallel()
	documented := harness.DocumentedMetrics(t, "../../..")
	for _, rule := range readAlerts(t) {
		checkExpr(t, rule.Alert, rule.Expr, documented)
		if s := rule.Labels["severity"]; s != "critical" && s != "warning" && s != "info" {
			t.Errorf("%s has the severity %q", rule.Alert, s)
		}
		for _, annotation := range []string{"summary", "description"} {
			if rule.Annotations[annotation] == "" {
				t.Errorf("%s has no %s", rule.Alert, annotation)
			}
		}
		if got, want := rule.Annotations["runbook_url"], "docs/how-to/runbook.md#"+strings.ToLower(rule.Alert); got != want {
			t.Errorf("%s links to %q, not %q", rule.Alert, got, want)
		}
	}
}

// series are time series in the notation of Prometheus's own rule tests, one value per minute.
type series []string

// Each alert fires in the situation that it is for, and not in a similar one.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ bad, good series }{
		"WalhookAbsent": {series{`walhook_build_info{job="w"} 1x180`}, series{`walhook_build_info{job="walhook"} 1x180`}},
		"WalhookNotStreaming": {
			series{`walhook_streaming{job="w",instance="a"} 0x180`, `walhook_streaming{job="w",instance="b"} 0x180`},
			series{`walhook_streaming{job="w",instance="a"} 0x180`, `walhook_streaming{job="w",instance="b"} 1x180`},
		},
		"WalhookSourceUnreachable": {
			series{`walhook_source_connected{job="w"} 0x180`},
			series{`walhook_source_connected{job="w",instance="a"} 0x180`, `walhook_source_connected{job="w",instance="b"} 1x180`},
		},
		"WalhookStoreUnreachable": {series{`walhook_store_connected{job="w"} 1x100 0x80`}, series{`walhook_store_connected{job="w"} 1x100 0 1x80`}},
		"WalhookSlotLost": {
			series{`walhook_slot_wal_status{job="w",status="missing"} 1x180`},
			series{`walhook_slot_wal_status{job="w",status="missing"} 0x180`, `walhook_slot_wal_status{job="w",status="unreserved"} 1x180`},
		},
		"WalhookSlotInDanger":   {series{`walhook_slot_in_danger{job="w"} 1x180`}, series{`walhook_slot_in_danger{job="w"} 0x180`}},
		"WalhookSlotRetainsWAL": {series{`walhook_slot_retained_bytes{job="w"} 6e9x180`}, series{`walhook_slot_retained_bytes{job="w"} 6e9x5 1e6x175`}},
		"WalhookLagging":        {series{`walhook_slot_lag_seconds{job="w"} 0+60x180`}, series{`walhook_slot_lag_seconds{job="w"} 0x90 600 600 600 0x90`}},
		"WalhookIncidentOpen": {
			series{`walhook_open_incidents{job="w",kind="publication_changed"} 1x180`},
			series{
				`walhook_open_incidents{job="w",kind="slot_lost"} 0x90 1 1 0x90`, `walhook_open_incidents{job="w",kind="switched_off"} 1x180`,
				`walhook_open_incidents{job="w",kind="retention"} 1x180`, `walhook_open_incidents{job="w",kind="deliveries_stopped"} 1x180`,
				`walhook_open_incidents{job="w",kind="log_upkeep"} 1x180`,
			},
		},
		"WalhookDeliveriesStopped": {
			series{`walhook_failing{job="w",concern="recording"} 1x180`},
			series{`walhook_failing{job="w",concern="recording"} 0x90 1 0x90`, `walhook_failing{job="w",concern="upkeep"} 1x180`},
		},
		"WalhookLogUpkeepFails": {
			series{`walhook_failing{job="w",concern="upkeep"} 1x180`},
			series{`walhook_failing{job="w",concern="upkeep"} 1 1 0x180`, `walhook_failing{job="w",concern="recording"} 1x180`},
		},
		"WalhookRetentionFails": {
			series{`walhook_open_incidents{job="w",kind="retention"} 1x180`},
			series{`walhook_open_incidents{job="w",kind="retention"} 1x20 0x160`, `walhook_open_incidents{job="w",kind="slot_lost"} 1x180`},
		},
		"WalhookReconcileFails": {
			series{`walhook_reconciles_total{job="w",outcome="failed"} 0x90 1+1x90`},
			series{`walhook_reconciles_total{job="w",outcome="failed"} 0x180`, `walhook_reconciles_total{job="w",outcome="done"} 0x90 1+1x90`},
		},
		"WalhookReconciled": {
			series{`walhook_reconciles_total{job="w",outcome="done"} 0x90 1x90`},
			series{`walhook_reconciles_total{job="w",outcome="done"} 3x180`, `walhook_reconciles_total{job="w",outcome="failed"} 0x90 1x90`},
		},
		"WalhookQueueLate": {
			series{`walhook_queue_oldest_age_seconds{job="w"} 0+60x180`, `walhook_enabled{job="w"} 1x180`},
			series{`walhook_queue_oldest_age_seconds{job="w"} 0+60x180`, `walhook_enabled{job="w"} 0x180`},
		},
		"WalhookQueueGrows": {
			series{`walhook_queue_deliveries{job="w"} 0+1000x180`},
			series{`walhook_queue_deliveries{job="w"} 1000000-1000x180`},
		},
		"WalhookSlowToSend": {
			series{`walhook_first_attempt_latency_seconds_bucket{job="w",le="24"} 0+1x180`, `walhook_first_attempt_latency_seconds_bucket{job="w",le="60"} 0+2x180`, `walhook_first_attempt_latency_seconds_bucket{job="w",le="+Inf"} 0+2x180`},
			series{`walhook_first_attempt_latency_seconds_bucket{job="w",le="0.1"} 0+99x180`, `walhook_first_attempt_latency_seconds_bucket{job="w",le="60"} 0+100x180`, `walhook_first_attempt_latency_seconds_bucket{job="w",le="+Inf"} 0+100x180`},
		},
		"WalhookEndpointsInTrouble": {series{`walhook_endpoints_in_trouble{job="w"} 2x180`}, series{`walhook_endpoints_in_trouble{job="w"} 0x90 2x20 0x90`}},
		"WalhookDeliveriesFail": {
			series{`walhook_attempts_total{job="w",outcome="failed",status_class="5xx"} 0x90 1x90`},
			series{`walhook_attempts_total{job="w",outcome="failed",status_class="5xx"} 7x180`, `walhook_attempts_total{job="w",outcome="retry",status_class="5xx"} 0+5x180`},
		},
		"WalhookWebhookDisabled": {
			series{`walhook_webhooks{job="w",state="disabled"} 1x90 2x90`},
			series{`walhook_webhooks{job="w",state="disabled"} 2x90 1x90`, `walhook_webhooks{job="w",state="enabled"} 1x90 2x90`},
		},
		"WalhookSwitchedOff": {series{`walhook_enabled{job="w"} 0x180`}, series{`walhook_enabled{job="w"} 0x40 1x140`}},
	}
	for _, rule := range readAlerts(t) {
		c, known := cases[rule.Alert]
		if !known {
			t.Errorf("%s is not tested", rule.Alert)
			continue
		}
		delete(cases, rule.Alert)
		t.Run(rule.Alert, func(t *testing.T) {
			t.Parallel()
			if !fires(t, rule, c.bad) {
				t.Errorf("it does not fire for\n%s", strings.Join(c.bad, "\n"))
			}
			if fires(t, rule, c.good) {
				t.Errorf("it fires for\n%s", strings.Join(c.good, "\n"))
			}
		})
	}
	for alert := range cases {
		t.Errorf("there is no alert %s", alert)
	}
}

// seriesSet iterates over series for the query engine.
type seriesSet struct {
	at   storage.Series
	rest []storage.Series
}

func (s *seriesSet) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.at, s.rest = s.rest[0], s.rest[1:]
	return true
}

func (s *seriesSet) At() storage.Series { return s.at }

func (s *seriesSet) Err() error { return nil }

func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// fires evaluates a rule every minute for three hours and reports whether a series of its result lasts for the rule's
// duration.
func fires(t *testing.T, rule rulefmt.Rule, given series) bool {
	t.Helper()
	start := time.Unix(0, 0)
	var loaded []storage.Series
	for _, text := range given {
		metric, values, err := parser.ParseSeriesDesc(text)
		if err != nil {
			t.Fatal(err)
		}
		s := promql.Series{Metric: metric}
		for i, v := range values {
			s.Floats = append(s.Floats, promql.FPoint{T: start.Add(time.Duration(i) * time.Minute).UnixMilli(), F: v.Value})
		}
		loaded = append(loaded, promql.NewStorageSeries(s))
	}
	queryable := storage.QueryableFunc(func(_, _ int64) (storage.Querier, error) {
		return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			var found []storage.Series
			for _, s := range loaded {
				if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.Labels().Get(m.Name)) }) {
					found = append(found, s)
				}
			}
			return &seriesSet{rest: found}
		}}, nil
	})
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: harness.Patience, LookbackDelta: 5 * time.Minute})
	defer engine.Close()
	query, err := engine.NewRangeQuery(context.Background(), queryable, nil, rule.Expr, start, start.Add(3*time.Hour), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer query.Close()
	matrix, err := query.Exec(t.Context()).Matrix()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range matrix {
		since := int64(-1)
		for i, p := range s.Floats {
			if since < 0 || p.T-s.Floats[i-1].T > time.Minute.Milliseconds() {
				since = p.T
			}
			if time.Duration(p.T-since)*time.Millisecond >= time.Duration(rule.For) {
				return true
			}
		}
	}
	return false
}

// The dashboard's panels use only existing metrics, and all of them.
func TestDashboard(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../examples/grafana/walhook.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title, UID string
		Panels     []struct {
			ID          int
			Title, Type string
			Description string
			Targets     []struct{ Expr string }
			GridPos     struct{ X, Y, W, H int }
			FieldConfig struct{ Defaults struct{ Unit string } }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	documented := harness.DocumentedMetrics(t, "../../..")
	shown := map[string]bool{}
	ids := map[int]bool{}
	taken := map[string]string{}
	for _, panel := range dashboard.Panels {
		if ids[panel.ID] {
			t.Errorf("two panels have the id %d", panel.ID)
		}
		ids[panel.ID] = true
		at := panel.GridPos
		for x := at.X; x < at.X+at.W; x++ {
			for y := at.Y; y < at.Y+at.H; y++ {
				cell := fmt.Sprint(x, " ", y)
				if x >= 24 || taken[cell] != "" {
					t.Fatalf("the panel %q overlaps %q, or the edge", panel.Title, taken[cell])
				}
				taken[cell] = panel.Title
			}
		}
		if panel.Type == "row" {
			continue
		}
		if len(panel.Targets) == 0 || panel.Description == "" || panel.FieldConfig.Defaults.Unit == "" {
			t.Errorf("the panel %q lacks targets, a description or a unit", panel.Title)
		}
		for _, target := range panel.Targets {
			if !strings.Contains(target.Expr, `job=~"$job"`) {
				t.Errorf("the panel %q mixes all installations: %s", panel.Title, target.Expr)
			}
			expr := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*").Replace(target.Expr)
			checkExpr(t, panel.Title, expr, documented)
			for name := range documented {
				if regexp.MustCompile(name + `(_bucket|_sum|_count)?\b`).MatchString(expr) {
					shown[name] = true
				}
			}
		}
	}
	missing := map[string]bool{}
	for name := range documented {
		if !shown[name] {
			missing[name] = true
		}
	}
	if diff := cmp.Diff(map[string]bool{}, missing); diff != "" {
		t.Errorf("the dashboard does not show (+):\n%s", diff)
	}
}
