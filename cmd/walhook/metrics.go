package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"walhook/cdc"
	"walhook/dispatch"
)

// metrics are what /metrics serves. Labels are bounded: none holds a webhook, an endpoint or a response.
type metrics struct {
	registry *prometheus.Registry
	attempts *prometheus.CounterVec
	duration prometheus.Histogram
	first    prometheus.Histogram
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		registry: registry,
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
	registry.MustRegister(m.attempts, m.duration, m.first, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewBuildInfoCollector())
	return m
}

func (m *metrics) attempted(a dispatch.Attempted) {
	outcome := a.Outcome.Kind.String()
	if a.Final && a.Outcome.Kind != dispatch.Success {
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

// stream adds what the stream says of itself.
func (m *metrics) stream(status *cdc.Status) {
	gauge := func(name, help string, value func(cdc.StatusView) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return value(status.View()) })
	}
	m.registry.MustRegister(
		gauge("walhook_streaming", "1 while this daemon reads the slot.", func(v cdc.StatusView) float64 {
			if v.Phase == cdc.PhaseStreaming {
				return 1
			}
			return 0
		}),
		gauge("walhook_standby", "1 while this daemon stands by.", func(v cdc.StatusView) float64 {
			if v.Phase == cdc.PhaseStandby {
				return 1
			}
			return 0
		}),
		gauge("walhook_slot_lag_bytes", "WAL that the server has sent word of and the store has not yet taken, as this daemon sees it.",
			func(v cdc.StatusView) float64 {
				if v.Phase != cdc.PhaseStreaming || v.Received < v.Position.LSN {
					return 0
				}
				return float64(v.Received - v.Position.LSN)
			}),
		gauge("walhook_slot_retained_bytes", "WAL that the slot makes the server keep.", func(v cdc.StatusView) float64 { return float64(v.Retained) }),
		gauge("walhook_slot_in_danger", "1 while the slot nears WALHOOK_MAX_SLOT_LAG or max_slot_wal_keep_size.", func(v cdc.StatusView) float64 {
			if v.Danger != "" {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "walhook_events_total", Help: "Events classified and matched by this daemon."},
			func() float64 { return float64(status.View().Events) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "walhook_batches_total", Help: "Store transactions of the stream."},
			func() float64 { return float64(status.View().Batches) }),
	)
}
