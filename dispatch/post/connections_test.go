package post

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/testenv"
)

// newPlaces is one receiver at two addresses, with one port. It tells the handler at which one a request came.
func newPlaces(t *testing.T, secure bool, handle func(w http.ResponseWriter, r *http.Request, address string)) (port string, roots *x509.CertPool) {
	t.Helper()
	for range 100 {
		first := listen(t)
		port = strconv.Itoa(first.Addr().(*net.TCPAddr).Port)
		second, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.2:"+port)
		if err != nil {
			continue // somebody has it there
		}
		roots = x509.NewCertPool()
		for _, l := range []net.Listener{first, second} {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				handle(w, r, l.Addr().(*net.TCPAddr).IP.String())
			}))
			s.Listener.Close()
			s.Listener, s.Config.ErrorLog, s.EnableHTTP2 = l, discardLog, secure
			t.Cleanup(s.Close)
			if secure {
				s.StartTLS()
				roots.AddCert(s.Certificate())
			} else {
				s.Start()
			}
		}
		return port, roots
	}
	t.Fatal("no port is free at both addresses")
	return "", nil
}

// A client that is never idle follows a name to its new address, and no attempt fails on the way, not even one that
// takes longer than a connection is used.
func TestBusyClientFollowsItsName(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const first, second = "127.0.0.1", "127.0.0.2"
			var moved, stop atomic.Bool
			var atFirst, atSecond, protocols atomic.Int32
			hold, held := make(chan struct{}), make(chan struct{})
			port, roots := newPlaces(t, secure, func(_ http.ResponseWriter, r *http.Request, address string) {
				if r.Proto != name {
					protocols.Add(1)
				}
				if r.URL.Path == "/held" {
					close(held)
					<-hold
				}
				if address == second {
					atSecond.Add(1)
				} else {
					atFirst.Add(1)
				}
			})
			c := newTestClient(t, ClientConfig{
				Age: 50 * time.Millisecond, RootCAs: roots, Guard: NewGuard(prefixes("127.0.0.0/8")),
				Resolver: newNames(t, func(string) []netip.Addr {
					if moved.Load() {
						return addresses(second)
					}
					return addresses(first)
				}),
			})
			rawURL := "http://example.com:" + port
			if secure {
				rawURL = "https://example.com:" + port
			}
			var senders sync.WaitGroup
			send := func(path string) {
				if o := post(t, c, rawURL+path); o.Kind != Success {
					t.Errorf("outcome: %+v", o)
				}
			}
			senders.Go(func() { send("/held") })
			<-held
			for range 4 {
				senders.Go(func() {
					for !stop.Load() {
						send("/")
					}
				})
			}
			testenv.Eventually(t, time.Minute, "requests to the first address", func() (bool, string) { return atFirst.Load() > 100, "" })
			moved.Store(true)
			testenv.Eventually(t, time.Minute, "requests to the second address", func() (bool, string) { return atSecond.Load() > 100, "" })
			close(hold)
			stop.Store(true)
			senders.Wait()
			before := atFirst.Load()
			send("/")
			if atFirst.Load() != before {
				t.Error("the last request went to the address that the name has left")
			}
			if n := protocols.Load(); n > 0 {
				t.Errorf("%d requests did not come by %s", n, name)
			}
		})
	}
}

// What takes the place of old connections leaves none of them open.
func TestOldConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	var open atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = discardLog
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Add(-1)
		default:
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := newTestClient(t, ClientConfig{Age: time.Nanosecond}) // a connection for each request
	for range 20 {
		if o := post(t, c, s.URL); o.Kind != Success {
			t.Fatalf("outcome: %+v", o)
		}
	}
	testenv.Eventually(t, 10*time.Second, "old connections are closed", func() (bool, string) {
		n := open.Load()
		return n <= 1, strconv.Itoa(int(n)) + " are open"
	})
}
