package sql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/dispatch/post"
	"walhook/testenv"
)

// pageLog creates webhooks and, for each of the last n minutes, a delivery of webhook 1; every third failed, every tenth is of webhook 2.
func pageLog(t testing.TB, url string, n int) {
	t.Helper()
	testenv.Exec(t, url, fmt.Sprintf(`
		insert into walhook.webhook (url, event_type) select 'https://user:hunter2@example.com/' || g, e
		  from unnest(walhook.event_names()) with ordinality as e (e, g);
		select walhook.ensure_partitions();
		insert into walhook.origin (from_delivery_id, events, manual) values (0, 'events', 'manual');
		insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id, error)
		select g, case when g %% 10 = 0 then 2 else 1 end, g, now(), now() - (%d - g) * interval '1 minute', 1, case when g %% 3 = 0 then 500 else 200 end,
		       case when g %% 10 = 0 then 2 else 1 end, 0, g %% 3 <> 0, (g %% 7)::text, case when g %% 3 = 0 then 'HTTP 500' end
		  from generate_series(1, %[1]d) g;
		select setval('walhook.delivery_id', 1000)`, n))
}

// A walk through all pages sees each delivery that matches once, newest first, and those without an attempt before all others.
func TestDeliveryPages(t *testing.T) {
	t.Parallel()
	url := installed(t)
	pageLog(t, url, 200)
	testenv.Exec(t, url, `
		insert into walhook.queue (delivery_id, webhook_id, committed_at, event_type, response_id) select g, 1, now(), 1, '8' from generate_series(301, 312) g;
		insert into walhook.queue (delivery_id, webhook_id, committed_at, next_attempt_at, last_attempt_at, attempts, http_status, error, event_type, response_id)
		values (299, 2, now(), now() + interval '1 hour', now() - interval '90 seconds', 3, 503, 'HTTP 503', 2, '9')`)
	for _, zone := range []string{"UTC", "Pacific/Auckland"} {
		testenv.Exec(t, url, "update walhook.settings set time_zone = '"+zone+"'")
		for filter, where := range map[string]string{
			"":                                 "true",
			"webhook_id => 1":                  "webhook_id = 1",
			"webhook_id => 2":                  "webhook_id = 2",
			"event_type => 'response.started'": "event_type = 'response.started'",
			"status => 'failed'":               "status = 'failed'",
			"status => 'pending'":              "status = 'pending'",
			"http_status => 200":               "http_status = 200",
			"http_status => 500":               "http_status = 500",
			"http_status => 503":               "http_status = 503",
			"response_id => '3'":               "response_id = '3'",
			"webhook_id => 1, http_status => 500, response_id => '3'":                                         "webhook_id = 1 and http_status = 500 and response_id = '3'",
			"since => now() - interval '1 hour', until => now() - interval '30 minutes', status => 'success'": "delivered_at_tz >= now() - interval '1 hour' and delivered_at_tz < now() - interval '30 minutes' and status = 'success'",
		} {
			want := testenv.Psql(t, url, "select delivery_id from walhook.delivery_log where "+where+" order by delivered_at_tz desc nulls first, delivery_id desc")
			var got []string
			key := ""
			for range 100 {
				args := "page_size => 7, at_most => 20"
				for _, more := range []string{filter, key} {
					if more != "" {
						args += ", " + more
					}
				}
				rows := testenv.Psql(t, url, "select delivery_id, delivered_at, status from walhook.delivery_page("+args+")")
				if rows == "" {
					break
				}
				for row := range strings.SplitSeq(rows, "\n") {
					column := strings.Split(row, "|")
					key = "before_id => " + column[0]
					if column[1] != "" {
						key += ", before_time => '" + column[1] + "'"
					}
					if column[2] != "" {
						got = append(got, column[0])
					}
				}
			}
			if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" || want == "" {
				t.Errorf("pages of %q in %s (-all +pages):\n%s", filter, zone, diff)
			}
		}
	}
}

