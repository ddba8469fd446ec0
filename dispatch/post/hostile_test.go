package post

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
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

// Frames of HTTP/2 (RFC 9113, section 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameContinuation = 0x9

	endStream  = 0x1
	endHeaders = 0x4
	padded     = 0x8
)

// peer is the server's end of an HTTP/2 connection, which sends what it likes.
type peer struct {
	net.Conn
	in *bufio.Reader
}

// send reports whether the client still takes frames.
func (p *peer) send(kind, flags byte, stream uint32, payload []byte) bool {
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	frame = binary.BigEndian.AppendUint32(append(frame, flags), stream)
	_, err := p.Write(append(frame, payload...))
	return err == nil
}

// request waits for the next request and returns its stream; false: the client has gone.
func (p *peer) request() (stream uint32, ok bool) {
	for {
		var head [9]byte
		if _, err := io.ReadFull(p.in, head[:]); err != nil {
			return 0, false
		}
		if _, err := io.CopyN(io.Discard, p.in, int64(binary.BigEndian.Uint32(head[:4])>>8)); err != nil {
			return 0, false
		}
		if head[3] == frameHeaders {
			return binary.BigEndian.Uint32(head[5:]), true
		}
	}
}

// drain reads on until the client goes.
func (p *peer) drain() {
	for ok := true; ok; {
		_, ok = p.request()
	}
}

// h2Receiver makes servers that speak HTTP/2 by hand, all with one certificate.
type h2Receiver struct {
	config *tls.Config
	roots  *x509.CertPool
}

func newH2Receiver(t testing.TB) *h2Receiver {
	t.Helper()
	config, roots := selfSigned(t, func(_ *x509.Certificate, c *tls.Config) { c.NextProtos = []string{"h2"} })
	return &h2Receiver{config: config, roots: roots}
}

// serve calls handle for each connection once the client has said hello, and counts them.
func (r *h2Receiver) serve(t testing.TB, settings []byte, handle func(*peer)) (rawURL string, connections *atomic.Int32) {
	t.Helper()
	connections = new(atomic.Int32)
	l := tls.NewListener(listen(t), r.config)
	serveConns(t, l, func(conn net.Conn) {
		defer context.AfterFunc(t.Context(), func() { conn.Close() })()
		connections.Add(1)
		p := &peer{conn, bufio.NewReader(conn)}
		if _, err := io.CopyN(io.Discard, p.in, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err == nil && p.send(frameSettings, 0, 0, settings) {
			handle(p)
		}
	})
	return "https://" + l.Addr().String() + "/secretpath", connections
}

// An attempt at a server that breaks the rules of HTTP/2 ends, in words of ours, and opens few connections meanwhile.
func TestHostileHTTP2(t *testing.T) {
	t.Parallel()
	r := newH2Receiver(t)
	status200, status103 := []byte{0x88}, []byte("\x08\x03103")
	flood := func(first, each func(p *peer, stream uint32) bool) func(*peer) {
		return func(p *peer) {
			stream, ok := p.request()
			ok = ok && (first == nil || first(p, stream))
			for ok {
				ok = each(p, stream)
			}
		}
	}
	const broken, large = "HTTP/2: the server broke off", "reply headers are too large"
	for name, tt := range map[string]struct {
		settings []byte
		handle   func(*peer)
		want     string // the beginning
		patient  bool   // does not end by the timeout
	}{
		"turns every connection away": {
			handle: func(p *peer) { p.send(frameGoAway, 0, 0, make([]byte, 8)); p.drain() },
			want:   "timeout after 1s",
		},
		"turns every request away": {
			handle: func(p *peer) {
				if _, ok := p.request(); ok {
					p.send(frameGoAway, 0, 0, make([]byte, 8))
					p.drain()
				}
			},
			want: "timeout after 1s",
		},
		"refuses every stream": {
			handle: func(p *peer) {
				for {
					stream, ok := p.request()
					if !ok || !p.send(frameReset, 0, stream, []byte{0, 0, 0, 7}) {
						return
					}
				}
			},
			want: "timeout after 1s",
		},
		"allows no stream": {settings: []byte{0, 3, 0, 0, 0, 0}, handle: (*peer).drain, want: "timeout after 1s ("},
		"allows no body":   {settings: []byte{0, 4, 0, 0, 0, 0}, handle: (*peer).drain, want: "timeout after 1s ("},
		"speaks HTTP/1":    {handle: func(p *peer) { _, _ = io.WriteString(p, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); p.drain() }, want: broken, patient: true},
		"endless interim":  {handle: flood(nil, func(p *peer, s uint32) bool { return p.send(frameHeaders, endHeaders, s, status103) }), want: large, patient: true},
		"compressed headers": {
			// One header of 4,000 bytes that goes into the table, and 12,000 references to it.
			handle: flood(nil, func(p *peer, s uint32) bool {
				block := append([]byte{0x88, 0x40, 1, 'a', 0x7f, 0xa1, 0x1e}, strings.Repeat("b", 127+0x21+0x1e<<7)...)
				return p.send(frameHeaders, endHeaders, s, append(block, strings.Repeat("\xbe", 12000)...))
			}),
			want: large, patient: true,
		},
		"interim as its last word": {
			handle: flood(nil, func(p *peer, s uint32) bool { return p.send(frameHeaders, endHeaders|endStream, s, status103) }), want: broken, patient: true,
		},
		"no status": {
			handle: flood(nil, func(p *peer, s uint32) bool {
				return p.send(frameHeaders, endHeaders|endStream, s, []byte("\x00\x01a\x01b"))
			}), want: "reply is not HTTP", patient: true,
		},
		"body without headers": {
			handle: flood(nil, func(p *peer, s uint32) bool { return p.send(frameData, endStream, s, []byte("secretpath")) }), want: broken, patient: true,
		},
		"endless headers": {
			handle: flood(func(p *peer, s uint32) bool { return p.send(frameHeaders, 0, s, status200) },
				func(p *peer, s uint32) bool { return p.send(frameContinuation, 0, s, []byte("\x00\x01a\x04bbbb")) }),
			want: broken, patient: true,
		},
		"sends but padding": {handle: flood(func(p *peer, s uint32) bool { return p.send(frameHeaders, endHeaders, s, status200) },
			func(p *peer, s uint32) bool {
				return p.send(frameData, padded, s, append([]byte{255}, make([]byte, 255)...))
			}), want: ""},
		"sends but pings": {handle: flood(nil, func(p *peer, _ uint32) bool { return p.send(framePing, 0, 0, make([]byte, 8)) }), want: "timeout after 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rawURL, connections := r.serve(t, tt.settings, tt.handle)
			timeout := timeoutForTests
			if tt.patient {
				timeout = time.Minute
			}
			c := newTestClient(t, ClientConfig{Timeout: timeout, RootCAs: r.roots})
			if o := post(t, c, rawURL); (o.Kind == Success) != (tt.want == "") || !strings.HasPrefix(o.Error, tt.want) {
				t.Errorf("got %+v, want %q", o, tt.want)
			}
			// Four more fit into the second.
			if n := connections.Load(); n > freeDials+4 {
				t.Errorf("one attempt made %d connections", n)
			}
		})
	}
}

