// Package dispatch turns events into answered POSTs. It matches events to webhooks and queues their deliveries, owns
// endpoints, schedules and sends their deliveries (package post), and records the results.
//
// Guarantees:
//   - The body and the webhook-id of a delivery are the same at every attempt and in every process.
//   - Deliveries about one response to one URL are sent in order, one after the other.
//   - A result is recorded once. A delivery whose result was lost is sent again with the same webhook-id.
//
// The stream's writer calls [Queue]. [Scheduler.Run] starts the loops around a [schedule.Schedule], which makes the decisions,
// without any query, request, timer or clock. A membership keeps this daemon's lease, and a coordinator claims
// endpoints and reloads webhooks.
package dispatch
