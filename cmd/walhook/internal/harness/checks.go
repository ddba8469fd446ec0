package harness

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"walhook/cdc/catalog"
	"walhook/testenv"
)

// CheckMessageIDs verifies that the log's message ids are exactly those that the receiver saw.
func CheckMessageIDs(s *Site) {
	s.T.Helper()
	seen := map[string]bool{}
	for _, r := range s.Receiver.Requests() {
		seen[r.Header.Get("Webhook-Id")] = true
	}
	logged := map[string]bool{}
	for _, id := range testenv.Values[string](s.T, s.Store, "select message_id from walhook.delivery_log where attempts > 0") {
		logged[id] = true
	}
	if diff := cmp.Diff(logged, seen); diff != "" {
		s.T.Errorf("webhook-ids (-in the log +at the receiver):\n%s", diff)
	}
}

// BehindWire puts a wire between the daemons and the database in a variable.
func BehindWire(s *Site, variable, database string) (wire *testenv.Wire) {
	s.T.Helper()
	Detour(s, variable, database, func(upstream string) string {
		wire = testenv.NewWire(s.T, upstream)
		return wire.Addr()
	})
	return wire
}

// Detour replaces the address in a variable with that of a proxy.
func Detour(s *Site, variable, database string, before func(upstream string) (addr string)) {
	s.T.Helper()
	u, err := url.Parse(database)
	if err != nil {
		s.T.Fatal(err)
	}
	u.Host = before(u.Host)
	s.With(variable, u.String())
}

// CheckExactlyOnce compares log and receiver with the application's table: each event of responses 1 to n was queued once,
// and arrived at least once, always with the delivery's own webhook-id.
func CheckExactlyOnce(s *Site, n int, events ...string) {
	s.T.Helper()
	s.Fence()
	for _, event := range events {
		got := testenv.Psql(s.T, s.Store, fmt.Sprintf(`select count(*), count(distinct response_id), bool_and(status = 'success'), min(response_id::int), max(response_id::int)
			from walhook.delivery_log where event_type = 'response.%s'`, event))
		if want := fmt.Sprintf("%d|%d|t|1|%d", n, n, n); got != want {
			s.T.Errorf("%s: the log has %s (deliveries, responses, all successful, from, to), not %s", event, got, want)
		}
	}
	ids := map[string]map[string]bool{} // webhook-ids by event
	for _, r := range s.Receiver.Requests() {
		match := EventOf.FindStringSubmatch(r.Body)
		if !slices.Contains(events, match[1]) {
			continue
		}
		key := match[1] + " " + match[2]
		if ids[key] == nil {
			ids[key] = map[string]bool{}
		}
		ids[key][r.Header.Get("Webhook-Id")] = true
	}
	for _, event := range events {
		for id := 1; id <= n; id++ {
			if seen := ids[fmt.Sprintf("%s %d", event, id)]; len(seen) != 1 {
				s.T.Fatalf("%s of response %d arrived with %d webhook-ids", event, id, len(seen))
			}
		}
	}
	if len(ids) != n*len(events) {
		s.T.Errorf("%d different events came, not %d", len(ids), n*len(events))
	}
}

// FillWAL writes about n MB of irrelevant WAL.
func FillWAL(s *Site, n int) {
	s.T.Helper()
	s.Exec("select count(pg_logical_emit_message(false, 'filler', repeat('x', 1000000))) from generate_series(1, $1::int)", n)
}

// LockClass is the first key of the advisory lock that each daemon holds in the store. The second is its number.
const LockClass = catalog.DaemonLock

// MustFail runs a command that must fail with status 1, print the texts, and leave the database unchanged.
func MustFail(s *Site, command string, says ...string) {
	s.T.Helper()
	before := CatalogOf(s)
	out, errOut, status := s.Walhook(strings.Fields(command)...)
	if status != 1 {
		s.T.Errorf("walhook %s: status %d\n%s%s", command, status, out, errOut)
	}
	for _, text := range says {
		if !strings.Contains(out+errOut, text) {
			s.T.Errorf("walhook %s does not print %q:\n%s%s", command, text, out, errOut)
		}
	}
	if diff := cmp.Diff(before, CatalogOf(s)); diff != "" {
		s.T.Errorf("walhook %s changed the database (-before +after):\n%s", command, diff)
	}
}

