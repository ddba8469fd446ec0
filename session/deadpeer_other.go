//go:build !linux

package session

import (
	"net"
	"time"
)

// setUserTimeout does nothing: the operating system's own limit applies.
func limitUnacknowledged(*net.TCPConn, time.Duration) error { return nil }
