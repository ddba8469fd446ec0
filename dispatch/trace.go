package dispatch

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"walhook/dispatch/post"
	"walhook/dispatch/schedule"
)

// attemptTraced makes one attempt within a span of its own, which links to the store transaction that queued the
// delivery, if that is known. Without a tracer it costs nothing. The span has only the host of the URL, and the request
// has nothing of the span.
func (s *Scheduler) attemptTraced(d *schedule.Delivery) post.Outcome {
	if s.cfg.Tracer == nil {
		return s.attempt(d)
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.Int64("walhook.webhook_id", d.WebhookID),
		attribute.Int64("walhook.delivery_id", d.ID),
		attribute.String("walhook.message_id", messageID(d)),
		attribute.String("walhook.event_type", d.Event.String()),
		attribute.Int("walhook.attempt", d.Attempts+1),
	)}
	if target := d.Hook.Target; target != nil {
		options = append(options, trace.WithAttributes(attribute.String("server.address", target.Hostname())))
	}
	if d.QueuedBy != nil {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: *d.QueuedBy}))
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
