// Package setup implements the commands around a stream: preview, plan, attach, detach, doctor (Examine) and status
// (Observe).
//
// Its functions open their own connections. Attach and Detach hold the attach lock; the others change nothing. Each may be
// repeated, and an interrupted one starts over.
package setup
