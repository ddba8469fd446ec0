package catalog

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/testenv"
)

// A lost session is terminated, but not another one that has its pid, as after a restart of the server.
func TestLostSessionIsTerminated(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), "")
	var stores [2]*pgx.Conn
	for i := range stores {
		store, err := ConnectLocking(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer CloseQuietly(store)
		stores[i] = store
	}
	holder, other := stores[0], stores[1]
	if locked, err := TryLock(t.Context(), holder, ReaderLock, time.Minute); err != nil || !locked {
		t.Fatal(locked, err)
	}
	lives := func() bool {
		_, err := holder.Exec(t.Context(), "select")
		return err == nil
	}
	pid, began := holder.PgConn().PID(), holder.PgConn().CustomData()[sessionBegan].(time.Time)
	var lost lostSessions
	lost.add(lostSession{pid, began.Add(-time.Hour)})
	if err := lost.end(t.Context(), other); err != nil || !lives() {
		t.Errorf("a session with the pid of a lost one lives: %t, %v", lives(), err)
	}
	lost.add(lostSession{pid, began})
	if err := lost.end(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, "the lost session to end", func() (bool, string) { return !lives(), "" })
}
