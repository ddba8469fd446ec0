// Package chaos runs daemons among faults, administrators and neighbours, and asks at its end whether every guarantee held.
package chaos