// CatalogOf returns everything that walhook could have changed in a site's database, and the roles.
func CatalogOf(s *Site) string {
	s.T.Helper()
	return testenv.Psql(s.T, s.DB, `
		select 'class', relnamespace::regnamespace, relname, relkind, relreplident from pg_class
		 where relnamespace::regnamespace::text !~ '^pg_' and relnamespace::regnamespace::text <> 'information_schema' order by 2, 3;
		select 'proc', oid::regprocedure from pg_proc where pronamespace::regnamespace::text !~ '^pg_' and pronamespace::regnamespace::text <> 'information_schema' order by 2;
		select 'schema', nspname from pg_namespace where nspname !~ '^pg_(temp|toast)' order by 2;
		select 'trigger', tgrelid::regclass, tgname from pg_trigger where not tgisinternal order by 2, 3;
		select 'publication', pubname from pg_publication order by 2;
		select 'slot', slot_name from pg_replication_slots where database = current_database() order by 2;`)
}

// Once answers the first request with the status, and those after it with 200.
func Once(status int, body string) func(testenv.Request) testenv.Reply {
	return func(r testenv.Request) testenv.Reply {
		if r.Nth == 1 {
			return testenv.Reply{Status: status, Body: body}
		}
		return testenv.Reply{}
	}
}

// RefuseDDL creates an event trigger by which nobody can create a table.
const RefuseDDL = `
	create function public.refuse() returns event_trigger language plpgsql as $$ begin raise exception 'no DDL here'; end $$;
	create event trigger refuse on ddl_command_start when tag in ('CREATE TABLE') execute function public.refuse()`

// WaitResolved waits until an incident of the kind has been resolved.
func WaitResolved(s *Site, kind string) {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, "a resolved incident of kind "+kind, func() (bool, string) {
		n := testenv.Value[int](s.T, s.Store, "select count(*)::int from walhook.incident where kind = $1 and resolved_at is not null", kind)
		return n > 0, testenv.Psql(s.T, s.Store, "select kind, detail, resolved_at from walhook.incident")
	})
}

// WaitIncident waits for an incident of the kind whose detail matches.
func WaitIncident(s *Site, kind, pattern string) {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, "an incident of kind "+kind+" that says "+pattern, func() (bool, string) {
		n := testenv.Value[int](s.T, s.Store, "select count(*)::int from walhook.incident where kind = $1 and detail ~ $2", kind, pattern)
		return n > 0, testenv.Psql(s.T, s.Store, "select kind, detail from walhook.incident")
	})
}

// AddRespondents inserts respondents with these ids.
func AddRespondents(s *Site, from, to int) {
	s.T.Helper()
	s.Exec("insert into respondent (id, assessment_id) select g, 1 from generate_series($1::int, $2::int) g", from, to)
}

// WaitHealthy waits until status exits with 0.
func WaitHealthy(s *Site) {
	s.T.Helper()
	testenv.Eventually(s.T, Patience, "status to find nothing wrong", func() (bool, string) {
		out, errOut, status := s.Walhook("status")
		return status == 0, fmt.Sprintf("%d\n%s%s", status, out, errOut)
	})
}

// CheckHealthy verifies that status exits with 0 on the first try.
func CheckHealthy(s *Site) {
	s.T.Helper()
	if out, errOut, status := s.Walhook("status"); status != 0 {
		s.T.Errorf("status ends with %d:\n%s%s", status, out, errOut)
	}
}

// WithSentinel replaces the harness's sentinel for other schemas. Both arguments are formats for its number.
func WithSentinel(s *Site, statement, key string) *Site {
	s.Sentinel = func(n int) (string, string) {
		return fmt.Sprintf(statement, n), fmt.Sprintf(key, n)
	}
	return s
}
