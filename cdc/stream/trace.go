package stream

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// commitTraced commits a batch within a span. Without a tracer it has no overhead.
func (w *writer) commitTraced(ctx context.Context, b *batch) error {
	if w.tracer == nil {
		return w.commitBatch(ctx, b)
	}
	ctx, span := w.tracer.Start(ctx, "walhook.batch", trace.WithAttributes(
		attribute.Int("walhook.changes", b.changes),
		attribute.Int64("walhook.events", b.events.All()),
		attribute.String("walhook.end_lsn", b.position.LSN.String()),
	))
	defer span.End()
	err := w.commitBatch(ctx, b)
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	return err
}
