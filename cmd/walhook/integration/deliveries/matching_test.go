package deliveries

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A webhook for all assessments matches those that have an external id at that point of the transaction.
func TestAllAssessmentsNeedsExternalID(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("ASSESSMENT_TABLE", "public.assessment")
	s.Run()
	s.Hook("/all", "created", "assessment_id", "null")
	for _, statement := range []string{
		"insert into respondent (id, assessment_id) values (1, 1)",
		"insert into respondent (id, assessment_id) values (2, 2)", // none yet
		"update assessment set external_id = 'EXT-2' where id = 2",
		"insert into respondent (id, assessment_id) values (3, 2)",
		"update assessment set external_id = '  ' where id = 2",
		"insert into respondent (id, assessment_id) values (4, 2)", // blank
		"update assessment set external_id = '' where id = 2",
		"insert into respondent (id, assessment_id) values (5, 2)", // empty
		"begin; update assessment set external_id = 'X' where id = 2; insert into respondent (id, assessment_id) values (6, 2); commit",
		"update assessment set external_id = null where id = 2",
		`begin; insert into respondent (id, assessment_id) values (7, 2); update assessment set external_id = 'Y' where id = 2;
			insert into respondent (id, assessment_id) values (8, 2); commit`, // given between 7 and 8
		`begin; insert into respondent (id, assessment_id) values (9, 2); update assessment set external_id = null where id = 2;
			insert into respondent (id, assessment_id) values (10, 2); commit`, // taken between 9 and 10
		"begin; update assessment set external_id = 'Z' where id = 2; rollback",
		"insert into respondent (id, assessment_id) values (11, 2)",
		"insert into respondent (id, assessment_id) values (12, null), (13, 77)", // no assessment, an unknown one
		"insert into assessment values (3, 'three', 'EXT-3')",
		"insert into respondent (id, assessment_id) values (14, 3)",
		"delete from assessment where id = 3",
		"insert into respondent (id, assessment_id) values (15, 3)", // deleted
		"alter table assessment alter external_id set storage external",
		"update assessment set external_id = repeat('long', 50000) where id = 1",
		"update assessment set title = 'renamed' where id = 1", // the external id is unchanged and out of line
		"insert into respondent (id, assessment_id) values (16, 1)",
		"update assessment set id = 4 where id = 1",
		"insert into respondent (id, assessment_id) values (17, 4), (18, 1)", // 1 is no more
		"truncate assessment",
		"insert into respondent (id, assessment_id) values (19, 4)",
	} {
		s.Exec(statement)
	}
	s.Expect("/all", "created 1", "created 3", "created 6", "created 8", "created 9", "created 14", "created 16", "created 17")
}

// Without an assessment table, external ids do not matter.
func TestAllAssessmentsWithoutTable(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Hook("/all", "started", "assessment_id", "null")
	s.Exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now()), (2, 2, now()), (3, 77, now())")
	s.Expect("/all", "started 1", "started 2", "started 3")
}

func TestOrganizationFilter(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RESPONDENT_ORGANIZATION", "organization_id")
	s.Exec("insert into respondent (id, assessment_id, organization_id) values (9, 1, 'A')")
	s.Run()
	for _, event := range []string{"created", "started"} {
		s.Hook("/any", event)
		s.Hook("/a", event, "organization_id", "'A'")
		s.Hook("/b", event, "organization_id", "'B'", "assessment_id", "null")
		s.Hook("/c", event, "organization_id", "'C'")
	}
	s.Exec("insert into respondent (id, assessment_id, organization_id) values (1, 1, 'A'), (2, 1, 'B'), (3, 1, null), (4, 2, 'A'), (5, 2, 'B'), (6, 1, 'a')")
	s.Exec("update respondent set started_at = now() where id in (1, 9)")
	s.Exec("update respondent set organization_id = 'B' where id = 3")
	s.Exec("update respondent set started_at = now(), organization_id = 'A' where id in (2, 3)")
	s.Expect("/any", "created 1", "created 2", "created 3", "created 6", "started 1", "started 9", "started 2", "started 3")
	s.Expect("/a", "created 1", "started 1", "started 9", "started 2", "started 3")
	s.Expect("/b", "created 2", "created 5")
	s.Expect("/c")
}

