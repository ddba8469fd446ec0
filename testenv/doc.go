// Package testenv provides real dependencies for tests: PostgreSQL servers and databases, a scripted HTTP receiver, and
// network faults. It contains no mocks.
//
// All tests of a process share one server, create their own databases in it, and may run in parallel. A test that kills
// its server, or creates roles, starts its own server. Everything is removed when the test ends. A test fails if there
// is no server; it is not skipped. Servers keep their data in memory (/dev/shm) if there is plenty of it. Exec, Value
// and Psql keep their sessions for the next statement at the same URL, reset as if they were new; only a session of
// Connect is sure to start when it is called. WALHOOK_TEST_PG is the major version that servers must have, and PGBIN the
// folder of their programs.
//
// Only tests import this package; the demo and the benchmark use its package pgserver.
package testenv
