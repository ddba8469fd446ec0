package post

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// guarded allows 127.0.0.1 and refuses 127.0.0.2, which stands for an inner address.
var guarded = NewGuard(prefixes("127.0.0.1/32"))

// newTwin is a receiver at 127.0.0.1, whose port is also listened to at 127.0.0.2, where nobody must knock.
func newTwin(t *testing.T, h http.HandlerFunc) (s *httptest.Server, port string) {
	t.Helper()
	for range 100 {
		outer := listen(t)
		port = strconv.Itoa(outer.Addr().(*net.TCPAddr).Port)
		inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.2:"+port)
		if err != nil {
			continue // somebody has it there
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if conn, err := inner.Accept(); err == nil {
				conn.Close()
				t.Error("the inner address was connected to")
			}
		}()
		t.Cleanup(func() {
			inner.Close()
			<-done
		})
		s = httptest.NewUnstartedServer(h)
		s.Listener.Close()
		s.Listener = outer
		s.Config.ErrorLog = discardLog
		t.Cleanup(s.Close)
		return s, port
	}
	t.Fatal("no port is free at both addresses")
	return nil, ""
}

const innerRefused = "address refused: 127.0.0.0/8 is loopback; set WALHOOK_ALLOW_NETWORKS to allow it"

// Of several addresses of a name only those that are allowed are tried, whatever their order and family.
func TestNameWithAnInnerAddressAmongOthers(t *testing.T) {
	t.Parallel()
	s, port := newTwin(t, func(http.ResponseWriter, *http.Request) {})
	s.Start()
	names := map[string][]netip.Addr{
		"first.test":  addresses("127.0.0.2", "127.0.0.1"),
		"last.test":   addresses("127.0.0.1", "127.0.0.2"),
		"many.test":   addresses("127.0.0.2", "::1", "10.0.0.1", "fd00::1", "169.254.169.254", "64:ff9b::7f00:1", "127.0.0.1"),
		"mapped.test": addresses("::ffff:127.0.0.2", "127.0.0.1"),
		"inner.test":  addresses("127.0.0.2", "127.0.0.2"),
		"both.test":   addresses("127.0.0.2", "fe80::1"),
	}
	c := newTestClient(t, ClientConfig{Guard: guarded, Resolver: newNames(t, func(name string) []netip.Addr { return names[name] })})
	for name := range names {
		o := post(t, c, "http://"+name+":"+port+"/")
		if reachable := name != "inner.test" && name != "both.test"; reachable != (o.Kind == Success) || !reachable && !strings.HasPrefix(o.Error, "address refused: ") {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// A name that is pointed inside, between two attempts or after the lookup for one, leads nowhere: what is looked at is
// the address that is being connected to. A connection that is kept goes on to where it was made.
func TestNameThatIsPointedInside(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int32
	s, port := newTwin(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived.Add(1)
		if r.URL.Path == "/break" {
			panic(http.ErrAbortHandler)
		}
	})
	s.Start()
	var inside atomic.Bool
	c := newTestClient(t, ClientConfig{Guard: guarded, Resolver: newNames(t, func(string) []netip.Addr {
		if inside.Load() {
			return addresses("127.0.0.2")
		}
		return addresses("127.0.0.1")
	})})
	for i, tt := range []struct {
		inside bool
		path   string
		want   string
	}{
		{false, "/", ""},
		{true, "/", ""},
		{true, "/break", "connection closed before the reply ended"},
		{true, "/", innerRefused},
		{false, "/", ""},
	} {
		inside.Store(tt.inside)
		if o := post(t, c, "http://receiver.test:"+port+tt.path); o.Error != tt.want {
			t.Errorf("attempt %d: %+v", i+1, o)
		}
	}
	if n := arrived.Load(); n != 4 {
		t.Errorf("%d requests came, not 4", n)
	}
}

// Neither a certificate for several names nor what a server says of other places lets a name use the connection of
// another.
func TestConnectionsAreOfOneName(t *testing.T) {
	t.Parallel()
	s, port := newTwin(t, func(w http.ResponseWriter, r *http.Request) {
		if host, _, _ := net.SplitHostPort(r.Host); r.ProtoMajor != 2 || host != "outer.example.com" {
			t.Errorf("a request by %s for %s came", r.Proto, r.Host)
		}
		w.Header().Set("Alt-Svc", `h2="inner.example.com:`+r.URL.Port()+`"; persist=1`)
	})
	s.EnableHTTP2 = true
	s.StartTLS()
	c := newTestClient(t, ClientConfig{
		Guard: guarded, RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		Resolver: newNames(t, func(name string) []netip.Addr {
			if name == "inner.example.com" {
				return addresses("127.0.0.2")
			}
			return addresses("127.0.0.1")
		}),
	})
	for _, tt := range [][2]string{{"outer", ""}, {"inner", innerRefused}, {"outer", ""}} {
		if o := post(t, c, "https://"+tt[0]+".example.com:"+port+"/"); o.Error != tt[1] {
			t.Errorf("%s: %+v", tt[0], o)
		}
	}
}

// However a host is written, what it means is looked at.
func TestSpellingsOfAnInnerHost(t *testing.T) {
	t.Parallel()
	s := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("a request for %s came", r.Host) })
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// What is not an address to us is a name, and this name server knows what any library would take it for.
	everywhere := newNames(t, func(string) []netip.Addr { return addresses("127.0.0.1", "::1") })
	c := newTestClient(t, ClientConfig{Guard: NewGuard(nil), Resolver: everywhere})
	for _, host := range []string{
		"127.0.0.1", "127.0.0.1.", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "017700000001", "127.1", "127.0.1", "127.000.000.001",
		"１２７．０．０．１", "127。0。0。1", "①②⑦.0.0.1", "localhost", "LOCALHOST", "localhost.", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "ｌｏｃａｌｈｏｓｔ", "a.localhost", "localhost.localdomain",
		"0", "0.0.0.0", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]",
		"127.0.0.1.nip.io", "user:pw@127.0.0.1", "example.com@127.0.0.1", "example.com:80@localhost", "xn--n3h.test",
	} {
		target, err := NewTarget("http://" + host + ":" + port + "/secret")
		if err != nil {
			continue // refused earlier
		}
		o := c.Attempt(t.Context(), Request{Target: target, MessageID: "msg_1", Body: []byte(`{}`)})
		if o.Kind != Retry || o.HTTPStatus != 0 || !strings.HasPrefix(o.Error, "address refused: ") && o.Error != "DNS: no such host" && o.Error != "network error (connect)" {
			t.Errorf("%s: %+v", host, o)
		}
	}
}

