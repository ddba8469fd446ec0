package testenv

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

func TestHoleSwallowsAcknowledgements(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	hole := NewHole(t, listener.Addr().String())
	client, err := net.Dial("tcp", hole.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	echo := func() error {
		if _, err := client.Write([]byte("x")); err != nil {
			return err
		}
		_ = server.SetReadDeadline(time.Now().Add(time.Second))
		_, err := server.Read(make([]byte, 1))
		return err
	}
	if err := echo(); err != nil {
		t.Fatalf("nothing gets through before Swallow: %v", err)
	}
	keepAlive := net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}
	if err := server.(*net.TCPConn).SetKeepAliveConfig(keepAlive); err != nil {
		t.Fatal(err)
	}
	hole.Swallow()
	if err := echo(); err == nil {
		t.Fatal("something got through after Swallow")
	}
	_ = server.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("the server's probes were answered: %v", err)
	}
}
