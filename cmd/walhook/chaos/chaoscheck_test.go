package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// compare waits until everything has been delivered, and compares log and receiver with the ledger, from the previous
// comparison on.
func (c *chaos) compare() {
	c.T.Helper()
	c.load.paused(func() {
		c.daemons[0].Ready()
		c.settle()
		c.compareLog()
		c.compareReceiver()
		if c.T.Failed() {
			c.T.FailNow()
		}
		c.Receiver.Forget()
		c.checked.ledger = testenv.Value[int64](c.T, c.DB, "select coalesce(max(seq), 0) from ledger")
		c.checked.delivery = testenv.Value[int64](c.T, c.Store, "select coalesce(max(delivery_id), 0) from walhook.delivery_log")
	})
}

// settle waits until everything committed has been queued, and all deliveries have ended. Meanwhile no receiver is gone,
// because deliveries of a disabled webhook stay pending.
func (c *chaos) settle() {
	c.T.Helper()
	c.Receiver.Respond("/gone", nil)
	defer c.Receiver.Respond("/gone", gone)
	testenv.Exec(c.T, c.Store, "update walhook.webhook set enabled = true where assessment_id is null")
	c.Fences++
	statement, id := c.Sentinel(c.Fences)
	c.Exec(statement)
	testenv.EventuallyWhileMoving(c.T, chaosPatience, "the stream to catch up, and an empty queue", func() (bool, string) {
		stored := testenv.Value[bool](c.T, c.Store, "select exists (select from walhook.response_state where response_id = $1)", id)
		if !stored {
			return false, "the sentinel " + id + " is not stored"
		}
		pending := testenv.Value[int64](c.T, c.Store, "select count(*) from walhook.queue")
		if pending > 1000 { // the machine may be slow; details matter only at the end
			return false, fmt.Sprintf("%d pending", pending)
		}
		return pending == 0, fmt.Sprintf("%d pending: %s", pending, testenv.Psql(c.T, c.Store, "select * from walhook.pending limit 5"))
	})
	testenv.Eventually(c.T, chaosPatience, "no open incident", func() (bool, string) {
		open := testenv.Psql(c.T, c.Store, "select kind, detail from walhook.incident where resolved_at is null")
		return open == "", open
	})
}

// compareLog verifies that the log has each event of the ledger once for each of its webhooks, in order, and nothing
// else.
func (c *chaos) compareLog() {
	c.T.Helper()
	hooks := testenv.Values[string](c.T, c.Store, "select event_type || ' ' || id from walhook.webhook where assessment_id = '1' order by id")
	byEvent := map[string][]string{}
	for _, hook := range hooks {
		event, id, _ := strings.Cut(strings.TrimPrefix(hook, "response."), " ")
		byEvent[event] = append(byEvent[event], id)
	}
	want, got := map[string][]string{}, map[string][]string{} // deliveries by response, as "webhook event", in order
	for _, line := range testenv.Values[string](c.T, c.DB, "select response_id || ' ' || event from ledger where seq > $1 order by seq", c.checked.ledger) {
		response, event, _ := strings.Cut(line, " ")
		for _, hook := range byEvent[event] {
			want[response] = append(want[response], hook+" "+event)
		}
	}
	for _, d := range c.deliveries() {
		if d.asked {
			continue
		}
		got[d.response] = append(got[d.response], d.webhook+" "+d.event)
		if d.status != "success" || d.recovered {
			c.T.Errorf("delivery %d of response %s: status %s, recovered %v", d.id, d.response, d.status, d.recovered)
		}
	}
	for response := range merged(want, got) {
		// Deliveries of the same event to several webhooks are not ordered.
		if w, g := byEventThenHook(want[response]), byEventThenHook(got[response]); !slices.Equal(w, g) {
			c.T.Errorf("response %s\n should have fired %v\n the log has       %v%s", response, w, g, c.evidence(response))
		}
	}
}

