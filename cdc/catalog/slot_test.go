package catalog

import (
	"testing"

	"walhook/testenv"
)

// A slot that vanishes between lookup and drop, as one does that its walsender was still creating, counts as dropped.
func TestDropSlotThatGoes(t *testing.T) {
	t.Parallel()
	// A function ahead of the server's own in the search path drops the slot at that moment.
	url := testenv.Database(t, testenv.Postgres(t), `
		create schema beforehand;
		create sequence beforehand.calls;
		create function beforehand.pg_drop_replication_slot(slot name) returns void language sql as $$
			select nextval('beforehand.calls'), pg_catalog.pg_drop_replication_slot(slot);
			select pg_catalog.pg_drop_replication_slot(slot);
		$$`)
	name := "going_" + testenv.Value[string](t, url, "select current_database()")
	testenv.Exec(t, url, "select pg_create_logical_replication_slot($1, 'pgoutput')", name)
	source := testenv.Connect(t, url)
	if _, err := source.Exec(t.Context(), "set search_path = beforehand, pg_catalog"); err != nil {
		t.Fatal(err)
	}
	if err := DropSlot(t.Context(), source, name); err != nil {
		t.Error(err)
	}
	if !testenv.Value[bool](t, url, "select is_called from beforehand.calls") {
		t.Error("the slot did not go beforehand")
	}
	if n := testenv.Value[int](t, url, "select count(*) from pg_replication_slots where slot_name = $1", name); n != 0 {
		t.Error("the slot is still there")
	}
}
