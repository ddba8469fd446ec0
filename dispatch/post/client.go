package post

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"time"
)

const (
	// maxReplyHeaders bounds a reply's header, interim replies (1xx) included.
	maxReplyHeaders = 64 << 10

	// idleTimeout closes idle connections before common load balancers do (60 s and more), so that a request rarely
	// uses a connection that is just being closed.
	idleTimeout = 30 * time.Second

	// An HTTP/2 connection whose peer has silently gone would fail every attempt on it until TCP gives up, after a
	// quarter of an hour. A ping finds out within the sum of these.
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// ClientConfig configures a Client. Every zero value has a default.
type ClientConfig struct {
	Timeout     time.Duration  // of one attempt, connect to last byte; default 15 s
	RetryCap    time.Duration  // bound of Outcome.RetryAfter; default 12 h
	Concurrency int            // attempts in flight that the connection pool is sized for; default 64
	Version     string         // sent in User-Agent; default "dev"
	Guard       *Guard         // default: public addresses alone
	RootCAs     *x509.CertPool // default: the system's
	Resolver    *net.Resolver  // default: Go's own, with the system's configuration
	Age         time.Duration  // of a connection, after which it gets no new request; default 1 min
}

// Client makes attempts. It owns one pool of connections. It ignores the proxies of the environment, because a proxy
// would connect to addresses that the Guard never sees. It may be used concurrently.
type Client struct {
	timeout     time.Duration
	retryCap    time.Duration
	userAgent   []string
	connections *connections
}

// NewClient returns a Client. Close it to drop its idle connections.
func NewClient(cfg ClientConfig) *Client {
	timeout := cmp.Or(max(cfg.Timeout, 0), 15*time.Second)
	concurrency := cmp.Or(max(cfg.Concurrency, 0), 64)
	guard := cfg.Guard
	if guard == nil {
		guard = NewGuard(nil)
	}
	// The transport lets a dial outlive its attempt, so that the next attempt can use the connection. A dial therefore
	// has a deadline of its own, which is later than the attempt's.
	dialTimeout := 2 * timeout
	dialer := &net.Dialer{Timeout: dialTimeout, ControlContext: fewOf(guard), Resolver: cfg.Resolver}
	if dialer.Resolver == nil {
		// A lookup by the C library, which other builds might use, cannot be cancelled and holds a thread until it
		// ends.
		dialer.Resolver = &net.Resolver{PreferGo: true}
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		if err := awaitDial(ctx); err != nil {
			return nil, err
		}
		return dialer.DialContext(countAddresses(ctx), network, address)
	}
	newTransport := func() *http.Transport {
		return &http.Transport{
			Proxy:                  nil,
			DialContext:            dial,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.RootCAs},
			TLSHandshakeTimeout:    dialTimeout,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           2 * concurrency,
			MaxIdleConnsPerHost:    concurrency,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxReplyHeaders,
			HTTP2: &http.HTTP2Config{
				// The defaults let one connection hold megabytes of replies that nobody reads.
				MaxReceiveBufferPerConnection: 1 << 20,
				MaxReceiveBufferPerStream:     maxReply,
				SendPingTimeout:               pingAfter,
				PingTimeout:                   pingTimeout,
			},
		}
	}
	return &Client{
		timeout:     timeout,
		retryCap:    cmp.Or(max(cfg.RetryCap, 0), 12*time.Hour),
		userAgent:   []string{"walhook/" + cmp.Or(cfg.Version, "dev")},
		connections: newConnections(cmp.Or(max(cfg.Age, 0), connectionAge), newTransport),
	}
}

// Close drops the idle connections. Attempts in flight continue.
func (c *Client) Close() { c.connections.close() }
