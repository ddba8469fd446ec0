package dispatch

import (
	"maps"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"walhook/sql"
	"walhook/testenv"
)

// After an edit only the webhooks that changed are read, and only their endpoints are touched.
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
	load := func(before *webhooks) *webhooks {
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
	before := load(&webhooks{byID: map[int64]*webhook{}})
	c := newClocked(t, edited(1000, 10, 1))
	c.applyWebhooks(before)
	for id := range c.endpoints {
		c.markClaimed(0, id, 0, 0)
		c.endpoints[id].on(nothingPending)
	}
	generations := map[int64]int{}
	for id, e := range c.endpoints {
		generations[id] = e.generation
	}
	for !c.ring.empty() {
		c.ring.pop()
	}

	testenv.Exec(t, url, `
		update walhook.webhook set secret = walhook.new_secret() where id = 1;
		update walhook.webhook set url = 'https://example.com/6' where id = 2;
		delete from walhook.webhook where id = 3;
		insert into walhook.webhook (url, event_type) values ('https://example.com/4', 'response.completed')`)
	after := load(before)
	same := map[int64]bool{}
	for id, w := range after.byID {
		same[id] = w == before.byID[id]
	}
	if want := map[int64]bool{1: false, 2: false, 4: true, 5: true, 6: true, 7: false}; !maps.Equal(same, want) {
		t.Errorf("the webhooks that were taken over are %v, not %v", same, want)
	}
	if w := after.byID[2]; !w.moving() || w.url != "https://example.com/6" || after.byID[1].secret == "" {
		t.Errorf("what was loaded is %+v and %+v", w, after.byID[1])
	}
	if !c.applyWebhooks(after) {
		t.Error("the deleted webhook is not missed")
	}
	for _, w := range before.byID {
		e := c.endpoints[w.endpointID]
		if touched := e.generation != generations[e.id]; touched != (w.id != 5) {
			t.Errorf("the memory of the endpoint of webhook %d was begun anew: %v", w.id, touched)
		}
	}
	if again := load(after); !maps.Equal(again.byID, after.byID) {
		t.Error("without a change webhooks were read again")
	}

	// The move is settled.
	testenv.Exec(t, url, "delete from walhook.webhook_move")
	if w := load(after).byID[2]; w.moving() {
		t.Error("webhook 2 still waits")
	}
}
