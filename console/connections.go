package console

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	mostConnections    = 40              // of all people who are signed in with a role, together
	connectionPatience = 3 * time.Second // how long a request waits for one of them
	mostLive           = 200             // live parts of pages, each of which queries repeatedly
)

// errNoConnection reports that all connections are in use, and stay so.
var errNoConnection = errors.New("all connections to the store are in use")

// withConnection lends a connection of the pool. If all are in use, it does not wait for ever.
func withConnection(ctx context.Context, pool *pgxpool.Pool, do func(*pgxpool.Conn) error) error {
	waiting, exhausted := ctx, pool.Stat().AcquiredConns() >= pool.Stat().MaxConns()
	if exhausted {
		bounded, cancel := context.WithTimeout(ctx, connectionPatience)
		defer cancel()
		waiting = bounded
	}
	conn, err := pool.Acquire(waiting)
	if err != nil {
		if exhausted && ctx.Err() == nil && waiting.Err() != nil {
			return errNoConnection
		}
		return err
	}
	defer conn.Release()
	return do(conn)
}

// connections bounds the connections to the store under the roles of people, however many sessions there are.
type connections struct {
	slots    chan struct{}
	shed     func() // closes idle ones
	patience time.Duration
}

func newConnections(most int, shed func()) *connections {
	return &connections{slots: make(chan struct{}, most), shed: shed, patience: connectionPatience}
}

// bound makes each connection of a pool take a slot.
func (c *connections) bound(_ context.Context, config *pgx.ConnConfig) error {
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if err := c.take(ctx); err != nil {
			return nil, err
		}
		conn, err := dial(ctx, network, addr)
		if err != nil {
			<-c.slots
			return nil, err
		}
		return &slotConn{Conn: conn, free: sync.OnceFunc(func() { <-c.slots })}, nil
	}
	return nil
}

func (c *connections) take(ctx context.Context) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	default:
	}
	c.shed()
	patience := time.NewTimer(c.patience)
	defer patience.Stop()
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-patience.C:
		return errNoConnection
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slotConn frees its slot when it is closed.
type slotConn struct {
	net.Conn
	free func()
}

func (c *slotConn) Close() error {
	defer c.free()
	return c.Conn.Close()
}
