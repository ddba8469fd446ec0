package session

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// deadPeerTimeout is how long the server's host may acknowledge nothing, not even a keepalive probe, before the
// connection is closed. TCP's defaults would take from 15 minutes to hours. On Linux it also bounds how long the
// server may not read from the connection, for example while its disk is stalled.
const deadPeerTimeout = time.Minute

var keepAliveProbes = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 9}

// detectDeadPeer makes connections of this configuration fail when the server's host is gone.
func detectDeadPeer(config *pgconn.Config) {
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok {
			// Best effort: without these options the failure is detected later.
			_ = tcp.SetKeepAliveConfig(keepAliveProbes)
			_ = setUserTimeout(tcp, deadPeerTimeout)
		}
		return conn, err
	}
}
