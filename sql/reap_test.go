package sql

import (
	"testing"

	"walhook/testenv"
)

// A daemon's death is recorded only if it is known: another one that could not reach the store either cannot tell.
func TestDeathIsKnownBeforeItIsRecorded(t *testing.T) {
	t.Parallel()
	database := installed(t)
	conn := testenv.Connect(t, database)
	const session = "(select a.backend_start from pg_stat_activity a where a.pid = pg_backend_pid())"
	for _, c := range []struct {
		name, started, heartbeat string // when the recorder started, and when the other was last heard of
		known                    bool
	}{
		{"recorder was connected", "'2020-01-01'", "now()", true},
		{"recorder was disconnected as well", "'2020-01-01'", session + " - interval '1 ms'", false},
		{"recorder started afterwards", "now()", session + " - interval '1 ms'", true},
		{"store restarted", "now()", "pg_postmaster_start_time() - interval '1 ms'", false},
	} {
		var self int64
		err := conn.QueryRow(t.Context(), "insert into walhook.daemon (name, version, started_at, expires_at) values ('self', '', "+c.started+
			", now() + interval '1 hour') returning id").Scan(&self)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "insert into walhook.daemon (name, version, heartbeat_at, expires_at) values ('other', '', "+
			c.heartbeat+", now() - interval '1 s')"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), ReapDaemons.SQL, self); err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{true: "self|daemon other stopped without signing off; the other daemons took over its deliveries", false: "self|"}[c.known]
		if got := testenv.Psql(t, database, "select (select string_agg(name, ',') from walhook.daemon), (select detail from walhook.incident)"); got != want {
			t.Errorf("%s: daemons and incident are %q, not %q", c.name, got, want)
		}
		testenv.Exec(t, database, "delete from walhook.daemon; delete from walhook.incident_log")
	}
}
