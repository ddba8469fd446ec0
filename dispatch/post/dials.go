package post

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"time"
)

// The transport opens another connection whenever an HTTP/2 server refuses a request unread, up to hundreds a second. A
// few are usual: an idle connection is just being closed, or the server allows few requests on each. So the first dials
// of an attempt are free, and each further one waits twice as long as the one before. In 15 s that makes ten.
const (
	freeDials = 3
	dialPause = 100 * time.Millisecond
)

type progressKey struct{}

// awaitDial waits until the attempt of this context may open one more connection. The context outlives the attempt,
// which may have found another connection meanwhile.
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

// maxAddresses is how many addresses of a name one dial tries. A name may have thousands, all of them somebody else's.
const maxAddresses = 16

var errTooManyAddresses = errors.New("too many addresses")

type addressesKey struct{}

// countAddresses returns the context of one dial.
func countAddresses(ctx context.Context) context.Context {
	return context.WithValue(ctx, addressesKey{}, new(atomic.Int32))
}

// fewOf is for [net.Dialer.ControlContext]. It allows the first maxAddresses addresses that the Guard allows.
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
