// Package catalog is what stream and setup know of the two databases: connections, locks, where they are, the mapped
// tables and their replica identities, publication, slot, the attachment that the store has recorded, and the rows of a
// snapshot.
//
// Every function works on the connection that it is given, and a connection is used by one goroutine at a time. Only what
// creates or drops an object by its name, such as [CreateSlot] or [RepairPublication], changes the source.
package catalog