// evidence returns what source and store have about a response, for the first few that are asked for.
func (c *chaos) evidence(response string) string {
	c.T.Helper()
	if c.evident++; c.evident > 5 {
		return ""
	}
	var b strings.Builder
	for _, of := range []struct{ what, url, query string }{
		{"its row", c.DB, "select * from respondent where id = $1"},
		{"the ledger (number, event)", c.DB, "select seq, event from ledger where response_id = $1 order by seq"},
		{"its state", c.Store, "select * from walhook.response_state where response_id = '$1'"},
		{"the queue", c.Store, "select * from walhook.queue where response_id = '$1' order by delivery_id"},
		{"the log", c.Store, `select delivery_id, webhook_id, happened_at, delivered_at, event_type, status, attempts, message_id, recovered, error
			from walhook.delivery_log where response_id = '$1' order by delivery_id`},
		{"incidents", c.Store, "select at, kind, detail from walhook.incident order by at desc limit 5"},
	} {
		out, err := testenv.TryPsql(c.T, of.url, strings.ReplaceAll(of.query, "$1", response))
		if err != nil {
			out = err.Error() + " " + out
		}
		fmt.Fprintf(&b, "\n %s:\n  %s", of.what, strings.ReplaceAll(out, "\n", "\n  "))
	}
	return b.String()
}

// byEventThenHook sorts adjacent deliveries of the same event by webhook.
func byEventThenHook(deliveries []string) []string {
	sorted := slices.Clone(deliveries)
	for from := 0; from < len(sorted); {
		_, event, _ := strings.Cut(sorted[from], " ")
		to := from + 1
		for to < len(sorted) && strings.HasSuffix(sorted[to], " "+event) {
			to++
		}
		slices.Sort(sorted[from:to])
		from = to
	}
	return sorted
}

func merged(a, b map[string][]string) map[string]bool {
	keys := map[string]bool{}
	for key := range a {
		keys[key] = true
	}
	for key := range b {
		keys[key] = true
	}
	return keys
}

// compareReceiver verifies that each delivery arrived with its own webhook-id, and ordered ones in the log's order.
func (c *chaos) compareReceiver() {
	c.T.Helper()
	bodies := map[string]string{}     // by webhook-id
	arrivals := map[string][]string{} // webhook-ids in order of first arrival at the ordered path, by response
	for _, r := range c.Receiver.Requests() {
		if c.sent++; r.Path == "/gone" {
			continue
		}
		id := r.Header.Get("Webhook-Id")
		match := harness.EventOf.FindStringSubmatch(r.Body)
		if match == nil {
			c.T.Fatalf("unexpected body %s", r.Body)
		}
		before, known := bodies[id]
		if known && before != r.Path+r.Body {
			c.T.Errorf("webhook-id %s arrived with %s and with %s", id, before, r.Path+r.Body)
		}
		if known {
			c.again++
			continue
		}
		bodies[id] = r.Path + r.Body
		if r.Path == "/hook" {
			arrivals[match[2]] = append(arrivals[match[2]], id)
		}
	}
	logged, asked := map[string][]string{}, map[string]bool{}
	for _, d := range c.deliveries() {
		body, came := bodies[d.message]
		if d.asked { // a redelivery may have the webhook-id of the original
			asked[d.message] = true
			delete(bodies, d.message)
			continue
		}
		if !came {
			c.T.Errorf("delivery %d (%s of response %s) never arrived, but the log says %s%s", d.id, d.event, d.response, d.status, c.evidence(d.response))
			continue
		}
		delete(bodies, d.message)
		if match := harness.EventOf.FindStringSubmatch(body[strings.IndexByte(body, '{'):]); match[1] != d.event || match[2] != d.response {
			c.T.Errorf("delivery %d (%s of response %s) arrived as %s", d.id, d.event, d.response, body)
		}
		if d.ordered {
			logged[d.response] = append(logged[d.response], d.message)
		}
	}
	for id, body := range bodies {
		c.T.Errorf("%s arrived as %s but is not in the log", body, id)
	}
	for response, want := range logged {
		got := slices.DeleteFunc(arrivals[response], func(id string) bool { return asked[id] && !slices.Contains(want, id) })
		if !slices.Equal(got, want) {
			c.T.Errorf("response %s: deliveries first arrived in the order %v, not %v%s", response, got, want, c.evidence(response))
		}
	}
}

// chaosDelivery is a row of the log.
type chaosDelivery struct {
	id                                        int64
	webhook, response, event, status, message string
	recovered, ordered                        bool
	asked                                     bool // requested by an administrator: a test or a redelivery
}

