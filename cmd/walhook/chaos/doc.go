// Package chaos runs daemons under random faults, beside administrators and other users, and then checks every
// guarantee.
package chaos
