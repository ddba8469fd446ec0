package stream

import (
	"fmt"
	"time"

	"walhook/cdc"
)

const (
	// walSenderTimeout is the wal_sender_timeout of our replication connections. Inside a huge transaction, of which it may send
	// nothing, a server looks for what we say only each half of it, and is silent until then. At the same time it is after how
	// long a server gives up a daemon whose machine is gone.
	walSenderTimeout = 16 * time.Second

	// silenceLimit is how long the server may say nothing, though it was asked for a reply, before the wire counts as dead:
	// until it is asked, until it is asked once more, and until it looks.
	silenceLimit = 2*statusInterval + walSenderTimeout/2 + 2*time.Second

	// silenceCap bounds what the limit grows to.
	silenceCap = time.Hour
)

// adaptiveTimeout is how long a silent server is waited for. One that waits for its disk, or takes over a huge transaction without looking
// up, is silent for long where nothing is wrong, and a new connection would get no further in the same time. So at the same position
// each try is given twice the time of the one before.
type adaptiveTimeout struct {
	initial time.Duration
	at      cdc.Position  // where the server last said nothing for too long
	limit   time.Duration // that long
}

// forPosition returns how long the server may be silent in a stream that begins at a position.
func (p *adaptiveTimeout) forPosition(at cdc.Position) time.Duration {
	if p.limit == 0 || at != p.at {
		return p.initial
	}
	return min(2*p.limit, silenceCap)
}

// expired notes that the server said nothing for that long in a stream that began at a position.
func (p *adaptiveTimeout) expired(at cdc.Position, e *silenceError) { p.at, p.limit = at, e.limit }

// silenceError tells that the server said nothing for too long.
type silenceError struct{ limit time.Duration }

func (e *silenceError) Error() string {
	return fmt.Sprintf("read the replication stream: the server has been silent for %s though a reply was requested", e.limit)
}
