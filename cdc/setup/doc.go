// Package setup is what people run around a stream: attach and detach, the plan of an attach, the examination by doctor, and
// what status observes. Its functions open their own connections and hold the attach lock while they change anything; each
// may be repeated, and an interrupted one starts over.
package setup
