// Package integration tests the whole program with real servers, daemons as processes, and a real receiver.
package integration
