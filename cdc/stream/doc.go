// Package stream turns the write-ahead log into queued events: it reads the slot, decodes, classifies row changes, and writes
// state, deliveries and position in one store transaction.
//
// Guarantees: each change of a committed transaction is taken exactly once, whatever ends the process; a stream that may
// have missed something stops with a [walhook/cdc.GapError], which [Reconcile] closes by comparing the table.
//
// One goroutine owns the replication connection (reader.go), one the store connection (writer.go), one looks at the
// catalog from the side (watch.go), and [Guard] looks after a published table while nothing is streamed. [Status] and
// [Horizon] may be used from anywhere.
package stream
