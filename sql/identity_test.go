package sql

import (
	"strings"
	"testing"

	"walhook/testenv"
)

// With a publication FOR ALL TABLES, whoever created it, PostgreSQL refuses updates and deletes of a table without a
// replica identity.
func TestEveryTableHasAReplicaIdentity(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, "create publication everything for all tables; select walhook.ensure_partitions('minute')")
	const tables = `select c.oid::regclass::text from pg_class c where c.relnamespace = 'walhook'::regnamespace and c.relkind in ('r', 'p') `
	refused := testenv.Psql(t, url, tables+`and not (c.relreplident = 'f' or c.relreplident in ('d', 'i') and exists (
		select from pg_index i where i.indrelid = c.oid and i.indisvalid and case c.relreplident when 'd' then i.indisprimary else i.indisreplident end)) order by 1`)
	if refused != "" {
		t.Errorf("these have no replica identity:\n%s", refused)
	}
	for table := range strings.Lines(testenv.Psql(t, url, tables+"order by 1")) {
		testenv.Exec(t, url, "explain delete from "+strings.TrimSpace(table)) // no trigger fires
	}

	testenv.Exec(t, url, `
		insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id)
		select n, 1, 1, now(), now(), 1, 1, 0, false, 'r' from generate_series(1, 2) n;
		insert into walhook.attempt_overflow (delivery_id, attempt, attempted_at, duration_ms, succeeded) select n, 1, now(), 1, false from generate_series(1, 2) n`)
	if moved := testenv.Psql(t, url, "select moved, remain from walhook.drain_overflow(1)"); moved != "2|t" {
		t.Errorf("the first drain: %s", moved)
	}
	if trimmed := testenv.Psql(t, url, "select walhook.trim_overflow(interval '-1 hour')"); trimmed != "2" {
		t.Errorf("trimmed: %s", trimmed)
	}
}
