package deliveries

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The webhooks of TestAdministratorsOpenTransaction, each for its own assessment.
const (
	ownHook   = iota + 1 // at /a: the one that the administrator's statement locks
	otherHook            // at /a as well
	busyHook             // at /b
	goneHook             // at /gone, which answers 410
)

// While an administrator's transaction is open, at most the deliveries of the webhook that it locks wait, but not those
// of other webhooks, the stream, another daemon that starts, or a clean stop.
func TestAdministratorsOpenTransaction(t *testing.T) {
	t.Parallel()
	// %[1]s is the receiver's base URL.
	const insert = "insert into walhook.webhook (assessment_id, event_type, url) values "
	for _, c := range []struct {
		name, before, statement string
		as                      string // role; empty for an administrator
		locks                   bool   // locks the whole table, so webhooks cannot be copied meanwhile
	}{
		{name: "insert at the same URL", statement: insert + "('9', 'response.created', '%[1]s/a')"},
		{name: "insert at a new URL", statement: insert + "('9', 'response.created', '%[1]s/new')"},
		{name: "insert at many URLs", statement: insert + "('9', 'response.created', '%[1]s/gone'), ('9', 'response.created', '%[1]s/b')" +
			"; insert into walhook.webhook (assessment_id, event_type, url) select '9', 'response.created', '%[1]s/c' || g from generate_series(1, 6) g"},
		{name: "edit", statement: "update walhook.webhook set description = 'x', ordered = false where id = 1"},
		{name: "edit of one that is gone", statement: "update walhook.webhook set description = 'x' where id = 4"},
		{name: "URL of another webhook", statement: "update walhook.webhook set url = '%[1]s/b' where id = 1"},
		{name: "new URL", statement: "update walhook.webhook set url = '%[1]s/new' where id = 1"},
		{name: "disable", statement: "update walhook.webhook set enabled = false where id = 1"},
		{name: "enable", before: "update walhook.webhook set enabled = false where id = 1", statement: "update walhook.webhook set enabled = true where id = 1"},
		{name: "delete", statement: "delete from walhook.webhook where id = 1"},
		{name: "copy", statement: "select walhook.copy_webhooks('1', '20')"},
		{name: "retry", statement: "select walhook.retry_now(1)"},
		{name: "functions", statement: `select walhook.test_webhook(1), walhook.redeliver_failed(1, '-infinity'), walhook.explain('100'), walhook.rotate_secret(1);
			update walhook.settings set time_zone = 'Asia/Tokyo'; select * from walhook.webhook for update`},
		{name: "lock", statement: "lock table walhook.webhook in exclusive mode", locks: true},
		{name: "dump", as: "owner", statement: `do $$ declare r regclass; begin
			for r in select oid from pg_class where relnamespace = 'walhook'::regnamespace and relkind in ('r', 'p') loop
				execute format('lock table %%s in access share mode', r); end loop; end $$`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema).With("ASSESSMENT_TABLE", "assessment", "ASSESSMENT_COPIED_FROM", "copied_from", "MAX_ATTEMPTS", "1000")
			s.Attach()
			for i, path := range []string{"/a", "/a", "/b", "/gone", "/c1", "/c2", "/c3", "/c4", "/c5", "/c6"} {
				s.Hook(path, "created", "assessment_id", fmt.Sprintf("'%d'", min(i+1, goneHook+1)))
			}
			insertResponses := func(assessment, from, to int) {
				t.Helper()
				s.Exec("insert into respondent (id, assessment_id) select g, $1 from generate_series($2::int, $3::int) g", assessment, from, to)
			}
			arrives := func(id int, paths ...string) {
				t.Helper()
				testenv.Eventually(t, harness.Patience, fmt.Sprintf("response %d at %v", id, paths), func() (bool, string) {
					for _, path := range paths {
						if got := s.Events(path); !slices.Contains(got, fmt.Sprint("created ", id)) {
							return false, fmt.Sprintf("%s got %.200s", path, fmt.Sprint(got))
						}
					}
					return true, ""
				})
			}
			pending := func(hook, want int) {
				t.Helper()
				testenv.Eventually(t, harness.Patience, fmt.Sprintf("%d deliveries pending of webhook %d", want, hook), func() (bool, string) {
					n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.queue where webhook_id = $1", hook)
					return n == int64(want), fmt.Sprint(n)
				})
			}

			// In-flight attempts whose answers arrive once the transaction is open: successes for 1 and 3, and failures for 2 as
			// long as it is open.
			opened, committed := make(chan struct{}), atomic.Bool{}
			open := sync.OnceFunc(func() { close(opened) })
			t.Cleanup(open)
			s.Receiver.Respond("/a", func(r testenv.Request) testenv.Reply {
				if strings.HasSuffix(r.Body, `:1}}`) || strings.HasSuffix(r.Body, `:2}}`) || strings.HasSuffix(r.Body, `:3}}`) {
					<-opened
				}
				if strings.HasSuffix(r.Body, `:2}}`) && !committed.Load() {
					return testenv.Reply{Status: 500}
				}
				return testenv.Reply{}
			})
			s.Receiver.Respond("/gone", func(testenv.Request) testenv.Reply {
				<-opened
				return testenv.Reply{Status: 410}
			})
			first := s.Start().Ready()
			for id := 100; id < 106; id++ { // the limit of concurrent attempts rises with each success
				insertResponses(ownHook, id, id)
				arrives(id, "/a")
			}
			pending(ownHook, 0)
			insertResponses(ownHook, 1, 3)
			insertResponses(goneHook, 4, 4)
			arrives(1, "/a")
			arrives(2, "/a")
			arrives(3, "/a")
			arrives(4, "/gone")
			database := s.Store
			if c.as == "" {
				database = s.As("walhook_admin")
			}
			if c.before != "" {
				testenv.Exec(t, database, c.before)
			}

			transaction := testenv.Connect(t, database)
			do := func(statements string) {
				t.Helper()
				if _, err := transaction.PgConn().Exec(t.Context(), statements).ReadAll(); err != nil {
					t.Fatalf("%s: %v", statements, err)
				}
			}
			do("begin; " + fmt.Sprintf(c.statement+"%.[2]0s", s.Receiver.URL(""), ""))
			open()

			// More results than may be unrecorded.
			insertResponses(busyHook, 1001, 1000+unrecordedMost+500)
			s.WaitRequests("/b", unrecordedMost+500)
			pending(busyHook, 0)
			insertResponses(otherHook, 10, 10)
			arrives(10, "/a")
			pending(otherHook, 0)
			s.Exec("truncate respondent")
			if !c.locks {
				s.Exec("insert into assessment values (20, 'copy', 'EXT-20', 1)")
			}
			s.WaitStored()
			copied := func() {
				t.Helper()
				if n := testenv.Value[int](t, s.Store, "select count(*)::int from walhook.webhook where assessment_id = '20'"); n != 1 && !c.locks {
					t.Errorf("the copied assessment has %d webhooks", n)
				}
			}
			copied()
			second := s.Start().Ready()
			testenv.Eventually(t, harness.Patience, "two daemons to share the URLs", func() (bool, string) {
				got := testenv.Psql(t, s.Store, "select count(distinct e.owner), count(*) filter (where e.owner is null) from walhook.endpoint e join walhook.daemon d on d.id = e.owner or e.owner is null")
				return got == "2|0", got
			})
			insertResponses(goneHook+1, 30, 30)
			arrives(30, "/c1", "/c2", "/c3", "/c4", "/c5", "/c6")

			asked := time.Now()
			if status := first.Stop(); status != 0 {
				t.Errorf("the clean stop exited with status %d", status)
			}
			if took := time.Since(asked); took > 12*time.Second { // DELIVERY_TIMEOUT plus ten seconds
				t.Errorf("the clean stop took %s", took)
			}
			insertResponses(goneHook+1, 31, 31)
			arrives(31, "/c1", "/c2", "/c3", "/c4", "/c5", "/c6")
			if got := testenv.Psql(t, s.Store, "select detail from walhook.incident where kind = 'takeover' and detail not like '%reads the slot%'"); got != "" {
				t.Errorf("a daemon's lease expired: %s", got)
			}

			committed.Store(true)
			do("commit")
			if c.name == "disable" {
				testenv.Exec(t, s.Store, "update walhook.webhook set enabled = true where id = 1")
			}
			pending(ownHook, 0)
			pending(goneHook, 0)
			second.Readyz(200, "streaming")
			testenv.Eventually(t, harness.Patience, "the webhook that is gone to be disabled", func() (bool, string) {
				got := testenv.Psql(t, s.Store, "select enabled from walhook.webhook where id = 4")
				return got == "f", got
			})
			copied()
		})
	}
}

// unrecordedMost is the number of unrecorded answers at which a daemon stops sending.
const unrecordedMost = 2048