// Several webhooks may share a URL. Each has its own deliveries, and those about the same response start one after the
// other.
func TestWebhooksOnOneURL(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	for _, event := range []string{"created", "started", "completed"} {
		s.Hook("/same", event)
	}
	s.Hook("/same", "completed", "assessment_id", "null")

	var mu sync.Mutex
	busy := map[string]bool{}
	s.Receiver.Respond("/same", func(r testenv.Request) testenv.Reply {
		id := harness.EventOf.FindStringSubmatch(r.Body)[2]
		mu.Lock()
		if busy[id] {
			t.Errorf("a delivery about response %s started before the earlier one had ended", id)
		}
		busy[id] = true
		mu.Unlock()
		time.Sleep(3 * time.Millisecond) // the receiver is slow
		mu.Lock()
		busy[id] = false
		mu.Unlock()
		return testenv.Reply{}
	})
	s.Exec("insert into respondent (id, assessment_id, started_at) select n, 1, now() from generate_series(1, 20) n")
	s.Exec("update respondent set finished_at = now()")
	var want []string
	for id := 1; id <= 20; id++ {
		for _, event := range []string{"created", "started", "completed", "completed"} {
			want = append(want, fmt.Sprintf("%s %d", event, id))
		}
	}
	s.Expect("/same", want...)
	ids := map[string]bool{}
	for _, r := range s.Receiver.Requests() {
		ids[r.Header.Get("Webhook-Id")] = true
	}
	if len(ids) != len(want) {
		t.Errorf("%d different webhook-ids for %d deliveries", len(ids), len(want))
	}
}

// Edits of a webhook take effect for every transaction that commits after them.
func TestWebhookLife(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "1000")
	s.Run()
	id := s.Hook("/first", "created")
	failing := testenv.Always(testenv.Reply{Status: 500})

	// Edited: another URL, another event, another assessment.
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/first", "created 1") // pending deliveries would follow the webhook
	s.Exec("update walhook.webhook set url = $1 where id = $2", s.Receiver.URL("/second"), id)
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.WaitStored()
	s.Exec("update walhook.webhook set event_type = 'response.started' where id = $1", id)
	s.Exec("insert into respondent (id, assessment_id, started_at) values (3, 1, now())")
	s.WaitStored()
	s.Exec("update walhook.webhook set assessment_id = '2', event_type = 'response.created' where id = $1", id)
	s.Exec("insert into respondent (id, assessment_id) values (4, 1), (5, 2)")
	s.Expect("/second", "created 2", "started 3", "created 5")
	s.Expect("/first", "created 1")

	// Pending deliveries follow the webhook to its new URL.
	s.Receiver.Respond("/second", failing)
	s.Exec("insert into respondent (id, assessment_id) values (6, 2)")
	s.PendingAfterFailure(id)
	s.Exec("update walhook.webhook set url = $1 where id = $2", s.Receiver.URL("/third"), id)
	s.Expect("/third", "created 6")

	// Disabled: pending deliveries wait, and nothing new is queued. Another webhook that keeps failing serves as a
	// clock.
	s.Receiver.Respond("/third", failing)
	s.Exec("insert into respondent (id, assessment_id) values (7, 2)")
	s.PendingAfterFailure(id)
	clock := s.Hook("/clock", "created", "assessment_id", "'7'")
	s.Receiver.Respond("/clock", failing)
	s.Exec("update walhook.webhook set enabled = false where id = $1", id)
	s.Exec("insert into respondent (id, assessment_id) values (8, 2), (9, 7)")
	s.WaitStored()
	s.WaitRequests("/clock", 3)
	before := len(s.Receiver.Bodies("/third"))
	s.Receiver.Respond("/third", nil)
	s.WaitRequests("/clock", len(s.Receiver.Bodies("/clock"))+4)
	if after := len(s.Receiver.Bodies("/third")); after != before {
		t.Errorf("a disabled webhook was tried: %d attempts became %d", before, after)
	}
	got := testenv.Psql(t, s.Store, fmt.Sprintf("select disabled_at is not null, disabled_reason from walhook.webhook where id = %d", id))
	if got != "t|disabled by postgres" {
		t.Errorf("the disabled webhook says %s", got)
	}

	// Enabled: pending deliveries are sent, but not events that happened meanwhile.
	s.Exec("delete from walhook.webhook where id = $1", clock)
	s.Receiver.Forget()
	s.Exec("update walhook.webhook set enabled = true where id = $1", id)
	s.Exec("insert into respondent (id, assessment_id) values (10, 2)")
	s.Expect("/third", "created 7", "created 10")
	got = testenv.Psql(t, s.Store, fmt.Sprintf("select disabled_at is null and disabled_reason is null from walhook.webhook where id = %d", id))
	if got != "t" {
		t.Error("the enabled webhook still has a disabled_reason")
	}
}

