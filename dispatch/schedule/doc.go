// Package schedule decides which delivery is attempted when. It holds part of the queue in memory, keeps the order of
// the deliveries about one response, and gives each endpoint its turn.
//
// A [Schedule] only decides: it does no input or output and has no clock of its own. Package dispatch calls its methods as
// events arrive, in any order and from any goroutine, and supplies the [Actions] that it may take. Each exported method is
// one step under the schedule's mutex.
package schedule
