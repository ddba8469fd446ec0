// Package cdc turns the write-ahead log of the application's database into events: it reads the slot, decodes, classifies
// row changes, and writes state, deliveries and position in one store transaction.
//
// It guarantees that each change of a committed transaction is taken exactly once, whatever ends the process, and that a
// stream which may have missed something is stopped and told as a GapError. One goroutine owns the replication connection and
// one the store connection; Status and Horizon may be used from anywhere.
package cdc
