package dispatch

import (
	"maps"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/dispatch/schedule"
	"walhook/sql"
	"walhook/testenv"
)

// After an edit only the webhooks that changed are read.
func TestWebhooksAreLoadedByTheirChanges(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), "")
	if err := sql.Install(t.Context(), testenv.Connect(t, url)); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	load := func(before *schedule.Webhooks) *schedule.Webhooks {
		t.Helper()
		loaded, err := loadWebhooks(t.Context(), pool, before)
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	testenv.Exec(t, url, `
		insert into walhook.daemon (name, version, expires_at) values ('here', '1', now() + interval '1 hour');
		insert into walhook.webhook (url, event_type) select 'https://example.com/' || n, 'response.created' from generate_series(1, 6) as n;
		update walhook.endpoint set owner = (select id from walhook.daemon)`)
	before := load(&schedule.Webhooks{ByID: map[int64]*schedule.Webhook{}})
	testenv.Exec(t, url, `
		update walhook.webhook set secret = walhook.new_secret() where id = 1;
		update walhook.webhook set url = 'https://example.com/6' where id = 2;
		delete from walhook.webhook where id = 3;
		insert into walhook.webhook (url, event_type) values ('https://example.com/4', 'response.completed')`)
	after := load(before)
	same := map[int64]bool{}
	for id, w := range after.ByID {
		same[id] = w == before.ByID[id]
	}
	if want := map[int64]bool{1: false, 2: false, 4: true, 5: true, 6: true, 7: false}; !maps.Equal(same, want) {
		t.Errorf("the webhooks that were taken over are %v, not %v", same, want)
	}
	if w := after.ByID[2]; !w.Moving() || w.URL != "https://example.com/6" || after.ByID[1].Secret == "" {
		t.Errorf("what was loaded is %+v and %+v", w, after.ByID[1])
	}
	if again := load(after); !maps.Equal(again.ByID, after.ByID) {
		t.Error("without a change webhooks were read again")
	}

	// The move is settled.
	testenv.Exec(t, url, "delete from walhook.webhook_move")
	if w := load(after).ByID[2]; w.Moving() {
		t.Error("webhook 2 still waits")
	}
}
