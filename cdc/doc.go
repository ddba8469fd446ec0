// Package cdc is the pure core of change capture: mapping, values, row changes, the state of a response, and [Classify],
// which follows that state through a change and returns the events that fire. It has no connection, no goroutine and no
// clock, and everything in it is a function of its arguments.
//
// Below it: catalog reads and writes the catalogs of source and store, stream turns WAL into queued events, setup attaches,
// plans, examines and detaches. catalog imports cdc, stream imports catalog, and setup imports all of them, so that DDL
// cannot reach the hot path.
package cdc