// Names whose servers are silent take their own time alone, however many are being looked up.
func TestHangingLookupsDelayNoOther(t *testing.T) {
	t.Parallel()
	s := newReceiver(t, func(http.ResponseWriter, *http.Request) {})
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	const hanging = 64 // as many as attempts may be in flight by default
	asked := make(chan string, 4*hanging)
	c := newTestClient(t, ClientConfig{Resolver: newNames(t, func(name string) []netip.Addr {
		if strings.HasPrefix(name, "hangs") {
			asked <- name
			return []netip.Addr{{}}
		}
		return addresses("127.0.0.1")
	})})
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan Outcome, hanging)
	for i := range hanging {
		target := newTestTarget(t, "http://hangs"+strconv.Itoa(i)+".test/")
		go func() { ended <- c.Attempt(ctx, Request{Target: target, MessageID: "msg_1", Body: []byte(`{}`)}) }()
	}
	for names := map[string]bool{}; len(names) < hanging; names[<-asked] = true {
	}
	for range 10 {
		if o := post(t, c, "http://works.test:"+port+"/"); o.Kind != Success {
			t.Errorf("outcome: %+v", o)
		}
	}
	select {
	case o := <-ended:
		t.Errorf("an attempt did not hang: %+v", o)
	default:
	}
	giveUp()
	for range hanging {
		if o := <-ended; o.Kind != Aborted || o.Error != "aborted (DNS lookup)" {
			t.Errorf("outcome: %+v", o)
		}
	}
}

// A name may have any number of addresses, and an attempt connects to few of them.
func TestNameWithManyAddresses(t *testing.T) {
	t.Parallel()
	s, port := newTwin(t, func(http.ResponseWriter, *http.Request) {})
	s.Start()
	many := make([]netip.Addr, 0, 70)
	for i := range 70 {
		// Where nobody listens.
		many = append(many, netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i)}))
	}
	served := netip.MustParseAddr("127.0.0.1")
	tried := map[string][]netip.Addr{
		"last-of-few.test":  append(many[:maxAddresses-1:maxAddresses-1], served),
		"last-of-many.test": append(many[:60:60], served),
		// Refused ones are not connected to and do not count.
		"behind-inner-ones.test": append(slices.Repeat(addresses("10.0.0.1"), 60), served),
	}
	c := newTestClient(t, ClientConfig{Guard: NewGuard(prefixes("127.0.0.1/32", "127.0.1.0/24")), Resolver: newNames(t, func(name string) []netip.Addr { return tried[name] })})
	for name, want := range map[string]string{"last-of-few.test": "", "last-of-many.test": "connection refused", "behind-inner-ones.test": ""} {
		if o := post(t, c, "http://"+name+":"+port+"/"); o.Error != want {
			t.Errorf("%s: %+v", name, o)
		}
	}
}
