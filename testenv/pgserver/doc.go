// Package pgserver runs throwaway PostgreSQL servers: real ones, found on the machine or downloaded, each in a temporary folder
// on a free port of the loopback interface.
//
// It guarantees that nothing stays behind: Stop removes the folder, and a server whose parent process dies dies with it. As
// root it runs the server as another user, since initdb refuses root. A Server is safe for concurrent use but for starting and
// stopping it. Unix only.
package pgserver