func (c *chaos) deliveries() []chaosDelivery {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), chaosPatience)
	defer cancel()
	conn := testenv.Connect(c.T, c.Store)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `select l.delivery_id, l.webhook_id::text, l.response_id, replace(l.event_type, 'response.', ''), l.status,
			l.message_id, l.recovered, w.ordered, l.test or l.redelivery_of is not null
		from walhook.delivery_log l join walhook.webhook w on w.id = l.webhook_id and w.assessment_id = '1' where l.delivery_id > $1 order by l.delivery_id`, c.checked.delivery)
	if err != nil {
		c.T.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d chaosDelivery, err error) {
		return d, row.Scan(&d.id, &d.webhook, &d.response, &d.event, &d.status, &d.message, &d.recovered, &d.ordered, &d.asked)
	})
	if err != nil {
		c.T.Fatal(err)
	}
	return all
}

// pendingHasItsReason checks that a delivery to a receiver that does not listen is pending, and says so.
func (c *chaos) pendingHasItsReason() {
	c.T.Helper()
	id := testenv.Value[int64](c.T, c.Store, "insert into walhook.webhook (assessment_id, url, event_type) values ('1', $1, 'response.created') returning id",
		"http://"+harness.ClosedPort(c.T)+"/hook")
	c.Exec("insert into respondent (id) values (-1000001)")
	testenv.Eventually(c.T, harness.Patience, "the reason why it is pending", func() (bool, string) {
		got := testenv.Psql(c.T, c.Store, fmt.Sprintf("select waits_for, error from walhook.pending where webhook_id = %d", id))
		return strings.Contains(got, "backing off") && strings.Contains(got, "refused"), got
	})
	testenv.Exec(c.T, c.Store, "delete from walhook.webhook where id = $1", id)
}

// leaveNothing checks what must be true once everything is quiet: no webhook that answered is disabled or in trouble,
// and no table has leftover rows. Then it stops the daemons and detaches, which must leave nothing behind.
func (c *chaos) leaveNothing() {
	c.T.Helper()
	if got := testenv.Psql(c.T, c.Store, "select id, disabled_reason from walhook.webhook where assessment_id = '1' and not enabled"); got != "" {
		c.T.Errorf("webhooks with a working receiver are disabled: %s", got)
	}
	testenv.Exec(c.T, c.Store, "delete from walhook.webhook where assessment_id is distinct from '1'")
	c.pendingHasItsReason()
	c.Receiver.Respond("/hook", nil)
	c.Exec("insert into respondent (id, started_at, finished_at) values (-1000000, now(), now())")
	c.Exec("update respondent set finished_at = now() + interval '1 day' where id = -1000000")
	c.settle()
	for what, query := range map[string]string{
		"pending deliveries": "select count(*) from walhook.queue",
		"webhooks in trouble, though their last attempt succeeded": "select count(*) from walhook.webhook_trouble",
		"endpoints in trouble":             "select count(*) from walhook.endpoint_health where failures > 0",
		"webhooks on the move":             "select count(*) from walhook.webhook_move",
		"rows that the log could not take": "select count(*) from walhook.log_overflow",
		"other daemons":                    "select count(*) - 2 from walhook.daemon",
	} {
		testenv.Eventually(c.T, harness.Patience, "no "+what, func() (bool, string) {
			n := testenv.Value[int64](c.T, c.Store, query)
			return n == 0, fmt.Sprint(n)
		})
	}
	for _, d := range c.daemons {
		c.stopInTime(d)
	}
	if got := testenv.Psql(c.T, c.Store, "select name from walhook.daemon"); got != "" {
		c.T.Errorf("daemons that exited are still registered: %s", got)
	}
	if out, errOut, status := c.Walhook("detach", "--drop-schema"); status != 0 {
		c.T.Fatalf("detach: status %d\n%s%s", status, out, errOut)
	}
	for what, query := range map[string]string{
		"slot": "select slot_name::text from pg_replication_slots where database = current_database()", "publication": "select pubname::text from pg_publication where pubname <> 'theirs'",
		"schema": "select nspname::text from pg_namespace where nspname = 'walhook'", "session": "select query from pg_stat_activity where usename = 'keeper'",
		"role": "select rolname::text from pg_roles where rolname like 'walhook%'",
	} {
		for _, url := range []string{c.DB, c.Store} {
			testenv.Eventually(c.T, harness.Patience, "no "+what+" to be left", func() (bool, string) {
				got := testenv.Psql(c.T, url, query)
				return got == "", got
			})
		}
	}
}
