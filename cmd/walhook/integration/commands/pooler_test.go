package commands

import (
	"io"
	"net"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// poolerBefore returns the address of a proxy that behaves like PgBouncer: it reports its own process id to the client,
// and refuses startup parameters with PgBouncer's message.
func poolerBefore(t *testing.T, server string, refuses []string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go pool(client, server, refuses)
		}
	}()
	return l.Addr().String()
}

func pool(client net.Conn, server string, refuses []string) {
	defer client.Close()
	toClient := pgproto3.NewBackend(client, client)
	first, err := toClient.ReceiveStartupMessage()
	if err != nil {
		return
	}
	startup, ok := first.(*pgproto3.StartupMessage)
	if !ok {
		return // neither an encryption nor a cancel request
	}
	for name := range startup.Parameters {
		if slices.Contains(refuses, name) {
			toClient.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: " + name})
			_ = toClient.Flush()
			return
		}
	}
	upstream, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer upstream.Close()
	toServer := pgproto3.NewFrontend(upstream, upstream)
	toServer.Send(startup)
	if toServer.Flush() != nil {
		return
	}
	for {
		message, err := toServer.Receive()
		if err != nil {
			return
		}
		if key, ok := message.(*pgproto3.BackendKeyData); ok {
			key.ProcessID++
		}
		toClient.Send(message)
		if toClient.Flush() != nil {
			return
		}
		if _, ready := message.(*pgproto3.ReadyForQuery); ready {
			break
		}
	}
	go func() {
		_, _ = io.Copy(upstream, client)
		_ = upstream.Close()
	}()
	_, _ = io.Copy(client, upstream)
}
