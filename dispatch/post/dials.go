package post

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"
)

// The transport opens another connection for as long as HTTP/2 servers turn a request away unread: hundreds a second. Few are
// usual: one that is kept is being given up, or the server allows few requests on each and others were faster. So the first
// ones of an attempt are free, and each further one waits twice as long as that before. In 15 s that makes ten.
const (
	freeDials = 3
	dialPause = 100 * time.Millisecond
)

type progressKey struct{}

// awaitDial returns nil when the attempt that the context belongs to may open one more connection. The context of a dial
// outlives the attempt, which may find another connection meanwhile.
func awaitDial(ctx context.Context) error {
	p, ok := ctx.Value(progressKey{}).(*progress)
	if !ok {
		return nil
	}
	further := p.dials.Add(1) - freeDials
	if further <= 0 {
		return nil
	}
	pause := time.NewTimer(dialPause << min(further-1, 20))
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-p.ended:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxAddresses is how many addresses of a name one connection is tried at. A name may have thousands, all somebody else's.
const maxAddresses = 16

var errTooManyAddresses = errors.New("too many addresses")

type addressesKey struct{}

// countAddresses is for the context of one dial.
func countAddresses(ctx context.Context) context.Context {
	return context.WithValue(ctx, addressesKey{}, new(atomic.Int32))
}

// fewOf is for [net.Dialer.ControlContext]: of the addresses that the Guard lets pass it refuses those beyond the first ones.
func fewOf(g *Guard) func(ctx context.Context, network, address string, c syscall.RawConn) error {
	return func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := g.Control(network, address, c); err != nil {
			return err
		}
		if tried, ok := ctx.Value(addressesKey{}).(*atomic.Int32); ok && tried.Add(1) > maxAddresses {
			return errTooManyAddresses
		}
		return nil
	}
}