// An API key of an organization sees the deliveries of its webhooks alone, however many webhooks it has and whatever else it asks for.
func TestDeliveryPagesOfAKey(t *testing.T) {
	t.Parallel()
	url := installed(t)
	pageLog(t, url, 200)
	testenv.Exec(t, url, `
		insert into walhook.queue (delivery_id, webhook_id, committed_at, event_type, response_id) select g, 1 + g % 2, now(), 1, '8' from generate_series(301, 312) g;
		update walhook.webhook set organization_id = '42' where id = 2;
		select walhook.create_api_key('partner', '42')`)
	for _, webhooks := range []string{"few", "many"} {
		for filter, where := range map[string]string{
			"": "true", "status => 'failed'": "status = 'failed'", "response_id => '3'": "response_id = '3'", "response_id => '8'": "response_id = '8'",
			"webhook_id => 2": "true", "webhook_id => 1": "false", "event_type => 'response.started'": "event_type = 'response.started'",
		} {
			want := testenv.Psql(t, url, "select delivery_id from walhook.delivery_log where webhook_id = 2 and "+where+" order by delivered_at_tz desc nulls first, delivery_id desc")
			got := testenv.Psql(t, url, "select set_config('walhook.api_key', '1', false) is null; select delivery_id from walhook.delivery_page(page_size => 100"+strings.TrimSuffix(", "+filter, ", ")+")")
			if diff := cmp.Diff(want, strings.TrimPrefix(strings.TrimPrefix(got, "f"), "\n")); diff != "" {
				t.Errorf("%s webhooks, %q (-all +page):\n%s", webhooks, filter, diff)
			}
		}
		testenv.Exec(t, url, "insert into walhook.webhook (url, event_type, organization_id) select 'https://example.com/more', 'response.created', '42' from generate_series(1, 60)")
	}
}

// What no index answers is looked for in a part of the log, and the page says how far it came.
func TestDeliveryPagesThatStop(t *testing.T) {
	t.Parallel()
	url := installed(t)
	pageLog(t, url, 100)
	const call = "select delivery_id, status from walhook.delivery_page(event_type => 'response.changed', page_size => 5, at_most => 30"
	if got := testenv.Psql(t, url, call+")"); got != "71|" {
		t.Errorf("a page without a match: %q", got)
	}
	if got := testenv.Psql(t, url, call+", before_time => walhook.local_time(now() - interval '85 minutes'), before_id => 16)"); got != "" {
		t.Errorf("the last page without a match: %q", got)
	}
}

// The bars of a webhook's last day are its deliveries by the hour of their last attempt, whatever the site's time zone.
func TestWebhookActivity(t *testing.T) {
	t.Parallel()
	url := installed(t)
	pageLog(t, url, 200)
	const sums = "select webhook_id, count(*), sum(deliveries), sum(failures) from walhook.webhook_activity('{1,2,3}') group by 1 order by 1"
	for _, zone := range []string{"UTC", "Asia/Kathmandu", "America/New_York"} {
		testenv.Exec(t, url, "update walhook.settings set time_zone = '"+zone+"'")
		if got, want := testenv.Psql(t, url, sums), "1|24|180|60\n2|24|20|6\n3|24|0|0"; got != want {
			t.Errorf("activity in %s:\n%s\nwant\n%s", zone, got, want)
		}
	}
	// Beyond the bound, the number is estimated from the newest entries.
	if got := testenv.Psql(t, url, "select max(deliveries) between 50 and 65, max(failures) between 15 and 25, bool_or(estimated) from walhook.webhook_activity('{1}', 10)"); got != "t|t|t" {
		t.Errorf("estimates from 10: %s", got)
	}
	const hourly = "select webhook_id, hour, deliveries, failures from walhook.webhook_activity('{1,2,3}', %s) where hour < date_trunc('hour', now() - interval '3 minutes', 'UTC')"
	counted := testenv.Psql(t, url, fmt.Sprintf(hourly, "1000"))
	const all = "select sum(deliveries), sum(failures) from walhook.hourly_deliveries(1000)"
	if got := testenv.Psql(t, url, all); got != "200|66" {
		t.Errorf("deliveries of all webhooks: %s", got)
	}
	testenv.Exec(t, url, "do $$ begin while walhook.count_hours() > 0 loop end loop; end $$")
	if diff := cmp.Diff(counted, testenv.Psql(t, url, fmt.Sprintf(hourly, "1"))); diff != "" {
		t.Errorf("after the hours were counted (-before +after):\n%s", diff)
	}
	if got := testenv.Psql(t, url, all+"; select walhook.count_hours()"); got != "200|66\n0" {
		t.Errorf("deliveries of all webhooks, after the hours were counted: %s", got)
	}
}

