package sql

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/testenv"
)

// noticed connects and returns a function that returns the notices of a statement.
func noticed(t *testing.T, url string) func(statement string) string {
	t.Helper()
	var notices []string
	config, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message+" / "+n.Hint) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return func(statement string) string {
		t.Helper()
		notices = nil
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		return strings.Join(notices, "\n")
	}
}

// A statement that fails or pauses pending deliveries, or keeps events from being sent, gets a notice with the number
// of deliveries.
func TestNoticesSayWhatIsDiscarded(t *testing.T) {
	t.Parallel()
	database := installed(t)
	testenv.Exec(t, database, `insert into walhook.webhook (event_type, url) select 'response.created', 'https://example.com/' || g from generate_series(1, 4) g;
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id, next_attempt_at)
		select w, now(), 1, g::text, case g when 1 then now() end from generate_series(1, 3) w, generate_series(1, w) g`)
	admin, owner := noticed(t, as(t, database, "walhook_admin")), noticed(t, database)
	for _, step := range []struct {
		who             func(string) string
		statement, want string
	}{
		{
			admin, "update walhook.settings set enabled = false",
			"webhooks are switched off; pending deliveries that wait until they are switched on: 6 / Events that happen until then are recorded and never sent.",
		},
		{admin, "update walhook.settings set enabled = false", ""},
		{admin, "update walhook.settings set enabled = true", ""},
		{admin, "update walhook.webhook set description = 'x'", ""},
		{
			admin, "update walhook.webhook set enabled = false where id in (2, 3)",
			"webhooks disabled: 2; pending deliveries that wait until they are enabled: 5 / Events that happen until then are never sent to them.",
		},
		{
			admin, "update walhook.webhook set enabled = false where id in (3, 4)",
			"webhooks disabled: 1; pending deliveries that wait until they are enabled: 0 / Events that happen until then are never sent to them.",
		},
		{admin, "update walhook.webhook set enabled = true", ""},
		{admin, "delete from walhook.webhook where id > 2", `pending deliveries of deleted webhooks ended as failed: 3 / ` +
			`The log has them, with the error "the webhook was deleted". They cannot be redelivered.`},
		{admin, "delete from walhook.webhook where id > 2", ""},
		{owner, "truncate walhook.queue", "pending deliveries that ended as failed: 3 / walhook.redeliver_failed queues them again."},
		{owner, "truncate walhook.queue", ""},
		{admin, "delete from walhook.webhook", ""},
	} {
		if got := step.who(step.statement); got != step.want {
			t.Errorf("%s: %q, not %q", step.statement, got, step.want)
		}
	}
	if got := testenv.Psql(t, database, "select error, count(*) from walhook.delivery_log where status = 'failed' group by 1 order by 1"); got != "the webhook was deleted|3\nwalhook.queue was truncated|3" {
		t.Errorf("the log has %s", got)
	}
}

// The count for a notice stops early, whatever waits.
func TestNoticesDoNotReadALongQueue(t *testing.T) {
	t.Parallel()
	database := installed(t)
	testenv.Exec(t, database, `insert into walhook.webhook (event_type, url) values ('response.created', 'https://example.com/');
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id) select 1, now(), 1, g::text from generate_series(1, 10001) g`)
	if got := noticed(t, database)("update walhook.webhook set enabled = false"); !strings.Contains(got, "until they are enabled: more than 10000 /") {
		t.Errorf("disabled: %q", got)
	}
}
