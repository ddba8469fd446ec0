package post

import (
	"net/http"
	"sync"
	"time"
)

// connectionAge is how long connections are used before names are looked up again: a busy one would never be idle for long enough to
// be closed, and would go on to an address that its name has left.
const connectionAge = time.Minute

// connections is a pool of connections none of which gets new requests for longer than age. Requests that are in flight keep theirs.
// The transport cannot bound the age of a connection itself, so another transport takes its place.
type connections struct {
	age  time.Duration
	make func() *http.Transport

	mu       sync.Mutex
	current  *http.Transport
	previous *http.Transport // its last requests may be in flight
	since    time.Time
}

func newConnections(age time.Duration, makeTransport func() *http.Transport) *connections {
	return &connections{age: age, make: makeTransport, current: makeTransport(), since: time.Now()}
}

// transport returns the one for the next request.
func (c *connections) transport() *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.since) >= c.age {
		c.closeIdle()
		c.previous, c.current, c.since = c.current, c.make(), time.Now()
		// From now on it closes each of the others as soon as it becomes idle.
		c.previous.CloseIdleConnections()
	}
	return c.current
}

// close drops the idle connections.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle()
	c.current.CloseIdleConnections()
}

func (c *connections) closeIdle() {
	if c.previous != nil {
		c.previous.CloseIdleConnections()
	}
}