// Whatever is deleted under traffic, the log shows every delivery, and others continue.
func TestWebhookDeletedUnderTraffic(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	kept := s.Hook("/kept", "created")
	gone := s.Hook("/gone", "created")
	s.Receiver.Respond("/gone", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(1, 200) n")
	s.PendingAfterFailure(gone)
	s.WaitLog(fmt.Sprintf("select count(*) from walhook.delivery_log where webhook_id = %d", gone), "200")
	s.Exec("delete from walhook.webhook where id = $1", gone)
	s.Exec("insert into respondent (id, assessment_id) select n, 1 from generate_series(201, 400) n")
	s.Fence()
	if n := len(s.Receiver.Bodies("/kept")); n != 400 {
		t.Errorf("%d of 400 events arrived at the webhook that was kept", n)
	}
	testenv.Eventually(t, harness.Patience, "the log to tell of the deleted webhook's deliveries", func() (bool, string) {
		got := testenv.Psql(t, s.Store, `select webhook_id, status, count(*), min(error) from walhook.delivery_log group by 1, 2 order by 1`)
		return got == fmt.Sprintf("%d|success|400|\n%d|failed|200|the webhook was deleted", kept, gone), got
	})
}

// While webhooks are switched off, events are recorded, and nothing is queued or sent.
func TestUseWebhooksSwitch(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "1000")
	s.Run()
	s.Hooks()
	failing := s.Hook("/failing", "created", "assessment_id", "'2'")
	s.Receiver.Respond("/failing", testenv.Always(testenv.Reply{Status: 500}))
	s.Exec("insert into respondent (id, assessment_id) values (1, 1), (2, 2)")
	s.PendingAfterFailure(failing)

	s.Exec("update walhook.settings set enabled = false")
	s.Exec("insert into respondent (id, assessment_id, started_at) values (3, 1, now()), (4, 2, now())")
	s.Exec("update respondent set started_at = now() where id = 1")
	s.WaitStored()
	s.WaitHeartbeat()
	before := len(s.Receiver.Bodies("/failing"))
	s.WaitHeartbeat()
	if after := len(s.Receiver.Bodies("/failing")); after != before {
		t.Errorf("something was sent while webhooks were switched off: %d attempts became %d", before, after)
	}
	if n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.delivery_log"); n != 2 {
		t.Errorf("the log has %d deliveries, not the 2 of before", n)
	}

	const switched = "select resolved_at is not null, detail like 'webhooks were switched off by %' from walhook.incident where kind = 'switched_off'"
	if told := testenv.Psql(t, s.Store, switched); told != "f|t" {
		t.Errorf("the incident of the switch: %s", told)
	}
	if _, errOut, status := s.Walhook("status"); status != 0 {
		t.Errorf("status reports the switch as a failure: %d, %s", status, errOut)
	}

	s.Receiver.Respond("/failing", nil)
	s.Receiver.Forget()
	s.Exec("update walhook.settings set enabled = true")
	if told := testenv.Psql(t, s.Store, switched); told != "t|t" {
		t.Errorf("the incident of the switch, afterwards: %s", told)
	}
	s.Exec("update respondent set finished_at = now() where id in (1, 3)")
	s.Exec("update respondent set page = 2") // earlier events are not sent later
	s.Expect("/hook", "completed 1", "completed 3")
	s.Expect("/failing", "created 2")
}

