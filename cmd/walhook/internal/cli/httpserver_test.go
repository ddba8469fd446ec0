package cli

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"walhook/cmd/walhook/internal/harness"
)

func TestHTTPServer(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "walhook_sample", Help: "A sample."})
	registry.MustRegister(gauge)
	server, err := NewHTTPServer("127.0.0.1:0", func() (bool, string) {
		if ready.Load() {
			return true, "streaming"
		}
		return false, "the store\nis away"
	}, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.run(ctx) }()
	address := server.Listener.Addr().String()

	expect := func(method, path string, wantStatus int, wantBody string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != wantStatus || !strings.Contains(string(body), wantBody) {
			t.Errorf("%s %s: %d %q instead of %d %q", method, path, resp.StatusCode, body, wantStatus, wantBody)
		}
	}
	expect("GET", "/healthz", 200, "ok\n")
	expect("GET", "/readyz", 503, "the store is away\n")
	ready.Store(true)
	expect("GET", "/readyz", 200, "streaming\n")
	expect("GET", "/metrics", 200, "walhook_sample 0\n")
	expect("GET", "/", 404, "")
	expect("POST", "/readyz", 405, "")

	// Who sends half a request, or a body that nobody wants, and then nothing, is let go.
	halves := map[string]net.Conn{"GET /healthz HTTP/1.1\r\nHost:": nil, "GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n": nil}
	for half := range halves {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, half); err != nil {
			t.Fatal(err)
		}
		halves[half] = conn
	}
	for half, conn := range halves {
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("%q is waited for: %v", half, err)
		}
	}

	// An address that is taken is named together with its variable.
	_, err = NewHTTPServer(address, nil, registry, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "WALHOOK_LISTEN="+address) || !strings.Contains(err.Error(), "choose a free address") {
		t.Errorf("a taken address gives: %v", err)
	}

	stop()
	if err := <-ended; err != nil {
		t.Errorf("stop the server: %v", err)
	}
}