// What an attempt that is over was waiting for does not go on.
func TestAttemptThatIsOverOpensNoConnection(t *testing.T) {
	t.Parallel()
	ended, end := context.WithCancel(t.Context())
	var p progress
	p.trace(ended)
	dial := context.WithValue(t.Context(), progressKey{}, &p)
	for n := range freeDials {
		if err := awaitDial(dial); err != nil {
			t.Errorf("connection %d: %v", n+1, err)
		}
	}
	end()
	p.dials.Store(100)
	if err := awaitDial(dial); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
}

// A server that allows few requests on a connection, and hears from many attempts at once, gets all of them.
func TestServerThatAllowsFewStreams(t *testing.T) {
	t.Parallel()
	const attempts = 24
	together := make(chan struct{})
	var arrived atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if arrived.Add(1) == 8 {
			close(together)
		}
		<-together
	}))
	s.EnableHTTP2 = true
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1}
	s.StartTLS()
	t.Cleanup(s.Close)
	c := newTestClient(t, ClientConfig{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs})
	var wg sync.WaitGroup
	for range attempts {
		wg.Go(func() {
			if o := post(t, c, s.URL); o.Kind != Success {
				t.Errorf("outcome: %+v", o)
			}
		})
	}
	wg.Wait()
	if n := arrived.Load(); n != attempts {
		t.Errorf("%d requests came of %d", n, attempts)
	}
}

// Where a kept connection is being given up by the server, as all do after some time, the request goes out on another
// one.
func TestConnectionGivenUpByTheServer(t *testing.T) {
	t.Parallel()
	r := newH2Receiver(t)
	rawURL, connections := r.serve(t, nil, func(p *peer) {
		if stream, ok := p.request(); ok && p.send(frameHeaders, endHeaders|endStream, stream, []byte{0x88}) {
			// The next one is not taken any more.
			if _, ok := p.request(); ok {
				p.send(frameGoAway, 0, 0, binary.BigEndian.AppendUint64(nil, uint64(stream)<<32))
				p.drain()
			}
		}
	})
	c := newTestClient(t, ClientConfig{RootCAs: r.roots})
	for i := range 4 {
		if o := post(t, c, rawURL); o.Kind != Success {
			t.Errorf("attempt %d: %+v", i+1, o)
		}
	}
	if n := connections.Load(); n != 4 {
		t.Errorf("4 attempts made %d connections", n)
	}
}