// An assessment inserted as a copy gets its original's webhooks immediately, and once.
func TestAssessmentCopy(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from")
	d := s.Run()
	s.Hook("/created", "created", "description", "'first'", "secret", "'whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz'", "ordered", "false", "log_successes", "false")
	s.Hook("/off", "created", "enabled", "false", "organization_id", "'A'")
	s.Hook("/all", "created", "assessment_id", "null")
	s.Exec(`begin; insert into assessment values (10, 'a copy', null, 1); insert into respondent (id, assessment_id) values (1, 10);
		insert into assessment values (11, 'a copy of the copy', null, 10); insert into respondent (id, assessment_id) values (2, 11); commit`)
	s.Exec("insert into assessment values (12, 'no copy', null, null), (13, 'of nothing known', null, 777), (14, 'of one without webhooks', null, 2)")
	s.Exec("begin; insert into assessment values (15, 'never', null, 1); rollback")
	s.Exec("update assessment set copied_from = 1 where id = 12") // only an insert is a copy
	s.Exec("update assessment set title = 'still the copy' where id = 10")
	s.Exec("insert into respondent (id, assessment_id) values (3, 12), (4, 13), (5, 14)")
	s.Expect("/created", "created 1", "created 2")

	d.Kill()
	s.Start().Ready()
	s.Exec("update assessment set title = 'and again' where id = 10")
	s.Exec("insert into respondent (id, assessment_id) values (6, 10)")
	s.Expect("/created", "created 1", "created 2", "created 6")
	s.Expect("/off")
	copies := testenv.Psql(t, s.Store, `select assessment_id, event_type, organization_id, enabled, ordered, log_successes, description, secret is not null
		from walhook.webhook where assessment_id <> '1' order by assessment_id, id`)
	want := "10|response.created||t|f|f|first|t\n10|response.created|A|f|t|t||f\n11|response.created||t|f|f|first|t\n11|response.created|A|f|t|t||f"
	if diff := cmp.Diff(want, copies); diff != "" {
		t.Errorf("copied webhooks (-want +got):\n%s", diff)
	}
	if n := testenv.Value[int32](t, s.Store, "select walhook.copy_webhooks('1', '10')"); n != 0 {
		t.Errorf("copying by hand once more created %d webhooks", n)
	}
	if n := testenv.Value[int32](t, s.Store, "select walhook.copy_webhooks('1', '12')"); n != 2 {
		t.Errorf("copying by hand created %d webhooks, not 2", n)
	}
}

// A new webhook keeps its place among those with the same URL: its first delivery about a response is not overtaken by
// their later ones.
func TestNewWebhookKeepsItsPlace(t *testing.T) {
	t.Parallel()
	for _, daemons := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d daemons", daemons), func(t *testing.T) {
			t.Parallel()
			const urls, before, rounds = 6, 100, 60
			s := harness.NewSite(t, harness.SampleSchema)
			s.Run()
			want := map[string][]string{}
			for i := range urls {
				path := fmt.Sprintf("/hook%d", i)
				s.Hook(path, "started", "assessment_id", "null")
				want[path] = []string{"started 1"}
			}
			for range daemons - 1 {
				s.Start().Ready()
			}
			testenv.Eventually(t, harness.Patience, "the daemons to share the URLs", func() (bool, string) {
				got := testenv.Value[int](t, s.Store, "select count(distinct owner)::int from walhook.endpoint")
				return got == daemons, fmt.Sprintf("%d own some", got)
			})
			s.Exec("insert into assessment (id, external_id) select g, 'EXT' from generate_series($1::int, $2::int) g", before, before+rounds-1)
			s.Exec("insert into respondent (id, assessment_id, started_at) values (1, $1, now())", before)
			for path := range want {
				s.Expect(path, "started 1")
			}
			for i := before; i < before+rounds; i++ {
				path := fmt.Sprintf("/hook%d", i%urls)
				s.Hook(path, "created", "assessment_id", fmt.Sprintf("'%d'", i))
				s.Exec("insert into respondent (id, assessment_id) values ($1::int, $1::int)", i)
				s.Exec("update respondent set started_at = now() where id = $1", i)
				want[path] = append(want[path], fmt.Sprintf("created %d", i))
				for path := range want {
					want[path] = append(want[path], fmt.Sprintf("started %d", i))
				}
			}
			for path, events := range want {
				s.Expect(path, events...)
			}
		})
	}
}

