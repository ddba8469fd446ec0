package pgserver

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

var ports struct {
	sync.Mutex
	given map[int]bool
}

// FreePort returns a TCP port on which nobody listens at 127.0.0.1, and never the same one twice. It is below the range
// of ephemeral ports (from 32768 on Linux), so a server that is down does not lose its port to an outgoing connection,
// or to a client that dials this very port and is connected to itself.
func FreePort() (int, error) {
	ports.Lock()
	defer ports.Unlock()
	if ports.given == nil {
		ports.given = map[int]bool{}
	}
	var last error
	for range 1000 {
		port := 15000 + rand.IntN(15000)
		if ports.given[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		_ = l.Close()
		ports.given[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("find a free port between 15000 and 29999: %w", last)
}
