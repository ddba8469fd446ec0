package cdc

// What the statements of an attach lock, and what they could get in the way of. TestPlanTellsTheLocks holds this against
// pg_locks. Which locks conflict: PostgreSQL manual, section 13.3, Explicit Locking.
const (
	slotNote = "By a replication connection, as a role with REPLICATION. It locks no table. It waits until each transaction that has written\n" +
		"something and is running now has ended, prepared ones too, and nobody waits for it. From then on the server keeps WAL for the slot\n" +
		"until the daemon has read it, and VACUUM keeps dead rows of the system catalogs that the slot still needs."

	snapshotNote = "At the slot's snapshot, in a read-only transaction. ACCESS SHARE on the table, as any SELECT, for as long as the reading takes:\n" +
		"no reader and no writer waits. Who wants ACCESS EXCLUSIVE meanwhile (ALTER TABLE, DROP, TRUNCATE, VACUUM FULL, CLUSTER, LOCK TABLE)\n" +
		"waits for its end, and everybody behind them waits too, so run no migration of this table meanwhile. VACUUM goes on everywhere, but\n" +
		"removes no row that died since then."

	publicationNote = "Needs the ownership of the tables and CREATE on the database. SHARE UPDATE EXCLUSIVE on each table that is named, until the\n" +
		"statement's end: no reader and no writer waits for it, nor it for them. It waits for, and keeps waiting for that moment, VACUUM,\n" +
		"ANALYZE, CREATE INDEX (CONCURRENTLY), REINDEX, CREATE TRIGGER and ALTER TABLE; an autovacuum gives way, unless against wraparound.\n" +
		"Once a table is published, PostgreSQL refuses UPDATE and DELETE where it has no replica identity; attach has made sure of that."

	schemaNote = "Needs CREATE on the database, and, for who is no superuser, membership in the role that is to own it. Locks no table."
)

// grantNote is what GRANT on a table locks.
func grantNote(version int) string {
	if version >= 180000 {
		return "ACCESS SHARE on the table for a moment, as any SELECT (new in 18): it waits for who holds ACCESS EXCLUSIVE, and nobody waits for it."
	}
	return "Locks no table up to PostgreSQL 17."
}
