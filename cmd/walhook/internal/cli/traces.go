package cli

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// traceFlush is how long the last spans may take on their way to the collector when the daemon stops.
	traceFlush = 2 * time.Second

	// traceComplaint is the interval between warnings that traces cannot be exported.
	traceComplaint = 10 * time.Minute
)

// startTraces returns what takes spans, nil unless variables of OpenTelemetry ask for traces, and what sends the last ones when the
// daemon stops. A variable that is not accepted is a *usageError.
func startTraces(ctx context.Context, log *slog.Logger) (tracer trace.Tracer, stop func(), err error) {
	protocol, err := ReadTraces(os.Getenv)
	if err != nil || protocol == "" {
		return nil, func() {}, err
	}
	// OpenTelemetry's own logger may show values of variables. What matters is checked and reported by us.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	if _, err := resource.New(ctx, resource.WithFromEnv()); err != nil {
		return nil, nil, badTraces("OTEL_RESOURCE_ATTRIBUTES", os.Getenv("OTEL_RESOURCE_ATTRIBUTES"), "key=value pairs, separated by commas")
	}
	// The last word is the environment's. A host that does not know its name is no reason not to run.
	about, _ := resource.New(
		ctx, resource.WithHost(), resource.WithProcessPID(), resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "walhook"), attribute.String("service.version", Version())),
		resource.WithFromEnv(),
	)
	exporter, err := newTraceExporter(ctx, protocol)
	if err != nil {
		return nil, nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithResource(about), sdktrace.WithBatcher(&loggingExporter{SpanExporter: exporter, log: log}))
	stop = func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
		defer cancel()
		_ = provider.Shutdown(closing) // an unreachable collector has been reported
	}
	log.Info("exporting traces", "protocol", protocol)
	return provider.Tracer("walhook", trace.WithInstrumentationVersion(Version())), stop, nil
}

// newTraceExporter returns an exporter, which reads the rest of its variables itself. It connects when there is something to export.
func newTraceExporter(ctx context.Context, protocol string) (sdktrace.SpanExporter, error) {
	if protocol == "grpc" {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

// loggingExporter logs at most once per traceComplaint that traces cannot be exported. It is called by one goroutine at a time.
type loggingExporter struct {
	sdktrace.SpanExporter
	log    *slog.Logger
	lost   int // spans since it last worked
	warned time.Time
}

func (e *loggingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		if e.lost > 0 {
			e.log.Info("exporting traces again", "spans_lost", e.lost)
		}
		e.lost, e.warned = 0, time.Time{}
		return nil
	}
	e.lost += len(spans)
	if time.Since(e.warned) > traceComplaint {
		e.warned = time.Now()
		e.log.Warn("cannot export traces; deliveries continue", "error", collectorError(err), "spans_lost", e.lost)
	}
	return nil
}

var collectorURL = regexp.MustCompile(`[a-z]+://\S+`)

// collectorError is the text of an exporter's error without the collector's URL, which may hold a token.
func collectorError(err error) string {
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	return oneLine(collectorURL.ReplaceAllString(err.Error(), "the collector:"), shortLine)
}
