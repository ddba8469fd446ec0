package setup

// The locks that the statements of an attach acquire, and what they block. TestPlanTellsTheLocks compares these notes
// with pg_locks. Lock conflicts: PostgreSQL manual, section 13.3, Explicit Locking.
const (
	slotNote = "Over a replication connection, as a role with REPLICATION. Locks no table. It waits until every transaction that is running now\n" +
		"and has written something has ended, including prepared ones; nobody waits for it. From then on the server keeps WAL for the slot\n" +
		"until the daemon has read it, and VACUUM keeps dead rows of the system catalogs that the slot still needs."

	snapshotNote = "At the slot's snapshot, in a read-only transaction. ACCESS SHARE on the table, like any SELECT, for as long as reading takes:\n" +
		"no reader and no writer waits. Statements that need ACCESS EXCLUSIVE (ALTER TABLE, DROP, TRUNCATE, VACUUM FULL, CLUSTER, LOCK TABLE)\n" +
		"wait until it ends, and everybody behind them waits too, so run no migration of this table meanwhile. VACUUM works everywhere, but\n" +
		"removes no row that died since the snapshot."

	publicationNote = "Needs ownership of the tables and CREATE on the database. SHARE UPDATE EXCLUSIVE on each table that it names, until the\n" +
		"statement ends: readers and writers do not wait for it, nor it for them. It and these wait for each other: VACUUM, ANALYZE,\n" +
		"CREATE INDEX (CONCURRENTLY), REINDEX, CREATE TRIGGER and ALTER TABLE; an autovacuum gives way, unless it prevents wraparound.\n" +
		"Once a table is published, PostgreSQL refuses UPDATE and DELETE if it has no replica identity, which is checked first."

	unpublishNote = "Must be created by the publication's owner, with whose rights it runs. It can take a table out of a publication that walhook created, and\n" +
		"do nothing else. Locks no table."

	schemaNote = "Needs CREATE on the database and, unless a superuser runs it, membership in the role that is to own it. Locks no table."
)

// grantNote describes the locks of GRANT on a table.
func grantNote(version int) string {
	if version >= 180000 {
		return "ACCESS SHARE on the table for a moment, like any SELECT (new in 18): it waits for a holder of ACCESS EXCLUSIVE, and nobody waits for it."
	}
	return "Locks no table up to PostgreSQL 17."
}
