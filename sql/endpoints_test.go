package sql

import (
	"testing"

	"walhook/testenv"
)

// When many webhooks are deleted at once, only those with pending deliveries are processed one by one, and these
// deliveries fail.
func TestWebhooksAreDeletedInBulk(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, `
		insert into walhook.webhook (url, event_type) select 'https://example.com/' || n, 'response.created' from generate_series(1, 300) as n;
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id, next_attempt_at)
		select id, now(), 1, 'r', case when id % 2 = 0 then now() end from walhook.webhook where id <= 4;
		insert into walhook.webhook_move (webhook_id, endpoint_id) select id, endpoint_id from walhook.webhook where id = 5`)
	got := testenv.Psql(t, url, `begin; set local client_min_messages = warning; set local track_functions = 'all'; delete from walhook.webhook where id > 1;
		select sum(calls) from pg_stat_xact_user_functions where funcname like 'bury%'; commit`)
	if want := "4"; got != want { // the trigger, and the webhooks 2 to 4
		t.Errorf("%s calls for 299 webhooks, 3 of them with something pending, not %s", got, want)
	}
	if got, want := testenv.Psql(t, url, "select webhook_id, status from walhook.delivery_log order by 1"), "1|pending\n2|failed\n3|failed\n4|failed"; got != want {
		t.Errorf("the log has %q, not %q", got, want)
	}
	if got := testenv.Psql(t, url, "select count(*) from walhook.webhook_move"); got != "0" {
		t.Errorf("%s moves of deleted webhooks are left", got)
	}
}

// URLs that no webhook uses are deleted once nobody sends there.
func TestUnusedEndpointsAreForgotten(t *testing.T) {
	t.Parallel()
	url := installed(t)
	testenv.Exec(t, url, `
		insert into walhook.daemon (name, version, expires_at) values ('here', '1', now() + interval '1 hour');
		insert into walhook.webhook (url, event_type) select 'https://example.com/token-' || n, 'response.created' from generate_series(1, 6) as n;
		update walhook.endpoint set owner = (select id from walhook.daemon) where url like '%-2';
		update walhook.endpoint set owner = 987654 where url like '%-3';
		update walhook.webhook set url = 'https://example.com/token-6' where id = 4;
		delete from walhook.webhook where id in (2, 3, 5)`)
	left := func(want string) {
		t.Helper()
		testenv.Psql(t, url, "select walhook.forget_endpoints()")
		if got := testenv.Psql(t, url, "select string_agg(right(url, 1), '' order by url) from walhook.endpoint"); got != want {
			t.Errorf("the endpoints %s are left, not %s", got, want)
		}
	}
	writer := testenv.Connect(t, url)
	if _, err := writer.Exec(t.Context(), "begin; insert into walhook.webhook (url, event_type) values ('https://example.com/token-5', 'response.created')"); err != nil {
		t.Fatal(err)
	}
	left("12456") // 2 is in use, attempts at 4 may be in flight, and somebody is about to use 5
	if _, err := writer.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	testenv.Exec(t, url, "delete from walhook.daemon; delete from walhook.webhook_move")
	left("156")
	testenv.Exec(t, url, "insert into walhook.webhook (url, event_type) values ('https://example.com/token-2', 'response.created')")
	left("1256")
}
