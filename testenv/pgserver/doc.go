// Package pgserver runs temporary PostgreSQL servers, installed on the machine or downloaded, each in a temporary
// folder and on a free port of the loopback interface.
//
// It guarantees that nothing is left behind. Stop stops the server and removes the folder; a watchdog process does both
// if this process ends without Stop, however it ends and whatever the server was doing. As root it runs the server as
// another user, since initdb refuses root. Servers are independent of each other. The calls that start and stop one
// Server must not be concurrent, except Stop, which may be called repeatedly from any goroutine. Unix only.
package pgserver
