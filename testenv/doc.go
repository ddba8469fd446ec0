// Package testenv gives tests real parts: PostgreSQL servers and databases of their own, a scripted HTTP receiver, and faults on
// the wire. Nothing in it pretends to be something else.
//
// One server is shared by all tests of a process, which take databases of their own in it and may run in parallel; a test that
// kills its server, or makes roles, takes a server of its own. All of it is gone when the test has ended. A missing server fails
// the test: nothing is skipped. Exec, Value and Psql keep their sessions for the next statement at the same URL, which finds them
// as if they were new; only a session of Connect is sure to have begun after something. WALHOOK_TEST_PG names the major version that servers must have, PGBIN the folder of its programs.
//
// Only tests import this package; the demonstration and the benchmark use its package pgserver.
package testenv
