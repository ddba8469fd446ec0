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

// Wire is a TCP proxy that can cut, stall, delay and reset connections. Its methods must not be called concurrently.
type Wire struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
	addr  string
}

// NewWire starts a proxy in front of a server at host:port.
func NewWire(t testing.TB, upstream string) *Wire {
	t.Helper()
	// Clients keep dialling a wire that is cut, so nobody else may get its port.
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

// Restore accepts connections again, at the same address. A process that is being started may have inherited the
// listener and hold it for a moment.
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

// Redirect makes a wire that is cut lead to another server after Restore, like a name or a virtual address after a
// failover.
func (w *Wire) Redirect(upstream string) { w.proxy.Upstream = upstream }

// Stall keeps connections open but forwards no bytes in either direction until Unstall. New connections are accepted
// and stall as well.
func (w *Wire) Stall() {
	w.t.Helper()
	w.add("timeout", "timeout", 0)
}

// Unstall lets new connections through again. Stalled ones have lost bytes, and are closed.
func (w *Wire) Unstall() { w.remove("timeout") }

// Latency delays all bytes by d in each direction from now on; 0 ends the delay. Its resolution is a millisecond.
func (w *Wire) Latency(d time.Duration) {
	w.t.Helper()
	w.remove("latency")
	if d > 0 {
		w.add("latency", "latency", d.Milliseconds())
	}
}

// ResetPeer answers the first byte of every new connection with RST until Unreset. A connection that is already open is
// closed normally at its next byte.
func (w *Wire) ResetPeer() {
	w.t.Helper()
	w.add("reset_peer", "timeout", 0)
}

// Unreset lets new connections through again.
func (w *Wire) Unreset() { w.remove("reset_peer") }

func (w *Wire) add(kind, attribute string, value int64) {
	w.t.Helper()
	for _, direction := range []string{"upstream", "downstream"} {
		toxic := fmt.Sprintf(`{"name": "%s_%s", "type": "%s", "stream": "%s", "attributes": {"%s": %d}}`,
			kind, direction, kind, direction, attribute, value)
		if _, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			w.t.Fatalf("add %s to the wire: %v", kind, err)
		}
	}
}

func (w *Wire) remove(kind string) {
	for _, direction := range []string{"upstream", "downstream"} {
		// The only possible error is that there is none.
		_ = w.proxy.Toxics.RemoveToxic(context.Background(), kind+"_"+direction)
	}
}
