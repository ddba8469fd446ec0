package dispatch

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"walhook/dispatch/post"
)

// attemptTraced makes one attempt within a span of its own, which links to the store transaction that queued the
// delivery, if that is known. Without a tracer it costs nothing. The span has only the host of the URL, and the request
// has nothing of the span.
func (s *Scheduler) attemptTraced(d *delivery) post.Outcome {
	if s.cfg.Tracer == nil {
		return s.attempt(d)
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.Int64("walhook.webhook_id", d.webhookID),
		attribute.Int64("walhook.delivery_id", d.id),
		attribute.String("walhook.message_id", d.messageID()),
		attribute.String("walhook.event_type", d.event.String()),
		attribute.Int("walhook.attempt", d.attempts+1),
	)}
	if target := d.hook.target; target != nil {
		options = append(options, trace.WithAttributes(attribute.String("server.address", target.Hostname())))
	}
	if d.queuedBy != nil {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: *d.queuedBy}))
	}
	_, span := s.cfg.Tracer.Start(s.attemptCtx, "walhook.attempt", options...)
	defer span.End()
	o := s.attempt(d)
	span.SetAttributes(attribute.String("walhook.outcome", o.Kind.String()))
	if o.HTTPStatus != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", o.HTTPStatus))
	}
	if o.Kind != post.Success {
		span.SetStatus(codes.Error, o.Error)
	}
	return o
}