// What a server says before it is asked, and what it never stops saying, costs no more than one attempt.
func TestHostileHTTP1(t *testing.T) {
	t.Parallel()
	endless := func(start, piece string) func(net.Conn) {
		return func(conn net.Conn) {
			_, err := io.WriteString(conn, start)
			for err == nil {
				_, err = io.WriteString(conn, piece)
			}
		}
	}
	const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, tt := range map[string]struct {
		handle func(net.Conn)
		want   string
	}{
		"endless interim":         {endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"), "reply headers are too large"},
		"endless continue":        {endless("", "HTTP/1.1 100 Continue\r\n\r\n"), "reply headers are too large"},
		"endless headers":         {endless("HTTP/1.1 200 OK\r\n", "X-Y: z\r\n"), "reply headers are too large"},
		"endless status line":     {endless("HTTP/1.1 200 ", strings.Repeat("O", 1000)), "reply headers are too large"},
		"endless blank lines":     {endless("", "\r\n"), "reply is not HTTP"},
		"endless trailers":        {endless(chunked+"0\r\n", "X-Y: z\r\n"), ""},
		"endless chunk extension": {endless(chunked+"1;", "secretpath"), ""},
		"endless chunk size":      {endless(chunked, strings.Repeat("0", 1000)), ""},
		"endless small chunks":    {endless(chunked, "1;yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\nz\r\n"), ""},
		"location without end":    {endless("HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: http://"+strings.Repeat("a", 60<<10)+"/\r\n\r\n", strings.Repeat("x", 1000)), "HTTP 302 Found: redirect to (unreadable URL) not followed"},
		"compressed body": {
			endless("HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n", strings.Repeat("\x1f\x8b\x08\x00", 250)), "HTTP 500 Internal Server Error",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if o := post(t, newTestClient(t, ClientConfig{}), newWire(t, tt.handle)); (o.Kind == Success) != (tt.want == "") || !strings.HasPrefix(o.Error, tt.want) || len(o.Error) > 2*maxDetail {
				t.Errorf("got %.200s (%d bytes), want %q", o.Error, len(o.Error), tt.want)
			}
		})
	}
}

// A server may answer, or speak another protocol, before it has read anything.
func TestReplyBeforeTheRequest(t *testing.T) {
	t.Parallel()
	for hello, want := range map[string]string{
		"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n":  "",
		"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n": "HTTP 413 Request Entity Too Large",
		"SSH-2.0-secretpath\r\n":                              "reply is not HTTP",
		"220 secretpath ESMTP\r\n":                            "reply is not HTTP",
	} {
		l := listen(t)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, hello)
				_, _ = io.Copy(io.Discard, conn)
				conn.Close()
			}
		}()
		o := post(t, newTestClient(t, ClientConfig{}), "http://"+l.Addr().String()+"/secretpath")
		// Whether the answer is seen before the connection counts as broken depends on which of the two was faster.
		if o.Kind == Success && want != "" || o.Error != want && !strings.HasPrefix(o.Error, "connection ") && !strings.HasPrefix(o.Error, "network error") {
			t.Errorf("%q: %+v", hello, o)
		}
	}
}

// The receiver knows the signing secrets, and may show them in what it answers.
func TestErrorNeverShowsASigningSecret(t *testing.T) {
	t.Parallel()
	const previous = "whsec_Zm9yIHRoZSB0ZXN0IGFsb25lLCBhbmQgbm8gb3RoZXI+"
	key := strings.Repeat("\xfb\xef", 16)
	const raw = "whsec_++/77/vv++/77/vv++/77/vv++/77/vv++/77/vv++8="
	s := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "expected "+specSecret+" or "+previous[len("whsec_"):]+" or "+hex.EncodeToString([]byte(key)))
	})
	target := newTestTarget(t, s.URL, specSecret, previous, raw)
	o := newTestClient(t, ClientConfig{}).Attempt(t.Context(), Request{Target: target, MessageID: "msg_1", Body: []byte(`{}`)})
	if want := "HTTP 401 Unauthorized: expected whsec_[redacted] or [redacted] or [redacted]"; o.Error != want {
		t.Errorf("got  %s\nwant %s", o.Error, want)
	}
}
