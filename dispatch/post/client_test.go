package post

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var loopback = NewGuard(prefixes("127.0.0.0/8", "::1/128"))

// newTestClient allows loopback where cfg says nothing of addresses. Its timeout is long enough never to be met by
// chance.
func newTestClient(t testing.TB, cfg ClientConfig) *Client {
	t.Helper()
	if cfg.Guard == nil {
		cfg.Guard = loopback
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	c := NewClient(cfg)
	t.Cleanup(c.Close)
	return c
}

func newTestTarget(t testing.TB, rawURL string, secrets ...string) *Target {
	t.Helper()
	target, err := NewTarget(rawURL, secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func post(t testing.TB, c *Client, rawURL string) Outcome {
	t.Helper()
	return c.Attempt(t.Context(), Request{Target: newTestTarget(t, rawURL), MessageID: "msg_1", Body: []byte(`{}`)})
}

func newReceiver(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// newWire is a receiver below HTTP: handle gets each connection once a whole request has been read from it.
func newWire(t testing.TB, handle func(net.Conn)) (rawURL string) {
	t.Helper()
	l := listen(t)
	serveConns(t, l, func(conn net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err == nil {
			handle(conn)
		}
	})
	return "http://" + l.Addr().String() + "/secretpath"
}

// serveConns lets handle have each connection, which is closed behind it, until the test has ended.
func serveConns(t testing.TB, l net.Listener, handle func(net.Conn)) {
	t.Helper()
	var open sync.WaitGroup
	open.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Wait()
	})
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/error":
			http.Error(w, strings.Repeat("long ", 5000), http.StatusInternalServerError)
		case "/exact":
			_, _ = w.Write(make([]byte, maxReply))
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusSeeOther)
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := newTestClient(t, ClientConfig{})
	for range 10 {
		for _, path := range []string{"/", "/error", "/exact", "/redirect"} {
			if o := post(t, c, s.URL+path); o.HTTPStatus == 0 {
				t.Fatalf("%s: %+v", path, o)
			}
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("40 attempts one after another used %d connections", n)
	}
}

func TestPoolKeepsAsManyConnectionsAsAreInFlight(t *testing.T) {
	t.Parallel()
	const inFlight = 16
	var opened atomic.Int32
	arrived, release := make(chan struct{}), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := newTestClient(t, ClientConfig{Concurrency: inFlight})
	for range 3 {
		var wg sync.WaitGroup
		for range inFlight {
			wg.Go(func() {
				if o := post(t, c, s.URL); o.Kind != Success {
					t.Errorf("outcome: %+v", o)
				}
			})
		}
		for range inFlight {
			<-arrived
		}
		for range inFlight {
			release <- struct{}{}
		}
		wg.Wait()
	}
	if n := opened.Load(); n != inFlight {
		t.Errorf("3 rounds of %d attempts used %d connections", inFlight, n)
	}
}

func TestHTTP2IsSpokenWhereOffered(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.ProtoMajor != 2:
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
		case r.URL.Path == "/huge":
			for range 64 {
				if _, err := w.Write(make([]byte, maxReply)); err != nil {
					return
				}
			}
		case r.URL.Path == "/hang":
			<-r.Context().Done()
		case r.URL.Path == "/abort":
			panic(http.ErrAbortHandler)
		case r.URL.Path == "/early":
			w.WriteHeader(http.StatusEarlyHints)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c := newTestClient(t, ClientConfig{RootCAs: roots})
	for _, path := range []string{"/", "/early", "/huge", "/"} {
		if o := post(t, c, s.URL+path); o.Kind != Success || o.HTTPStatus != http.StatusOK {
			t.Errorf("%s: %+v", path, o)
		}
	}
	if o := post(t, c, s.URL+"/abort"); o.Kind != Retry || o.Error != "HTTP/2: the server broke off" {
		t.Errorf("aborted stream: %+v", o)
	}
	impatient := newTestClient(t, ClientConfig{RootCAs: roots, Timeout: timeoutForTests})
	if o := post(t, impatient, s.URL+"/hang"); o.Kind != Retry || o.Error != "timeout after 1s (waiting for the reply)" {
		t.Errorf("hanging stream: %+v", o)
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the request was sent") }))
	s.Config.ErrorLog = discardLog
	s.StartTLS()
	t.Cleanup(s.Close)

	o := post(t, newTestClient(t, ClientConfig{}), s.URL)
	if o.Kind != Retry || o.HTTPStatus != 0 || o.Error != "TLS: certificate is signed by an unknown authority" {
		t.Errorf("unknown authority: %+v", o)
	}
	roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	o = post(t, newTestClient(t, ClientConfig{RootCAs: roots, Resolver: newNameServer(t)}), "https://other.test:"+port+"/")
	if o.Kind != Retry || o.Error != "TLS: certificate is not valid for this host" {
		t.Errorf("another host: %+v", o)
	}
}

func TestPlainServerBehindHTTPS(t *testing.T) {
	t.Parallel()
	s := newReceiver(t, func(http.ResponseWriter, *http.Request) {})
	o := post(t, newTestClient(t, ClientConfig{}), strings.Replace(s.URL, "http:", "https:", 1))
	if o.Kind != Retry || o.Error != "TLS: the server does not speak TLS on this port" {
		t.Errorf("outcome: %+v", o)
	}
}

func TestUnknownHost(t *testing.T) {
	t.Parallel()
	o := post(t, newTestClient(t, ClientConfig{Resolver: newNameServer(t)}), "http://receiver.invalid/secret")
	if o.Kind != Retry || o.HTTPStatus != 0 || o.Error != "DNS: no such host" {
		t.Errorf("outcome: %+v", o)
	}
	// With the machine's own resolver, whatever it is, the words depend on it.
	o = post(t, newTestClient(t, ClientConfig{}), "http://receiver.invalid/secret")
	if o.Kind != Retry || !strings.HasPrefix(o.Error, "DNS: ") {
		t.Errorf("system resolver: %+v", o)
	}
}

func TestDeadNameServer(t *testing.T) {
	t.Parallel()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	silent := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	o := post(t, newTestClient(t, ClientConfig{Resolver: silent, Timeout: timeoutForTests}), "http://receiver.test/")
	if o.Kind != Retry || o.Error != "timeout after 1s (DNS lookup)" {
		t.Errorf("outcome: %+v", o)
	}
}

func TestGuardLooksAtWhatTheNameResolvedTo(t *testing.T) {
	t.Parallel()
	s := newReceiver(t, func(http.ResponseWriter, *http.Request) { t.Error("the request was sent") })
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newTestClient(t, ClientConfig{Guard: NewGuard(prefixes("127.0.0.2/32")), Resolver: newNameServer(t)})
	for _, host := range []string{"127.0.0.1", "innocent.test", "[::ffff:127.0.0.1]", "localhost"} {
		o := post(t, c, "http://"+host+":"+port+"/secret")
		if o.Kind != Retry || o.HTTPStatus != 0 ||
			!strings.HasPrefix(o.Error, "address refused: ") || !strings.HasSuffix(o.Error, " is loopback; set WALHOOK_ALLOW_NETWORKS to allow it") {
			t.Errorf("%s: %+v", host, o)
		}
	}
	if o := post(t, newTestClient(t, ClientConfig{Guard: NewGuard(nil)}), "http://169.254.169.254/latest/meta-data"); o.Error !=
		"address refused: 169.254.0.0/16 is link-local; clouds hand out credentials there, so leave it out of WALHOOK_ALLOW_NETWORKS unless this very address is meant" {
		t.Errorf("metadata: %+v", o)
	}
}

// The environment belongs to the process, so this test runs alone.
func TestProxiesOfTheEnvironmentAreUnused(t *testing.T) {
	proxy := newReceiver(t, func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") })
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	var direct atomic.Int32
	s := newReceiver(t, func(http.ResponseWriter, *http.Request) { direct.Add(1) })
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// A name, since net/http makes no use of a proxy for loopback addresses anyway.
	c := newTestClient(t, ClientConfig{Resolver: newNameServer(t)})
	if o := post(t, c, "http://receiver.test:"+port+"/"); o.Kind != Success || direct.Load() != 1 {
		t.Errorf("outcome: %+v, arrived %d", o, direct.Load())
	}
}
