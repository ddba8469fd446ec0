// Package setup implements the commands around a stream: attach, detach, plan, doctor (Examine) and status (Observe).
// Its functions open their own connections and hold the attach lock while they change anything. Each may be repeated,
// and an interrupted one starts over.
package setup
