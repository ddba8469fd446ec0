// Package session opens walhook's connections to PostgreSQL. Nothing else in production code does.
//
// Its guarantee: before a connection's first statement, the settings in [pinned] have the values listed there,
// whatever the role, the database or the server configures. So no statement depends on the settings of others, and a
// name without a schema resolves to pg_catalog alone. The pins last as long as the connection: nobody runs RESET ALL
// or DISCARD ALL on it.
//
// A connection belongs to one goroutine at a time, as in pgx.
package session
