// Package session opens walhook's connections to PostgreSQL, and nothing else in production code does.
//
// Its guarantee: before the first statement of a connection, the settings in [pinned] have the values there, whatever the
// role, the database or the server says. So no statement depends on what others set, and no name in one resolves to anything
// outside pg_catalog that does not carry its schema. The pins last as long as the connection: nobody runs RESET ALL or
// DISCARD ALL on it.
//
// A connection belongs to one goroutine at a time, as in pgx.
package session
