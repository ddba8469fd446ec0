package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/testenv"
)

// releasedApplication is the application of the released stores, as it was.
const releasedApplication = sampleSchema + `
insert into respondent (id, assessment_id, organization_id, started_at, finished_at) values
  (1, 1, '7', '2026-01-02 03:04:05+00', '2026-02-03 04:05:06+00'), (2, 1, null, '2026-01-02 03:04:05+00', '2026-01-03 04:05:06+00'),
  (3, 2, null, '2026-02-03 04:05:06+00', null), (4, 1, null, '2026-02-03 04:05:06+00', null);`

// A store that an older walhook wrote is refused until attach has upgraded it; then the log reads as before, what was pending is
// sent under the same id, and new events are.
func TestReleasedStoreGoesOn(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../sql/testdata/released/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no released store: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			server := testenv.Postgres(t)
			s := newSiteOn(t, server, releasedApplication).with("ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id").withStore(server)
			s.attach()
			attached := testenv.Psql(t, s.store, `select format('update walhook.attachment set phase = ''attached'', system_identifier = %L, database = %L, slot = %L, respondent_oid = %s,
				assessment_oid = %s, publication_rows = %L; update walhook.position set lsn = %L, partial_lsn = null, partial_changes = 0;
				update walhook.incident_log set resolved_at = now();', system_identifier, database, slot, respondent_oid, assessment_oid, publication_rows, (select lsn from walhook.position))
				from walhook.attachment`)
			// The store as the older walhook left it, of this very source.
			s.store = testenv.Database(t, server, "")
			s.with("STORE_URL", s.store)
			testenv.Psql(t, s.store, string(text)+attached+`update walhook.webhook set url = replace(url, 'http://127.0.0.1:18999', '`+s.receiver.URL("")+`')`)
			ended := "select delivery_id, webhook_id, delivered_at, response_id, event_type, status, attempts, http_status, error, test, recovered, message_id from walhook.delivery_log where status <> 'pending' order by 1"
			pending := "select delivery_id, message_id from walhook.delivery_log where delivery_id in (%s) order by 1"
			waiting := testenv.Psql(t, s.store, "select string_agg(delivery_id::text, ', ') from walhook.queue")
			ended = strings.Replace(ended, "where", "where delivery_id <= "+testenv.Psql(t, s.store, "select last_value from walhook.delivery_id")+" and delivery_id not in ("+waiting+") and", 1)
			log := testenv.Psql(t, s.store, ended)
			ids := testenv.Psql(t, s.store, fmt.Sprintf(pending, waiting))

			s.mustFail("run", "run `walhook attach` to upgrade it")
			if out, _, status := s.walhook("plan"); status != 0 || !strings.Contains(out, "create table walhook.webhook_move") || strings.Contains(out, "create table walhook.queue") {
				t.Errorf("plan of an upgrade: status %d\n%s", status, out)
			}
			s.attach()
			d := s.start().ready()
			s.exec("insert into respondent (id, assessment_id, started_at) values (60, 1, now())")
			s.expect("/hook", "started 60")
			s.fence()
			if diff := cmp.Diff(log, testenv.Psql(t, s.store, ended)); diff != "" {
				t.Errorf("the log before and after the upgrade (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(ids, testenv.Psql(t, s.store, fmt.Sprintf(pending, waiting))); diff != "" {
				t.Errorf("the ids of what was pending (-before +after):\n%s", diff)
			}
			if got := testenv.Psql(t, s.store, "select count(*) from walhook.delivery_log where delivery_id in ("+waiting+") and status <> 'success'"); got != "0" {
				t.Errorf("%s of what was pending did not arrive", got)
			}
			if incident := testenv.Psql(t, s.store, "select * from walhook.incident where kind = 'reconcile' and at > now() - interval '1 minute'"); incident != "" {
				t.Errorf("the upgrade made a gap: %s", incident)
			}
			if out, errOut, status := s.walhook("doctor"); status != 0 {
				t.Errorf("doctor after the upgrade: status %d\n%s%s", status, out, errOut)
			}
			d.stop()
		})
	}
}

// The commands of docs/how-to/upgrade.md run as they are written. Where the page says that the server is upgraded, its slots go, as
// they do, and a response is finished meanwhile.
func TestUpgradePage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/how-to/upgrade.md")
	if err != nil {
		t.Fatal(err)
	}
	server := testenv.NewServer(t, nil)
	s := newSiteOn(t, server, sampleSchema).with("SLOT", "walhook", "LISTEN", freePort(t))
	s.attach()
	s.hook("/hook", "completed")
	owner := s.db
	testenv.Psql(t, owner, "create role d login replication in role walhook_daemon; grant select (id, assessment_id, started_at, finished_at) on respondent to d")
	s.with("DATABASE_URL", userOf(t, owner, "d")) // the URL that the daemon has, as in the quick start
	var script strings.Builder
	for i, part := range strings.Split(string(text), "```") {
		if block, isShell := strings.CutPrefix(part, "sh\n"); i%2 == 1 && isShell {
			script.WriteString(block)
		}
	}
	testenv.PsqlProgram(t)
	const here = "# now upgrade the server\n"
	if strings.Count(script.String(), here) != 1 {
		t.Fatalf("docs/how-to/upgrade.md does not say where the server is upgraded:\n%s", script.String())
	}
	const wait = "until curl -fs http://127.0.0.1:9464/readyz; do sleep 1; done\n"
	if strings.Count(script.String(), wait) != 2 {
		t.Fatalf("docs/how-to/upgrade.md does not wait for its daemons:\n%s", script.String())
	}
	adapted := strings.Replace(script.String(), here, `command psql -X "$owner" -c "INSERT INTO respondent (id, assessment_id, finished_at) VALUES (5, 1, now())"`+"\n", 1)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "walhook")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", walkPrelude+"psql() { command psql -X -A -t \"$@\" \"$WALHOOK_DATABASE_URL\"; }\n./walhook run & daemon=$!\n"+strings.ReplaceAll(wait+adapted, "127.0.0.1:9464", s.env["LISTEN"])+"\nkill $daemon; wait $daemon")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "WALHOOK_TEST_EXEC=1", "owner="+owner)
	for name, value := range s.env {
		cmd.Env = append(cmd.Env, "WALHOOK_"+name+"="+value)
	}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the page's commands end with %v\n%s", err, out)
	}
	for _, says := range []string{"already attached; the schema is up to date", "streaming", "slot_lost", "read by a daemon"} {
		if !strings.Contains(string(out), says) {
			t.Errorf("the page's commands do not say %q:\n%s", says, out)
		}
	}
	if got := s.events("/hook"); len(got) != 1 || got[0] != "completed 5" {
		t.Errorf("what happened meanwhile arrived as %v", got)
	}
	if got := testenv.Psql(t, s.store, "select status, recovered from walhook.delivery_log"); got != "success|t" {
		t.Errorf("the log says %s", got)
	}
}
