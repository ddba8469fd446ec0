// Package sql is the store: the schema walhook as numbered migrations and reinstalled code, and every query that walhook
// runs against it, all kept as .sql files and embedded.
//
// It guarantees that a store is never used at a schema version other than the one this binary knows (CheckVersion), and that
// Install leaves a store either as it was or fully upgraded. Queries are values: immutable, safe for concurrent use, and
// prepared against a real server by the tests. The package opens no connections of its own.
package sql
