package sql

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/testenv"
)

// Values that are of the right type and make no sense: none is taken that would stop the senders, or the server from giving ids.
func TestNonsenseIsRefused(t *testing.T) {
	t.Parallel()
	database := installed(t)
	admin := as(t, database, "walhook_admin")
	const insert = "insert into walhook.webhook (event_type, url"
	hook := testenv.Psql(t, admin, insert+", secret) values ('response.created', 'https://example.com/hunter2', walhook.new_secret()) returning id")
	refusals := []refusal{
		{insert + ", id) values ('response.created', 'https://example.com/hunter2', 9223372036854775807)", "must be between 1 and"},
		{insert + ", id) values ('response.created', 'https://example.com/hunter2', 0)", "must be between 1 and"},
		{insert + ", id) values ('response.created', 'https://example.com/hunter2', -5)", "must be between 1 and"},
		{insert + ") values ('response.created', 'https://example.com:0/hunter2')", "port from 1 to 65535"},
		{insert + ") values ('response.created', 'https://example.com:65536/hunter2')", "port from 1 to 65535"},
		{insert + ") values ('response.created', 'https://example.com/hunter2%')", "written as %25"},
		{insert + ") values ('response.created', 'https://us er:hunter2@example.com/')", "absolute http or https"},
		{insert + ") values ('response.created', 'https://user:\"hunter2@example.com/')", "percent-encoded"},
		{insert + ") values ('response.created', 'https://例え.jp/hunter2')", "xn--"},
		{insert + ") values ('response.created', 'https://[1::2::3]/hunter2')", "IPv6 address"},
		{insert + ") values ('response.created', 'https://a;hunter2/')", "name or an address"},
		{insert + ") values ('response.created', U&'https://example.com/hunter2\\00A0')", "U+00A0 (no-break space), at position 28"},
		{"update walhook.webhook set previous_secret = walhook.new_secret(), previous_secret_until = 'infinity'", "within 100 years"},
		{"update walhook.webhook set previous_secret = walhook.new_secret(), previous_secret_until = '294276-01-01'", "within 100 years"},
		{"update walhook.webhook set previous_secret = walhook.new_secret()", "belong together"},
		{"select walhook.rotate_secret(" + hook + ", '-1 s')", "cannot be kept for"},
		{"select walhook.rotate_secret(" + hook + ", '290000 years')", "cannot be kept for"},
		{"select walhook.rotate_secret(" + hook + ", null)", "cannot be kept for"},
		{"select walhook.rotate_secret(null)", "there is no webhook"},
		{"select walhook.rotate_secret(-9223372036854775808)", "there is no webhook"},
		{"select walhook.redeliver(-1)", "there is no delivery"},
		{"select walhook.redeliver(9223372036854775807)", "there is no delivery"},
		{"select walhook.redeliver_failed(null, 'infinity')", "there is no webhook"},
		{"select walhook.test_webhook(9223372036854775807)", "there is no webhook"},
		{"update walhook.settings set time_zone = ''", "is not known"},
		{"update walhook.settings set time_zone = repeat('x', 100000)", "is not known"},
	}
	if testenv.Postgres(t).Version() >= 170000 {
		refusals = append(refusals, refusal{"select walhook.rotate_secret(" + hook + ", 'infinity')", "cannot be kept for"})
	}
	refused(t, admin, refusals...)
	for statement, want := range map[string]string{
		"select walhook.redeliver_failed(" + hook + ", '-infinity')":                                                              "0",
		"select walhook.redeliver_failed(" + hook + ", 'infinity')":                                                               "0",
		"select walhook.copy_webhooks('1', '1')":                                                                                  "0",
		"select walhook.copy_webhooks(repeat('x', 10000), repeat('y', 10000))":                                                    "0",
		"select count(*) from walhook.explain(null)":                                                                              "1",
		"select count(*) from walhook.explain(repeat('x', 100000))":                                                               "1",
		"update walhook.webhook set previous_secret = walhook.new_secret(), previous_secret_until = '-infinity' returning secret": "",
		insert + ") values ('response.changed', 'https://example.com') returning id < 1000":                                       "t",
	} {
		if got := testenv.Psql(t, admin, statement); want != "" && got != want {
			t.Errorf("%s: %s, not %s", statement, got, want)
		}
	}
	if got := testenv.Psql(t, admin, "select count(*) from walhook.webhook where previous_secret is not null"); got != "0" {
		t.Errorf("%s webhooks keep a secret that has run out", got)
	}
}

