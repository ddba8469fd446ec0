// Package cdc is the pure core of change capture: mapping, values, row changes, the state of a response, and
// [Classify], which applies a change to that state and returns the events that fire. It has no connections,
// goroutines or clock; everything in it is a function of its arguments.
//
// The packages below it build on each other. catalog reads and writes the catalogs of source and store and imports
// cdc. stream turns WAL into queued events and imports catalog. setup attaches, plans, examines and detaches, and
// imports all of them. So DDL cannot reach the hot path.
package cdc
