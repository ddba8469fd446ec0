package testenv

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Hole forwards TCP connections and can swallow all their packets, including acknowledgements and resets. To each side
// it then looks as if the other machine had vanished, or a firewall had dropped the connection's state.
type Hole struct {
	t        testing.TB
	upstream string
	listener net.Listener

	mu     sync.Mutex
	routes []*route
}

// route is one forwarded connection: the client's side and the server's side.
type route struct {
	ends      [2]*net.TCPConn
	swallowed bool
}

// NewHole starts to forward connections to a server at host:port.
func NewHole(t testing.TB, upstream string) *Hole {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &Hole{t: t, upstream: upstream, listener: listener}
	var accepting sync.WaitGroup
	accepting.Go(h.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		accepting.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, r := range h.routes {
			r.close()
		}
	})
	return h
}

// Addr returns where to connect, as host:port.
func (h *Hole) Addr() string { return h.listener.Addr().String() }

// Swallow silently drops everything on the existing connections. New ones work.
func (h *Hole) Swallow() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.routes {
		r.swallowed = true
		for _, end := range r.ends {
			if err := deafen(end); err != nil && !errors.Is(err, net.ErrClosed) {
				h.t.Fatalf("make a socket drop its packets: %v", err)
			}
		}
	}
}

func (h *Hole) accept() {
	for {
		client, err := h.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", h.upstream)
		if err != nil {
			_ = client.Close()
			continue
		}
		r := &route{ends: [2]*net.TCPConn{client.(*net.TCPConn), server.(*net.TCPConn)}}
		h.mu.Lock()
		h.routes = append(h.routes, r)
		h.mu.Unlock()
		go h.forward(r, client, server)
		go h.forward(r, server, client)
	}
}

// forward copies bytes until one side closes, and then closes the other, unless the route is swallowed.
func (h *Hole) forward(r *route, to, from net.Conn) {
	_, _ = io.Copy(to, from)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !r.swallowed {
		r.close()
	}
}

func (r *route) close() {
	for _, end := range r.ends {
		_ = end.Close()
	}
}

// deafen makes the kernel drop every packet for a socket before anything answers it.
func deafen(socket *net.TCPConn) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}} // keep zero bytes of each packet
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	})
	return errors.Join(err, set)
}
