// Package integration tests the whole program: real servers, daemons as processes, a real receiver.
package integration
