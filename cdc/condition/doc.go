// Package condition parses the conditions of a mapping, and evaluates them on rows of the WAL and of snapshots. Each value
// has the text output format of its type, under the settings that package session pins.
//
// A condition means what it means in SQL. The values of each type are compared as PostgreSQL compares them; whatever
// this package cannot compare in the same way is rejected by [Condition.Bind], with the reason and the place.
//
// The package has no connections and no state. A [Bound] may be used concurrently.
package condition