// Webhooks in trouble come first, each with what is wrong.
func TestWebhookHealth(t *testing.T) {
	t.Parallel()
	url := installed(t)
	pageLog(t, url, 1)
	testenv.Exec(t, url, `
		insert into walhook.assessment (assessment_id, external_id) values ('17', 'EXT');
		update walhook.webhook set assessment_id = '18' where id = 3;
		update walhook.webhook set enabled = false where id = 1;
		update walhook.webhook set enabled = false, disabled_reason = 'the endpoint answered 410 Gone' where id = 2;
		insert into walhook.webhook_trouble (webhook_id, failing_since, activation) select id, now(), activation from walhook.webhook where id = 4;
		insert into walhook.webhook_trouble (webhook_id, failing_since, activation) select id, now(), activation - 1 from walhook.webhook where id = 3;
		update walhook.endpoint set failures = 3, last_error = 'HTTP 500' where id = (select endpoint_id from walhook.webhook where id = 4)`)
	got := testenv.Psql(t, url, "select id, state, last_error, host from walhook.webhook_health order by trouble, id")
	want := "4|failing|HTTP 500|https://example.com\n2|disabled||https://example.com\n1|disabled||https://example.com\n3|active||https://example.com"
	if got != want {
		t.Errorf("health:\n%s\nwant\n%s", got, want)
	}
	if got, want := testenv.Psql(t, url, "select assessment_id, external_id from walhook.known_assessment order by 1"), "17|EXT\n18|"; got != want {
		t.Errorf("assessments: %q, want %q", got, want)
	}
}

// All that failed of what is filtered is sent again, each event once.
func TestRedeliverMatching(t *testing.T) {
	t.Parallel()
	url := installed(t)
	pageLog(t, url, 60)
	testenv.Exec(t, url, `
		insert into walhook.log_overflow (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, http_status, event_type, kind, succeeded, response_id, redelivery_of)
		values (101, 1, 0, now(), now(), 1, 200, 1, 3, true, '3', 3), (102, 1, 0, now(), now(), 1, 500, 1, 3, false, '6', 6),
		       (103, 1, 0, now(), now(), 1, 500, 1, 2, false, '6', null), (104, 99, 0, now(), now(), 1, 500, 1, 0, false, '6', null)`)
	for filter, want := range map[string]string{
		"": "19", "webhook_id => 1": "17", "webhook_id => 2": "2", "event_type => 'response.started'": "2", "http_status => 404": "0", "response_id => '6'": "3",
		"since => now() - interval '9 minutes'": "4", "until => now() - interval '50 minutes'": "2",
	} {
		if got := testenv.Psql(t, url, "select walhook.count_failed("+filter+")"); got != want {
			t.Errorf("%q counts %s failed deliveries, want %s", filter, got, want)
		}
		if got := testenv.Psql(t, url, "begin; select walhook.redeliver_matching("+filter+"); rollback"); got != want {
			t.Errorf("%q redelivers %s, want %s", filter, got, want)
		}
	}
	testenv.Psql(t, url, "select walhook.redeliver_matching(webhook_id => 2); select walhook.redeliver_matching()")
	got := testenv.Psql(t, url, "select count(*), count(distinct redelivery_of), count(*) filter (where kind = 3), count(message_id) from walhook.queue")
	if got != "19|19|19|19" {
		t.Errorf("queued %s", got)
	}
	if got := testenv.Psql(t, url, "select walhook.redeliver_matching(), walhook.count_failed(), walhook.pending_of(2), walhook.pending_of(3)"); got != "0|0|2|0" {
		t.Errorf("afterwards %s", got)
	}
}

// The body that pages show is the one that is sent, byte for byte.
func TestRequestBodyInSQL(t *testing.T) {
	t.Parallel()
	url := storeWithSecrets(t) // of a numeric key
	for _, numeric := range []bool{true, false} {
		testenv.Exec(t, url, "update walhook.attachment set numeric_id = $1", numeric)
		for _, id := range []string{"1112057", "-5", "0017", "0", "-0", "9223372036854775807", "a\"b\\c", "é€😀", "</script>&", "tab\there", "\u2028\u2029", "\x7f", "a\nb"} {
			want := string(post.AppendBody(nil, "response.completed", time.Unix(1773859849, 0), id, numeric))
			if got := testenv.Value[string](t, url, "select walhook.request_body('response.completed', timestamptz '2026-03-18 18:50:49.9 UTC', $1)", id); got != want {
				t.Errorf("body for %q: %s, want %s", id, got, want)
			}
		}
	}
}
