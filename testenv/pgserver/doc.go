// Package pgserver runs throwaway PostgreSQL servers: real ones, found on the machine or downloaded, each in a temporary folder
// on a free port of the loopback interface.
//
// It guarantees that nothing stays behind. Stop ends the server and removes the folder; a watchdog process does both when this
// process ends without Stop, however it ends and whatever the server was doing. As root it runs the server as another user,
// since initdb refuses root. Servers are independent of each other and may be started side by side; on one Server, the calls
// that start and stop it are for one goroutine at a time, but Stop, which may be repeated from anywhere. Unix only.
package pgserver
