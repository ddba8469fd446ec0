package sql

import (
	"strings"
	"testing"

	"walhook/testenv"
)

// explain keeps apart what was delivered, what fired nothing afterwards, and what was not recorded.
func TestExplainOfEventsThatOthersFollowed(t *testing.T) {
	t.Parallel()
	database := installed(t)
	testenv.Exec(t, database, `
		insert into walhook.webhook (event_type, url, created_at, updated_at)
		select e, 'https://example.com/' || n, at, at
		  from (values ('response.changed', 1, timestamptz '2026-01-01 UTC'), ('response.created', 2, '2026-01-01 UTC'),
		               ('response.created', 3, '2026-02-02 UTC')) as w (e, n, at) order by n;
		insert into walhook.response_state (response_id, flags, fate, fired_at) values
		  ('silenced', 3, walhook.fate(15::smallint, 8::smallint, 0::smallint), '2026-02-05 UTC'),
		  ('off', 3, walhook.fate(15::smallint, 0::smallint, 8::smallint), '2026-02-05 UTC'),
		  ('alone', 0, 1, '2026-02-01 UTC'), ('followed', 3, 7, '2026-02-05 UTC'), ('logged', 3, 7, '2026-02-05 UTC');
		insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id, error) values
		  (1, 1, 0, '2026-02-03 UTC', '2026-02-03 00:01 UTC', 1, 4, 0, true, 'silenced', null),
		  (2, 1, 0, '2026-02-03 UTC', '2026-02-03 00:01 UTC', 2, 4, 0, false, 'off', 'HTTP 500'),
		  (3, 2, 0, '2026-02-01 UTC', '2026-02-01 00:01 UTC', 1, 1, 0, true, 'logged', null),
		  (4, 9, 0, '2026-02-01 UTC', '2026-02-01 00:01 UTC', 2, 1, 0, false, 'alone', 'the webhook was deleted')`)
	const (
		notQueued = ". The latest one was not queued: "
		unknown   = "no record of it, although the webhook matches now. The reason is not known: either "
		later     = "the webhook was created after it, at 2026-02-02 00:00:00 UTC"
	)
	explained := func(response, webhook string) string {
		return testenv.Psql(t, database, "select reason from walhook.explain('"+response+"') where webhook_id = "+webhook)
	}
	for _, c := range []struct{ response, webhook, want string }{
		{"silenced", "1", "delivered; last at 2026-02-03 00:01:00 UTC" + notQueued + "its transaction called walhook.silence()"},
		{"off", "1", "failed for good after 2 attempts" + notQueued + "webhooks were switched off when it happened"},
		{"logged", "2", "delivered"},
		{"alone", "3", later},
		{"alone", "9", "failed: the webhook was deleted"},
		{"logged", "3", later},
		{"followed", "3", unknown + later + ", or "},
	} {
		if got := explained(c.response, c.webhook); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s through webhook %s: %s\nwanted %s", c.response, c.webhook, got, c.want)
		}
	}
	testenv.Exec(t, database, "update walhook.webhook set enabled = false where id = 2; update walhook.webhook set enabled = true where id = 2")
	testenv.Exec(t, database, "update walhook.response_state set fired_at = now() + interval '1 hour' where response_id = 'followed'")
	if got, want := explained("followed", "2"), "(the webhook was last changed at "; !strings.Contains(got, want) {
		t.Errorf("a webhook that was disabled for a while: %s\nwanted %s", got, want)
	}
}
