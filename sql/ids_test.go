package sql

import (
	"strings"
	"testing"

	"walhook/testenv"
)

// Ids of the application are text in the store. People may write them as text, or as what they are in the application's tables.
func TestFunctionsTakeIdsOfAnyType(t *testing.T) {
	t.Parallel()
	database := installed(t)
	testenv.Exec(t, database, `insert into walhook.webhook (assessment_id, event_type, url) values ('17', 'response.created', 'https://example.com/');
		create table public.respondent (id integer, code uuid, mark varchar(9));
		insert into public.respondent values (5, '6d0bb7d5-1ea6-4b6e-b1b5-0f5a3f1a2b3c', '5');
		grant select on public.respondent to walhook_admin, walhook_viewer`)
	admin, viewer := as(t, database, "walhook_admin"), as(t, database, "walhook_viewer")

	for id, want := range map[string]string{
		"5": "5", "'5'": "5", "5::smallint": "5", "5::numeric": "5", "9007199254740993": "9007199254740993", "'5'::text": "5", "'x'": "x",
		"(select id from public.respondent)": "5", "(select mark from public.respondent)": "5",
		"(select code from public.respondent)": "6d0bb7d5-1ea6-4b6e-b1b5-0f5a3f1a2b3c",
	} {
		notice, queued, _ := strings.Cut(testenv.Psql(t, admin, "select walhook.test_webhook(1, "+id+")"), "\n")
		if !strings.Contains(notice, "no response "+want+" is recorded: the test is sent anyway") {
			t.Errorf("test_webhook(1, %s) says %q", id, notice)
		}
		if got := testenv.Psql(t, database, "select response_id from walhook.queue where delivery_id = "+queued); got != want {
			t.Errorf("test_webhook(1, %s) is about %q, not %q", id, got, want)
		}
		for _, who := range []string{admin, viewer} {
			if got := testenv.Psql(t, who, "select count(*) from walhook.explain("+id+")"); got != "1" {
				t.Errorf("explain(%s) has %s rows, not the one of a response that is not known", id, got)
			}
		}
	}
	refused(t, admin, refusal{"select walhook.test_webhook(1, null)", "no respondent matches webhook 1 yet"},
		refusal{"select walhook.test_webhook(1, null::integer)", "no respondent matches webhook 1 yet"},
		refusal{"select walhook.test_webhook(1)", "no respondent matches webhook 1 yet"})
	for i, ids := range []string{"17, 21", "'17', '22'", "17, '23'", "17::bigint, 24::smallint", "'17', 25"} {
		if got := testenv.Psql(t, admin, "select walhook.copy_webhooks("+ids+")"); got != "1" {
			t.Errorf("copy_webhooks(%s), number %d, copies %s webhooks, not 1", ids, i, got)
		}
	}
}
