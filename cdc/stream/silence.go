package stream

import (
	"fmt"
	"time"

	"walhook/cdc"
)

const (
	// walSenderTimeout is the wal_sender_timeout of our replication connections. While it processes a huge
	// transaction that it need not send, a server is silent and reads our messages only every half of this interval.
	// It is also the time after which a server drops a daemon whose host is gone.
	walSenderTimeout = 16 * time.Second

	// silenceLimit is how long the server may be silent after a reply was requested before the connection counts as
	// dead: two requests, and the server's own interval.
	silenceLimit = 2*statusInterval + walSenderTimeout/2 + 2*time.Second

	// silenceCap bounds the growth of the limit.
	silenceCap = time.Hour
)

// adaptiveTimeout is how long the stream waits for a silent server. A server that waits for its disk or processes a
// huge transaction is silent although nothing is wrong, and would need as long on a new connection. So each attempt
// at the same position gets twice the time of the previous one.
type adaptiveTimeout struct {
	initial time.Duration
	at      cdc.Position  // where the server was last silent for too long
	limit   time.Duration // the limit that it exceeded
}

// forPosition returns how long the server may be silent in a stream that begins at a position.
func (p *adaptiveTimeout) forPosition(at cdc.Position) time.Duration {
	if p.limit == 0 || at != p.at {
		return p.initial
	}
	return min(2*p.limit, silenceCap)
}

// expired records that the server exceeded the limit in a stream that began at a position.
func (p *adaptiveTimeout) expired(at cdc.Position, e *silenceError) { p.at, p.limit = at, e.limit }

// silenceError reports that the server was silent for too long.
type silenceError struct{ limit time.Duration }

func (e *silenceError) Error() string {
	return fmt.Sprintf("read the replication stream: the server has been silent for %s though a reply was requested", e.limit)
}
