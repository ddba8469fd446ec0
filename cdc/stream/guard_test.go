package stream

import (
	"log/slog"
	"strings"
	"testing"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/testenv"
)

// The reason for dropping a slot concerns that slot only, not a later one of the same name that is lost.
func TestReasonIsOfTheSlotThatWasGivenUp(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), "create table t (x text)")
	slot := "heavy_" + testenv.Value[string](t, url, "select current_database()")
	status := &Status{}
	status.setPhase(PhaseReconciling, "")
	guard := NewGuard(GuardConfig{SourceURL: url, Slot: slot, Status: status, MaxSlotLag: 1 << 40, Log: slog.New(slog.DiscardHandler)})
	source, err := catalog.ConnectSource(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer catalog.CloseQuietly(source)
	look := func(want string) {
		t.Helper()
		if err := guard.checkSlot(t.Context(), source); err != nil {
			t.Fatal(err)
		}
		if gap := guard.missingSlotGap(); gap.Kind != cdc.SlotLost || !strings.Contains(gap.Detail, want) {
			t.Errorf("a missing slot is told of as %q, %q, and not as one that %s", gap.Kind, gap.Detail, want)
		}
	}
	const create = "select pg_create_logical_replication_slot($1, 'pgoutput')"
	testenv.Exec(t, url, create, slot)
	look("does not exist any more")
	testenv.Exec(t, url, "insert into t select repeat(md5(n::text), 50) from generate_series(1, 1000) n")
	guard.cfg.MaxSlotLag = 1 << 16
	look("was dropped: it retained")
	look("was dropped: it retained")
	guard.cfg.MaxSlotLag = 1 << 40
	testenv.Exec(t, url, create, slot)
	look("does not exist any more")
	testenv.Exec(t, url, "select pg_drop_replication_slot($1)", slot)
	look("does not exist any more")
}
