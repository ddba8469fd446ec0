package session

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// deadPeerTimeout is how long a server's machine may acknowledge nothing, not even a probe, before a connection of ours ends. With the usual
// settings of TCP that takes a quarter of an hour, or hours. On Linux it also bounds how long a server may refuse to take what we have for
// it, as while its disk stands still.
const deadPeerTimeout = time.Minute

var keepAliveProbes = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 9}

// detectDeadPeer lets a connection of this configuration end when the server's machine is gone.
func detectDeadPeer(config *pgconn.Config) {
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok {
			// Without them it is only noticed later.
			_ = tcp.SetKeepAliveConfig(keepAliveProbes)
			_ = setUserTimeout(tcp, deadPeerTimeout)
		}
		return conn, err
	}
}
