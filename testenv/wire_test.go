package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echoServer echoes its input.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, w *Wire) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", w.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// echo sends a word and waits for its echo.
func echo(conn net.Conn, patience time.Duration) error {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "word"); err != nil {
		return err
	}
	word := make([]byte, 4)
	if _, err := io.ReadFull(conn, word); err != nil {
		return err
	}
	if string(word) != "word" {
		return fmt.Errorf("the echo of word is %q", word)
	}
	return nil
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

func TestWireCut(t *testing.T) {
	t.Parallel()
	wire := NewWire(t, echoServer(t))
	conn := dial(t, wire)
	if err := echo(conn, patience); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		wire.Cut()
		if err := echo(conn, patience); err == nil || isTimeout(err) {
			t.Errorf("through a cut wire: %v", err)
		}
		if _, err := net.Dial("tcp", wire.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dialling a cut wire: %v", err)
		}
		wire.Restore()
		conn = dial(t, wire)
		if err := echo(conn, patience); err != nil {
			t.Errorf("after a cut: %v", err)
		}
	}
	wire.Cut() // and it stays cut
}

func TestWireStall(t *testing.T) {
	t.Parallel()
	wire := NewWire(t, echoServer(t))
	before := dial(t, wire)
	if err := echo(before, patience); err != nil {
		t.Fatal(err)
	}
	wire.Stall()
	during := dial(t, wire)
	for name, conn := range map[string]net.Conn{"old": before, "new": during} {
		if err := echo(conn, 100*time.Millisecond); !isTimeout(err) {
			t.Errorf("the %s connection through a stalled wire: %v", name, err)
		}
	}
	wire.Unstall()
	if err := echo(before, patience); err == nil || isTimeout(err) {
		t.Errorf("a connection that has lost bytes: %v", err)
	}
	if err := echo(dial(t, wire), patience); err != nil {
		t.Errorf("after the stall: %v", err)
	}
}

func TestWireLatency(t *testing.T) {
	t.Parallel()
	wire := NewWire(t, echoServer(t))
	conn := dial(t, wire)
	for _, d := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond} {
		wire.Latency(d)
		start := time.Now()
		if err := echo(conn, patience); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 2*d {
			t.Errorf("the round trip took %s, less than %s", took, 2*d)
		}
	}
	wire.Latency(0)
	if err := echo(conn, patience); err != nil {
		t.Errorf("the connection is broken afterwards: %v", err)
	}
}

func TestWireResetPeer(t *testing.T) {
	t.Parallel()
	wire := NewWire(t, echoServer(t))
	before := dial(t, wire)
	if err := echo(before, patience); err != nil {
		t.Fatal(err)
	}
	wire.ResetPeer()
	if err := echo(dial(t, wire), patience); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a new connection: %v", err)
	}
	if err := echo(before, patience); err == nil || isTimeout(err) {
		t.Errorf("an open connection: %v", err)
	}
	wire.Unreset()
	if err := echo(dial(t, wire), patience); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// PostgreSQL works through a wire.
func TestWireToPostgres(t *testing.T) {
	t.Parallel()
	server := Postgres(t)
	wire := NewWire(t, fmt.Sprintf("127.0.0.1:%d", server.Port()))
	url := fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", wire.Addr())
	conn := Connect(t, url)
	wire.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := conn.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a stalled connection: %v", err)
	}
	wire.Unstall()
	if got := Value[int32](t, url, "select 1"); got != 1 {
		t.Errorf("select 1 gives %d", got)
	}
}

// A process that is being started briefly inherits the listener of a wire, like all open files. Restore works
// nevertheless.
func TestWireIsRestoredWhileProcessesStart(t *testing.T) {
	t.Parallel()
	wire := NewWire(t, "127.0.0.1:1")
	ctx, stop := context.WithCancel(t.Context())
	var starting sync.WaitGroup
	for range 4 {
		starting.Go(func() {
			for ctx.Err() == nil {
				_ = exec.Command("true").Run()
			}
		})
	}
	defer starting.Wait()
	defer stop()
	for range 300 {
		wire.Cut()
		wire.Restore()
	}
}