// Invisible characters anywhere in a URL are refused; the error names them but does not show the URL. Visible ones are
// accepted.
func TestUnseenCharactersAreRefused(t *testing.T) {
	t.Parallel()
	database := installed(t)
	admin := as(t, database, "walhook_admin")
	const insert = "insert into walhook.webhook (event_type, url) values ('response.created', "
	var refusals []refusal
	for _, c := range []rune{
		'\u00a0', '\u00ad', '\u034f', '\u061c', '\u115f', '\u180e', '\u200b', '\u200c', '\u200d', '\u200e', '\u200f', '\u202a', '\u202b', '\u202c',
		'\u202d', '\u202e', '\u2060', '\u2061', '\u2066', '\u2069', '\u206a', '\u2800', '\u3164', '\ufe0f', '\ufeff', '\uffa0', '\ufff9', '\ufffc', '\ufffd',
		'\U0001d173', '\U000e0001', '\U000e0061', '\U000e0100',
	} {
		name := fmt.Sprintf("must not hold the invisible character U+%04X", c)
		refusals = append(refusals, refusal{fmt.Sprintf("%s'https://example.com/hunter2%c')", insert, c), name},
			refusal{fmt.Sprintf("%s'https://example.com/?hunter2=%ca')", insert, c), name}, refusal{fmt.Sprintf("%s'https://exam%cple.com/hunter2')", insert, c), name},
			refusal{fmt.Sprintf("%s'%chttps://example.com/hunter2')", insert, c), name})
	}
	refused(t, admin, append(refusals, refusal{insert + "'https://example.com/hunter2\u200b')", "U+200B (zero width space), at position 28: delete it"})...)
	for _, url := range []string{"https://example.com/h?x=é", "https://example.com/名前", "https://example.com/%E2%80%8B", "https://example.com/\U0001f600"} {
		testenv.Psql(t, admin, insert+"'"+url+"')")
	}
}

// What is probably a slip is taken with a notice.
func TestDoubtfulURLsGetANotice(t *testing.T) {
	t.Parallel()
	database := installed(t)
	var notices []string
	config, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	for url, want := range map[string]string{
		"https://example.com/hunter2,":         `webhook.url ends with ",", which is sent as part of it`,
		"https://example.com/hunter2;":         `webhook.url ends with ";", which is sent as part of it`,
		"https://example.com/hunter2\u201d":    "webhook.url holds typographic quotation marks, which are sent as part of it",
		"https://example.com/?a=\u2018hunter2": "webhook.url holds typographic quotation marks, which are sent as part of it",
		"https://example.com/a,b;c?d=1,2":      "",
	} {
		notices = nil
		if _, err := conn.Exec(t.Context(), "insert into walhook.webhook (event_type, url) values ('response.created', $1)", url); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(notices, "\n"); got != want {
			t.Errorf("%s: %q, not %q", url, got, want)
		}
	}
	notices = nil
	if _, err := conn.Exec(t.Context(), "update walhook.webhook set description = 'x'"); err != nil || len(notices) > 0 {
		t.Errorf("an edit of something else says %q, %v", notices, err)
	}
}

// A URL that an earlier version took does not keep its webhook from being disabled.
func TestOldURLsDoNotHinderTheDaemon(t *testing.T) {
	t.Parallel()
	database := installed(t)
	testenv.Exec(t, database, `alter table walhook.webhook disable trigger webhook_prepare;
		insert into walhook.endpoint (url, url_hash) values ('https://example.com:0/', '\x00');
		insert into walhook.webhook (event_type, url, endpoint_id) select 'response.created', e.url, e.id from walhook.endpoint e;
		alter table walhook.webhook enable trigger webhook_prepare`)
	if got := testenv.Psql(t, as(t, database, "walhook_daemon"), "set client_min_messages = warning; update walhook.webhook set enabled = false, disabled_reason = 'r' returning enabled"); got != "f" {
		t.Errorf("disabled: %s", got)
	}
}

// Two people who copy, or redeliver failed deliveries, at the same time create no duplicates.
func TestAtOnceDoublesNothing(t *testing.T) {
	t.Parallel()
	database := installed(t)
	testenv.Exec(t, database, `insert into walhook.webhook (assessment_id, url, event_type) select '1', 'https://example.com/' || g, 'response.created' from generate_series(1, 20) g;
		select walhook.ensure_partitions();
		insert into walhook.log (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id)
		select g, 1, 0, now(), now(), 1, 1, 0, false, 'r' || g from generate_series(1, 20) g`)
	for _, call := range []string{"walhook.copy_webhooks('1', '2')", "walhook.redeliver_failed(1, now() - interval '1 hour')"} {
		first := testenv.Connect(t, database)
		if _, err := first.Exec(t.Context(), "begin; select "+call); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if got := testenv.Value[string](t, database, "select ("+call+")::text"); got != "0" {
					t.Errorf("%s at once: %s", call, got)
				}
			})
		}
		waiting := "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
		testenv.Eventually(t, 30*time.Second, "the others to wait", func() (bool, string) {
			n := testenv.Value[int64](t, database, waiting)
			return n == 3, fmt.Sprint(n)
		})
		if _, err := first.Exec(t.Context(), "commit"); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
	if got := testenv.Psql(t, database, "select (select count(*) from walhook.webhook where assessment_id = '2'), (select count(*) from walhook.queue)"); got != "20|20" {
		t.Errorf("there are %s copies and redeliveries", got)
	}
}
