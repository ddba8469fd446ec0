// Package testenv gives tests real parts: PostgreSQL servers and databases of their own, a scripted HTTP receiver, and faults on
// the wire. Nothing in it pretends to be something else.
//
// One server is shared by all tests of a process; a test that kills it takes one of its own. All of it is gone when the test
// has ended. Only tests import it; the demonstration and the benchmark use its package pgserver.
package testenv
