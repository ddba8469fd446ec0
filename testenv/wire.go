package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"walhook/testenv/pgserver"
)

// Wire is the way of TCP connections through a proxy, which can cut, stall, delay and reset them. Its methods are for one
// goroutine at a time.
type Wire struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
	addr  string
}

// NewWire starts a proxy before a server at host:port.
func NewWire(t testing.TB, upstream string) *Wire {
	t.Helper()
	// Clients go on dialling a wire that is cut: its port must not become anybody else's.
	port, err := pgserver.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	w := &Wire{t: t, proxy: toxiproxy.NewProxy(server, "wire", addr, upstream), addr: addr}
	if err := w.proxy.Start(); err != nil {
		t.Fatalf("start the proxy: %v", err)
	}
	t.Cleanup(w.proxy.Stop)
	return w
}

// Addr returns where the proxy listens, as host:port. It stays the same through Cut and Restore.
func (w *Wire) Addr() string { return w.addr }

// Cut closes all connections and refuses new ones until Restore.
func (w *Wire) Cut() { w.proxy.Stop() }

// Restore lets connections through again, at the same address. A process that is being started may still have the listener for a moment.
func (w *Wire) Restore() {
	w.t.Helper()
	Eventually(w.t, 5*time.Second, "restart the proxy", func() (bool, string) {
		err := w.proxy.Start()
		if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			w.t.Fatalf("restart the proxy: %v", err)
		}
		return err == nil, fmt.Sprint(err)
	})
}

// Redirect makes a wire that is cut lead to another server from Restore on, as a name or a virtual address does after a failover.
func (w *Wire) Redirect(upstream string) { w.proxy.Upstream = upstream }

// Stall keeps connections open and lets no byte through, in either direction, until Unstall. New connections are accepted,
// and stall too.
func (w *Wire) Stall() {
	w.t.Helper()
	w.add("timeout", "timeout", 0)
}

// Unstall lets new connections through again. Those that were stalled have lost bytes, and are closed.
func (w *Wire) Unstall() { w.remove("timeout") }

// Latency delays what passes, by d in each direction, from now on; 0 ends that. It counts in milliseconds.
func (w *Wire) Latency(d time.Duration) {
	w.t.Helper()
	w.remove("latency")
	if d > 0 {
		w.add("latency", "latency", d.Milliseconds())
	}
}

// ResetPeer answers the first byte of every new connection with RST, until Unreset. A connection that is open already is
// closed in the ordinary way at its next byte.
func (w *Wire) ResetPeer() {
	w.t.Helper()
	w.add("reset_peer", "timeout", 0)
}

// Unreset lets new connections through again.
func (w *Wire) Unreset() { w.remove("reset_peer") }

func (w *Wire) add(kind, attribute string, value int64) {
	w.t.Helper()
	for _, direction := range []string{"upstream", "downstream"} {
		toxic := fmt.Sprintf(`{"name": "%s_%s", "type": "%s", "stream": "%s", "attributes": {"%s": %d}}`, kind, direction, kind, direction, attribute, value)
		if _, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			w.t.Fatalf("add %s to the wire: %v", kind, err)
		}
	}
}

func (w *Wire) remove(kind string) {
	for _, direction := range []string{"upstream", "downstream"} {
		// The only error is that there is none.
		_ = w.proxy.Toxics.RemoveToxic(context.Background(), kind+"_"+direction)
	}
}
