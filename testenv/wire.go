package testenv

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Wire is a TCP connection's way through a proxy that can cut and stall it.
type Wire struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
}

// NewWire starts a proxy before a server at host:port.
func NewWire(t testing.TB, upstream string) *Wire {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, "wire", "127.0.0.1:0", upstream)
	if err := proxy.Start(); err != nil {
		t.Fatalf("start the proxy: %v", err)
	}
	t.Cleanup(proxy.Stop)
	return &Wire{t: t, proxy: proxy}
}

// Addr returns where the proxy listens.
func (w *Wire) Addr() string { return w.proxy.Listen }

// Cut breaks all connections and refuses new ones until Restore.
func (w *Wire) Cut() { w.proxy.Stop() }

// Restore lets connections through again, at the same address.
func (w *Wire) Restore() {
	w.t.Helper()
	if err := w.proxy.Start(); err != nil {
		w.t.Fatalf("restart the proxy: %v", err)
	}
}

// Stall keeps connections open and lets no byte through, in either direction, until Unstall.
func (w *Wire) Stall() {
	w.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		toxic := fmt.Sprintf(`{"name":"stall_%s","type":"timeout","stream":"%s","attributes":{"timeout":0}}`, stream, stream)
		if _, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			w.t.Fatalf("stall the wire: %v", err)
		}
	}
}

// Unstall lets new connections through again. Those that were stalled are closed, as toxiproxy's timeout toxic does.
func (w *Wire) Unstall() {
	w.proxy.Toxics.ResetToxics(context.Background())
}
