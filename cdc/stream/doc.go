// Package stream turns the write-ahead log into queued events: it reads the slot, decodes and classifies row changes,
// and writes state, deliveries and position in one store transaction.
//
// Guarantees: each change of a committed transaction is applied exactly once, no matter how the process ends. A
// stream that may have missed changes stops with a [walhook/cdc.GapError], which [Reconcile] closes by comparing the
// table with the recorded state.
//
// One goroutine owns the replication connection (reader.go), one owns the store connection (writer.go), and one
// inspects the catalog (watch.go). [Guard] protects the source while nothing is streamed. [Status] and [Horizon] are
// safe for concurrent use.
package stream
