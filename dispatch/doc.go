// Package dispatch turns events into answered POSTs: it matches and queues them, owns endpoints, schedules their
// deliveries, sends them (package post) and records the results.
//
// Guarantees:
//   - The body and the webhook-id of a delivery are the same at every attempt and in every process.
//   - Deliveries about one response to one URL are sent in their order, one after the other.
//   - A result is recorded once; a delivery whose result was lost is sent again with the same webhook-id.
package dispatch
