package cli

import (
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"walhook/cdc"
	"walhook/cdc/stream"
	"walhook/dispatch"
	"walhook/dispatch/post"
)

// metrics are what /metrics serves. Labels are bounded: none holds a webhook, an endpoint or a response.
type metrics struct {
	attempts *prometheus.CounterVec
	duration prometheus.Histogram
	first    prometheus.Histogram
	senders  atomic.Pointer[dispatch.Scheduler] // nil until they are there
}

func newMetrics(registry *prometheus.Registry, status *stream.Status) *metrics {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "walhook_attempts_total", Help: "Delivery attempts by outcome (success, retry, failed) and status class (2xx to 5xx, none).",
		}, []string{"outcome", "status_class"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "walhook_attempt_duration_seconds", Help: "Duration of delivery attempts.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}),
		first: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "walhook_first_attempt_latency_seconds",
			Help:    "From the commit of the application's transaction to the answer to the first attempt.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 14),
		}),
	}
	// A rate includes the first failure only if the series was 0 before.
	m.attempts.WithLabelValues("success", "2xx")
	for _, class := range []string{"none", "2xx", "3xx", "4xx", "5xx"} {
		m.attempts.WithLabelValues("retry", class)
		m.attempts.WithLabelValues("failed", class)
	}
	commit, _ := commitOf(build())
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "walhook_build_info", Help: "Always 1; what this daemon is.",
		ConstLabels: prometheus.Labels{"version": Version(), "commit": commit, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
	registry.MustRegister(m.attempts, m.duration, m.first, info, streamMetrics(status), senderMetrics(&m.senders),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) attempted(a dispatch.Attempted) {
	outcome := a.Outcome.Kind.String()
	if a.Final && a.Outcome.Kind != post.Success {
		outcome = "failed"
	}
	class := "none"
	if a.Outcome.HTTPStatus != 0 {
		class = strconv.Itoa(a.Outcome.HTTPStatus/100) + "xx"
	}
	m.attempts.WithLabelValues(outcome, class).Inc()
	m.duration.Observe(a.Outcome.Duration.Seconds())
	if a.First && !a.Test {
		m.first.Observe(max(a.SinceCommit.Seconds(), 0))
	}
}

// collector emits values from one snapshot per scrape, so that they are consistent.
type collector struct {
	descs   []*prometheus.Desc
	collect func(emit func(metric int, value float64, labels ...string))
	kinds   []prometheus.ValueType
}

// metric declares the next metric and returns its number.
func (c *collector) metric(kind prometheus.ValueType, name, help string, labels ...string) int {
	c.descs = append(c.descs, prometheus.NewDesc(name, help, labels, nil))
	c.kinds = append(c.kinds, kind)
	return len(c.descs) - 1
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range c.descs {
		to <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	c.collect(func(metric int, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(c.descs[metric], c.kinds[metric], value, labels...)
	})
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// streamMetrics describe the stream, from the start of the process.
func streamMetrics(status *stream.Status) prometheus.Collector {
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	c := &collector{}
	streaming := c.metric(gauge, "walhook_streaming", "1 while this daemon reads the slot.")
	standby := c.metric(gauge, "walhook_standby", "1 while this daemon stands by.")
	source := c.metric(gauge, "walhook_source_connected", "1 while the application's database answers.")
	lagBytes := c.metric(gauge, "walhook_slot_lag_bytes", "Bytes between the reported end of WAL and the stored position, as this daemon sees it.")
	lagSeconds := c.metric(gauge, "walhook_slot_lag_seconds", "Age of the oldest commit that was read and is not stored, or the time since anything could be read.")
	retained := c.metric(gauge, "walhook_slot_retained_bytes", "WAL that the slot retains.")
	danger := c.metric(gauge, "walhook_slot_in_danger", "1 while the slot nears WALHOOK_MAX_SLOT_LAG or max_slot_wal_keep_size.")
	active := c.metric(gauge, "walhook_slot_active", "1 while somebody reads the slot.")
	state := c.metric(gauge, "walhook_slot_wal_status", "1 for the status of the slot's WAL, 0 for the others.", "status")
	events := c.metric(counter, "walhook_events_total", "Events that this daemon classified, by type, whether or not a webhook matched.", "event_type")
	batches := c.metric(counter, "walhook_batches_total", "Store transactions of the stream.")
	compared := c.metric(counter, "walhook_reconciles_total", "Comparisons of the table after a gap, by outcome (done, failed).", "outcome")
	c.collect = func(emit func(int, float64, ...string)) {
		v := status.View()
		emit(streaming, truth(v.Phase == stream.PhaseStreaming))
		emit(standby, truth(v.Phase == stream.PhaseStandby))
		emit(source, truth(v.SourceReachable))
		if lag, known := v.LagBytes(); known {
			emit(lagBytes, float64(lag))
		}
		emit(lagSeconds, v.Lag.Seconds())
		emit(retained, float64(v.Slot.Retained))
		emit(danger, truth(v.Danger != ""))
		emit(active, truth(v.Slot.Active))
		for _, s := range stream.SlotStatuses {
			emit(state, truth(v.Slot.Status == s), s)
		}
		for event := range cdc.EventTypes {
			emit(events, float64(v.Events[event]), event.String())
		}
		emit(batches, float64(v.Batches))
		emit(compared, float64(v.Reconciled), "done")
		emit(compared, float64(v.ReconcileFailed), "failed")
	}
	return c
}

// otherKind stands for kinds of incidents that this version does not know: a newer daemon may have written them.
const otherKind = "other"

// senderMetrics describe the senders and the store, which they query every ten seconds. While the store does not answer,
// its metrics are left out.
func senderMetrics(senders *atomic.Pointer[dispatch.Scheduler]) prometheus.Collector {
	const gauge = prometheus.GaugeValue
	c := &collector{}
	store := c.metric(gauge, "walhook_store_connected", "1 while the store answers and this daemon holds its lease.")
	owned := c.metric(gauge, "walhook_owned_endpoints", "URLs that this daemon sends to.")
	flying := c.metric(gauge, "walhook_attempts_in_flight", "Attempts in flight in this daemon.")
	held := c.metric(gauge, "walhook_deliveries_in_memory", "Deliveries in this daemon's memory.")
	queue := c.metric(gauge, "walhook_queue_deliveries", "Pending deliveries in the store; above 10,000 an estimate.")
	oldest := c.metric(gauge, "walhook_queue_oldest_age_seconds", "Age of the oldest pending delivery that does not wait for a disabled webhook.")
	trouble := c.metric(gauge, "walhook_endpoints_in_trouble", "URLs whose last attempt failed.")
	unrecorded := c.metric(gauge, "walhook_unrecorded_results", "Results that are not recorded yet; their deliveries are repeated if the daemon dies now.")
	failing := c.metric(gauge, "walhook_failing", "1 while something fails that this daemon needs to send and log deliveries, by concern.", "concern")
	covered := c.metric(gauge, "walhook_log_partitions_ahead_seconds", "How far ahead the log has partitions; 0 if it has none at present.")
	webhooks := c.metric(gauge, "walhook_webhooks", "Webhooks by state (enabled, disabled).", "state")
	daemons := c.metric(gauge, "walhook_daemons", "Live daemons.")
	enabled := c.metric(gauge, "walhook_enabled", "1 while walhook.settings.enabled is true.")
	incidents := c.metric(gauge, "walhook_open_incidents", "Incidents that have not been resolved, by kind.", "kind")
	c.collect = func(emit func(int, float64, ...string)) {
		scheduler := senders.Load()
		if scheduler == nil {
			emit(store, 0)
			return
		}
		load := scheduler.Load()
		emit(store, truth(load.Alive))
		emit(owned, float64(load.Endpoints))
		emit(flying, float64(load.InFlight))
		emit(held, float64(load.Held))
		emit(unrecorded, float64(load.Unrecorded))
		fails := scheduler.Failing()
		for _, concern := range dispatch.Concerns() {
			emit(failing, truth(fails[concern]), concern.String())
		}
		sample := scheduler.Sample()
		if sample == nil {
			return
		}
		emit(queue, float64(sample.Pending))
		emit(oldest, sample.OldestSeconds)
		emit(covered, sample.Covered.Seconds())
		emit(trouble, float64(sample.EndpointsInTrouble))
		emit(webhooks, float64(sample.WebhooksEnabled), "enabled")
		emit(webhooks, float64(sample.WebhooksDisabled), "disabled")
		emit(daemons, float64(sample.Daemons))
		emit(enabled, truth(sample.SwitchedOn))
		var others int64
		for kind, n := range sample.Incidents {
			if !slices.Contains(cdc.IncidentKinds, kind) {
				others += n
			}
		}
		for _, kind := range cdc.IncidentKinds {
			emit(incidents, float64(sample.Incidents[kind]), kind)
		}
		emit(incidents, float64(others), otherKind)
	}
	return c
}
