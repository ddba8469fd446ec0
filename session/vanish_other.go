//go:build !linux

package session

import (
	"net"
	"time"
)

// limitUnacknowledged does nothing here: the system's own limit holds.
func limitUnacknowledged(*net.TCPConn, time.Duration) error { return nil }
