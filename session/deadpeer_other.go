//go:build !linux

package session

import (
	"net"
	"time"
)

// setUserTimeout does nothing: the operating system's own limit applies.
func setUserTimeout(*net.TCPConn, time.Duration) error { return nil }
