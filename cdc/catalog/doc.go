// Package catalog reads and writes the two databases on behalf of stream and setup: connections, locks, locations,
// the mapped tables and their replica identities, publication, slot, the recorded attachment, and the rows of a
// snapshot.
//
// Every function works on the connection that it is given, which belongs to one goroutine at a time. Only functions
// that create or drop an object by name, such as [CreateSlot] or [RepairPublication], change the source.
package catalog