// Pending deliveries of a webhook are not overtaken at a shared URL either, once it gets that URL, is enabled again or
// becomes ordered.
func TestEditedWebhookKeepsItsPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from, before, edit string
		again              bool // its first attempt went to the same URL
	}{
		"enabled": {from: "/hook%d", before: "enabled = false", edit: "enabled = true", again: true},
		"moved":   {from: "/old%d", before: "description = 'old'", edit: "url = '%s'"},
		"ordered": {from: "/hook%d", before: "ordered = false", edit: "ordered = true", again: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const rounds, first = 12, 100
			s := harness.NewSite(t, harness.SampleSchema).With("RETRY_BASE", "1h", "RETRY_CAP", "1h")
			s.Run()
			s.Exec("insert into assessment (id, external_id) select g, 'EXT' from generate_series($1::int, $2::int) g", first, first+rounds-1)
			// Loading these takes a while.
			testenv.Exec(t, s.Store, `insert into walhook.webhook (assessment_id, url, event_type)
				select (g + 100000)::text, 'https://example.com/' || g % 10, 'response.created' from generate_series(1, 3000) g`)
			var edited [rounds]int64
			for i := range rounds {
				from := fmt.Sprintf(c.from, i)
				s.Receiver.Respond(from, harness.Once(500, ""))
				s.Hook(fmt.Sprintf("/hook%d", i), "started", "assessment_id", fmt.Sprintf("'%d'", first+i))
				edited[i] = s.Hook(from, "created", "assessment_id", fmt.Sprintf("'%d'", first+i))
				s.Exec("insert into respondent (id, assessment_id) values ($1::int, $1::int)", first+i)
			}
			for i, id := range edited {
				s.PendingAfterFailure(id)
				testenv.Exec(t, s.Store, "update walhook.webhook set "+c.before+" where id = $1", id)
				// Others are sent immediately.
				s.Exec("insert into respondent (id, assessment_id, started_at) values ($1::int, $2::int, now())", 1000+i, first+i)
				testenv.Eventually(t, harness.Patience, "another response's event", func() (bool, string) {
					got := s.Events(fmt.Sprintf("/hook%d", i))
					return slices.Contains(got, fmt.Sprintf("started %d", 1000+i)), fmt.Sprint(got)
				})
			}
			for i, id := range edited {
				testenv.Exec(t, s.Store, "update walhook.webhook set "+strings.ReplaceAll(c.edit, "%s", s.Receiver.URL(fmt.Sprintf("/hook%d", i)))+" where id = $1", id)
				s.Exec("update respondent set started_at = now() where id = $1", first+i)
			}
			testenv.Exec(t, s.Store, "select walhook.retry_now(w) from unnest($1::bigint[]) w", edited[:])
			s.WaitLog("select count(*) from walhook.delivery_log where status = 'pending'", "0")
			for i := range rounds {
				want := []string{"created", "started"}
				if c.again {
					want = []string{"created", "created", "started"}
				}
				if got := harness.ByResponse(s.Events(fmt.Sprintf("/hook%d", i)))[fmt.Sprint(first+i)]; !slices.Equal(got, want) {
					t.Errorf("about response %d comes %v, not %v", first+i, got, want)
				}
			}
		})
	}
}

// While somebody creates one webhook after another for a URL, other webhooks' deliveries are sent there.
func TestURLIsSentToWhileWebhooksCome(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Hook("/hook", "created")
	end := s.Meanwhile(s.Store, "insert into walhook.webhook (assessment_id, url, event_type, description) values ('2', '"+s.Receiver.URL("/hook")+"', 'response.created', $1::int::text)")
	var want []string
	for id := range 30 {
		s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", id)
		want = append(want, fmt.Sprintf("created %d", id))
		testenv.Eventually(t, harness.Patience, "an event", func() (bool, string) { return len(s.Events("/hook")) > id, "" })
	}
	end()
	s.Expect("/hook", want...)
}

// While somebody edits one webhook of a URL after another, the backlog of other webhooks is sent there.
func TestBacklogIsSentWhileWebhooksAreEdited(t *testing.T) {
	t.Parallel()
	const backlog = 3000
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Hook("/hook", "created")
	testenv.Exec(t, s.Store, `insert into walhook.webhook (assessment_id, url, event_type)
		select '2', $1, 'response.created' from generate_series(1, 300)`, s.Receiver.URL("/hook"))
	end := s.Meanwhile(s.Store, "update walhook.webhook set description = now()::text where id = 2 + $1 % 300")
	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series(1, $1::int) g", backlog)
	testenv.Eventually(t, harness.Patience, "the backlog to arrive", func() (bool, string) {
		n := len(s.Events("/hook"))
		return n >= backlog, fmt.Sprint(n)
	})
	end()
	harness.CheckExactlyOnce(s, backlog, "created")
}

// What a blank external id is does not depend on whether the stream or a comparison reads it.
func TestBlankExternalID(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("ASSESSMENT_TABLE", "public.assessment")
	s.Run()
	s.Exec(`insert into assessment (id, external_id) values (51, ''), (52, ' '), (53, E'\t'), (54, E' \r\n'), (55, U&'\00A0'), (56, E'\tx ')`)
	const recorded = "select string_agg(assessment_id || '=' || external_id, ',') from walhook.assessment where assessment_id like '5_'"
	s.Fence()
	for _, when := range []string{"stream", "comparison"} {
		if got := testenv.Psql(t, s.Store, recorded); got != "56=x" {
			t.Errorf("after the %s: %q", when, got)
		}
		if out, errOut, status := s.Walhook("reconcile"); status != 0 {
			t.Fatalf("reconcile: %d\n%s%s", status, out, errOut)
		}
	}
}
