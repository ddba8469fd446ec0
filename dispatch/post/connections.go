package post

import (
	"net/http"
	"sync"
	"time"
)

// connectionAge is how long connections get new requests before names are resolved again. A busy connection is never
// idle for long enough to be closed, and would stay at an address that its name no longer has.
const connectionAge = time.Minute

// connections is a pool of connections that get no new requests once they reach an age. Requests in flight keep theirs.
// http.Transport cannot limit the age of a connection, so another transport replaces it.
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
		// From now on it closes the others as soon as they are idle.
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
