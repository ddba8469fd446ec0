package sql

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"walhook/testenv"
)

// Edits in transactions that began in another order than they end change the version as well. A sum of the rows' transactions would be
// the same before and after the last one here.
func TestVersionChangesWithEditsThatCrossEachOther(t *testing.T) {
	t.Parallel()
	store := installed(t)
	var early, middle, late *pgx.Conn
	for _, conn := range []**pgx.Conn{&early, &middle, &late} {
		*conn = testenv.Connect(t, store)
	}
	do := func(conn *pgx.Conn, statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	begin := func(conn *pgx.Conn) (xid int64) {
		t.Helper()
		do(conn, "begin")
		if err := conn.QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&xid); err != nil {
			t.Fatal(err)
		}
		return xid
	}
	version := func() (text string, sum int64) {
		t.Helper()
		if err := early.QueryRow(t.Context(), WebhooksVersion.SQL).Scan(&text, nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := early.QueryRow(t.Context(), "select sum(xmin::text::bigint)::bigint from walhook.webhook").Scan(&sum); err != nil {
			t.Fatal(err)
		}
		return text, sum
	}
	do(early, "insert into walhook.webhook (event_type, url) values ('response.created', 'https://example.com/1')")
	for first, second, third := int64(0), int64(0), int64(0); third-second != second-first || third == 0; {
		for _, conn := range []*pgx.Conn{early, middle, late} {
			do(conn, "rollback")
		}
		first, second, third = begin(early), begin(middle), begin(late) // others on the server may take one in between
	}
	do(early, "insert into walhook.webhook (event_type, url) values ('response.created', 'https://example.com/2'); commit")
	do(late, "update walhook.webhook set description = 'late' where url like '%/1'; commit")
	before, sumBefore := version()
	do(middle, "update walhook.webhook set description = 'both'; commit")
	after, sumAfter := version()
	if sumBefore != sumAfter {
		t.Fatalf("the transactions do not add up to the same: %d and %d", sumBefore, sumAfter)
	}
	if before == after {
		t.Errorf("the version is %s before and after an edit of both webhooks", before)
	}
}

// Nor does a webhook that is deleted make up for one that is made.
func TestVersionTellsWebhooksApart(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, installed(t))
	seen := map[string]string{}
	for _, change := range []string{
		"select 1",
		"insert into walhook.webhook (event_type, url) values ('response.created', 'https://example.com/1')",
		"delete from walhook.webhook; insert into walhook.webhook (event_type, url) values ('response.created', 'https://example.com/1')",
		"update walhook.settings set enabled = not enabled",
		"delete from walhook.webhook",
	} {
		if _, err := conn.Exec(t.Context(), change); err != nil {
			t.Fatal(err)
		}
		var version string
		if err := conn.QueryRow(t.Context(), WebhooksVersion.SQL).Scan(&version, nil, nil, nil); err != nil {
			t.Fatal(err)
		}
		if before, twice := seen[version]; twice {
			t.Errorf("after %q the version is %s, as after %q", change, version, before)
		}
		seen[version] = change
	}
}
