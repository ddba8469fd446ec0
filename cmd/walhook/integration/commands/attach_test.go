package commands

import (
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// attach refuses whatever would lose events or make the application's writes fail, with the reason and the remedy.
func TestAttachRefuses(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema+`
		create table keyless (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz);
		create table nothing (like respondent including all); alter table nothing replica identity nothing;
		create table other (key bigint primary key, id bigint not null, assessment_id bigint, started_at timestamptz, finished_at timestamptz);
		create table indexed (key bigint primary key, id bigint not null unique, assessment_id bigint, started_at timestamptz, finished_at timestamptz);
		create table composite (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz, primary key (id, assessment_id));
		create unlogged table unlogged (like respondent including all);
		create view seen as select * from respondent;
		create table parted (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz) partition by list (assessment_id);
		create table parted_1 partition of parted for values in (1);
		create foreign data wrapper far; create server away foreign data wrapper far;
		create foreign table foreigner (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz) server away;
		create materialized view matter as select * from respondent;
		create table partial (id bigint not null, assessment_id bigint, started_at timestamptz, finished_at timestamptz, other int not null, primary key (id, other));
		create unique index partial_other on partial (other); alter table partial replica identity using index partial_other;`)
	for _, c := range []struct {
		name      string
		variables []string
		says      []string
	}{
		{"no primary key", []string{"RESPONDENT_TABLE", "public.keyless"}, []string{"public.keyless", "primary key"}},
		{"replica identity nothing", []string{"RESPONDENT_TABLE", "public.nothing"}, []string{"REPLICA IDENTITY NOTHING", "ALTER TABLE", "REPLICA IDENTITY DEFAULT"}},
		{"another column is the key", []string{"RESPONDENT_TABLE", "public.other"}, []string{
			`"id"`, "WALHOOK_RESPONDENT_ID=key, the primary key", "forbids rows that share", "REPLICA IDENTITY USING INDEX walhook_identity",
		}},
		{"an index that could be the identity", []string{"RESPONDENT_TABLE", "public.indexed"}, []string{"ALTER TABLE public.indexed REPLICA IDENTITY USING INDEX indexed_id_key"}},
		{"composite key", []string{"RESPONDENT_TABLE", "public.composite"}, []string{
			`"id"`, "forbids rows that share", "which the primary key (id, assessment_id) permits",
		}},
		{"missing table", []string{"RESPONDENT_TABLE", "public.nowhere"}, []string{"public.nowhere does not exist", "WALHOOK_RESPONDENT_TABLE"}},
		{"missing assessment table", []string{"ASSESSMENT_TABLE", "public.nowhere"}, []string{"public.nowhere does not exist", "WALHOOK_ASSESSMENT_TABLE"}},
		{"view", []string{"RESPONDENT_TABLE", "public.seen"}, []string{"public.seen is a view", "table behind it"}},
		{"materialized view", []string{"RESPONDENT_TABLE", "public.matter"}, []string{"public.matter is a materialized view"}},
		{"foreign table", []string{"RESPONDENT_TABLE", "public.foreigner"}, []string{"public.foreigner is a foreign table"}},
		{"replica identity on other columns", []string{"RESPONDENT_TABLE", "public.partial"}, []string{"public.partial", `"id"`, "ALTER TABLE public.partial REPLICA IDENTITY DEFAULT;"}},
		{"unlogged", []string{"RESPONDENT_TABLE", "public.unlogged"}, []string{"unlogged", "SET LOGGED"}},
		{"partition without key", []string{"RESPONDENT_TABLE", "public.parted"}, []string{"parted", "primary key"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			env := map[string]string{}
			for name, value := range s.Env {
				env[name] = value
			}
			one := &harness.Site{T: t, DB: s.DB, Store: s.Store, Env: env}
			one.With(c.variables...)
			harness.MustFail(one, "attach", c.says...)
			harness.MustFail(one, "plan", c.says...)
			harness.MustFail(one, "doctor", c.says...)
		})
	}
}

// A condition that does not fit the table is a mistake in the configuration, for every command that finds out: it points
// at the place, and exits as one that cannot be parsed. doctor reports it among its findings.
func TestConditionsThatDoNotFit(t *testing.T) {
	t.Parallel()
	site := harness.NewSite(t, harness.SampleSchema)
	for _, c := range []struct{ variable, condition, says, near string }{
		{
			"FINISHED", "id > 0 and finished_ta is not null",
			`there is no column "finished_ta" in public.respondent; did you mean "finished_at"?` + "\n    id > 0 and finished_ta is not null\n               ^\n",
			`no column "finished_ta", at character 12 (finished_ta is not null); did you mean "finished_at"?`,
		},
		{
			"FINISHED", "Finished_At", `there is no column "Finished_At" in public.respondent; did you mean "finished_at"?` + "\n",
			`no column "Finished_At"; did you mean "finished_at"?`,
		},
		{
			"RESPONDENT_WHERE", "(page=nowhere)",
			`there is no column "nowhere" in public.respondent; it has assessment_id, essay, finished_at, id, name, organization_id, page, started_at` + "\n    (page=nowhere)\n          ^\n", `no column "nowhere", at character 7 (nowhere))`,
		},
		{
			"STARTED", "started_at > 17",
			"17 cannot be compared with column \"started_at\" of type timestamp with time zone: write a time with its zone, such as '2026-01-31 12:00:00+01'\n    started_at > 17\n                 ^\n",
			"WALHOOK_STARTED cannot be evaluated on public.respondent, at character 14 (17): 17 cannot be compared",
		},
		{
			"STARTED", "not page", `column "page" is of type integer: in an expression only a boolean column stands alone; compare it, or write is not null` + "\n    not page\n        ^\n",
			"WALHOOK_STARTED cannot be evaluated on public.respondent, at character 5 (page)",
		},
	} {
		t.Run(c.condition, func(t *testing.T) {
			t.Parallel()
			s := &harness.Site{T: t, DB: site.DB, Store: site.Store, Env: maps.Clone(site.Env)}
			s.With(c.variable, c.condition, "AUTO_ATTACH", "true")
			for _, command := range []string{"preview", "plan", "attach", "run"} {
				out, errOut, status := s.Walhook(command)
				if want := "walhook: WALHOOK_" + c.variable + "=" + strconv.Quote(c.condition) + " is not accepted: " + c.says; status != cli.ExitUsage || !strings.HasSuffix(errOut, want) || out != "" {
					t.Errorf("walhook %s: status %d\n%s%s\nwhich does not end with\n%s", command, status, out, errOut, want)
				}
			}
			harness.MustFail(s, "doctor", c.near, "WALHOOK_"+c.variable)
		})
	}
}

// A variable that names a column which does not exist is a configuration error of every command that reads the mapping,
// before attach and afterwards.
func TestColumnsThatDoNotExist(t *testing.T) {
	t.Parallel()
	site := harness.NewSite(t, harness.SampleSchema)
	site.With("ASSESSMENT_TABLE", "public.assessment")
	values := map[string]string{"STARTED": "nope", "FINISHED": "nope=a|b", "RESPONDENT_WHERE": "page > 0 and nope", "FINISH_STAMP": "page,nope"}
	says := map[string]string{"RESPONDENT_WHERE": "\n    page > 0 and nope\n                 ^"}
	every := cdc.Mapping{
		Where: cdc.Marker{Column: "x"}, Started: cdc.Marker{Column: "x"}, Finished: cdc.Marker{Column: "x"}, Stamp: cdc.Columns{"x"},
	}
	check := func(t *testing.T, name string, commands ...string) {
		s := &harness.Site{T: t, DB: site.DB, Store: site.Store, Env: maps.Clone(site.Env)}
		variable := strings.TrimPrefix(name, "WALHOOK_")
		value, special := values[variable]
		if !special {
			value = "nope"
		}
		s.With(variable, value, "AUTO_ATTACH", "true")
		for _, command := range commands {
			out, errOut, status := s.Walhook(strings.Fields(command)...)
			want := fmt.Sprintf(`walhook: WALHOOK_%s=%q is not accepted: there is no column "nope" in public.`, variable, value)
			at := strings.LastIndex(errOut, want)
			if status != cli.ExitUsage || at < 0 || !strings.HasSuffix(errOut[at:], says[variable]+"\n") || out != "" ||
				says[variable] == "" && strings.Count(errOut[at:], "\n") > 1 {
				t.Errorf("walhook %s: status %d\n%s%s\nwhich does not end with\n%s", command, status, out, errOut, want)
			}
		}
	}
	variables := append(catalog.RespondentVariables(every), catalog.AssessmentVariables(every)...)
	check(t, "WALHOOK_STARTED", "plan", "run")
	for _, v := range variables {
		check(t, v.Name, "preview", "attach")
	}
	site.Attach()
	for _, name := range []string{"WALHOOK_STARTED", "WALHOOK_ASSESSMENT_NAME"} {
		check(t, name, "plan", "attach", "run", "reconcile", "attach --remap")
	}
}

// One free WAL sender is enough for an attach and for a comparison: walhook does not count its own.
// One WAL sender is enough for an attach, a comparison and the daemon: walhook does not count its own.
func TestLastFreeSenderIsEnough(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, map[string]string{"max_wal_senders": "1"}), harness.SampleSchema)
	s.Attach()
	if out, errOut, status := s.Walhook("reconcile"); status != cli.ExitOK {
		t.Errorf("reconcile exits with %d:\n%s%s", status, out, errOut)
	}
	s.DropSlot()
	if out, errOut, status := s.Walhook("reconcile"); status != cli.ExitOK {
		t.Errorf("reconcile without the slot exits with %d:\n%s%s", status, out, errOut)
	}
	d := s.Start().Ready()
	newDoctor(t, s).finds("replication_connection", catalog.Warn, "max_wal_senders")
	for _, command := range []string{"doctor", "plan"} {
		if out, errOut, status := s.Walhook(command); status != cli.ExitOK {
			t.Errorf("%s exits with %d while the daemon has the only WAL sender:\n%s%s", command, status, out, errOut)
		}
	}
	d.Stop()
}

func TestAttachRefusesWithoutLogicalWAL(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, map[string]string{"wal_level": "replica"}), harness.SampleSchema)
	harness.MustFail(s, "attach", "wal_level is replica", "ALTER SYSTEM SET wal_level", "restart")
	harness.MustFail(s, "plan", "wal_level is replica")
}

// Attach, attach again, attach with another mapping, and detach.
func TestAttachAndDetach(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // roles belong to the whole server
	s := harness.NewSiteOn(t, server, harness.SampleSchema+"insert into respondent (id, assessment_id, started_at) values (1, 1, now());")
	nothing := harness.CatalogOf(s)
	harness.MustFail(s, "run", "walhook attach")
	harness.MustFail(s, "status")

	// plan prints what attach would run, and changes nothing.
	out, errOut, status := s.Walhook("plan")
	if status != 0 || !strings.Contains(strings.ToLower(out), "create publication \"walhook\" for table \"public\".\"respondent\"") ||
		!strings.Contains(out, "CREATE_REPLICATION_SLOT") || !strings.Contains(out, "create table walhook.webhook") {
		t.Errorf("plan: status %d\n%s%s", status, out, errOut)
	}
	if diff := cmp.Diff(nothing, harness.CatalogOf(s)); diff != "" {
		t.Errorf("plan changed the database (-before +after):\n%s", diff)
	}

	s.Attach()
	attached := harness.CatalogOf(s)
	if n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.response_state"); n != 1 {
		t.Errorf("%d states were recorded, not 1", n)
	}
	slot := testenv.Psql(t, s.DB, "select confirmed_flush_lsn from pg_replication_slots")
	s.Attach()
	if diff := cmp.Diff(attached, harness.CatalogOf(s)); diff != "" {
		t.Errorf("attaching again changed the database (-before +after):\n%s", diff)
	}
	if again := testenv.Psql(t, s.DB, "select confirmed_flush_lsn from pg_replication_slots"); again != slot {
		t.Errorf("attaching again moved the slot from %s to %s", slot, again)
	}
	if _, errOut, status := s.Walhook("plan"); status != 0 {
		t.Errorf("plan once everything is attached: status %d\n%s", status, errOut)
	}

	// Another mapping is refused, and the variable named.
	s.With("STARTED", "page")
	for _, command := range []string{"attach", "plan", "run", "doctor"} {
		harness.MustFail(s, command, "WALHOOK_STARTED", `"started_at"`, `"page"`)
	}
	s.With("STARTED", "started_at")

	// doctor and status, also as JSON. The missing daemon is not a failure of attach.
	checkJSON(s, "doctor", 0)
	d := s.Start().Ready()
	checkJSON(s, "doctor", 0)
	checkJSON(s, "status", 0)
	if out, errOut, status := s.Walhook("detach"); status != 1 || !strings.Contains(errOut, "daemon") {
		t.Errorf("detach while a daemon runs: status %d\n%s%s", status, out, errOut)
	}
	d.Stop()

	// detach keeps webhooks and log; --drop-schema leaves nothing.
	s.Hook("/hook", "created")
	for range 2 {
		if out, errOut, status := s.Walhook("detach"); status != 0 {
			t.Fatalf("detach: status %d\n%s%s", status, out, errOut)
		}
	}
	got := testenv.Psql(t, s.DB, "select (select count(*) from pg_publication), (select count(*) from pg_replication_slots), (select count(*) from walhook.webhook)")
	if got != "0|0|1" {
		t.Errorf("after detach there are %s publications, slots and webhooks", got)
	}
	harness.MustFail(s, "run", "nothing is attached yet", "walhook attach")
	s.Attach()
	if got := testenv.Psql(t, s.Store, "select count(*) from walhook.webhook"); got != "1" {
		t.Errorf("attaching again kept %s webhooks", got)
	}
	if out, errOut, status := s.Walhook("detach", "--drop-schema"); status != 0 {
		t.Fatalf("detach --drop-schema: status %d\n%s%s", status, out, errOut)
	}
	if diff := cmp.Diff(nothing, harness.CatalogOf(s)); diff != "" {
		t.Errorf("detach --drop-schema left (-before +after):\n%s", diff)
	}
	if roles := testenv.Psql(t, s.DB, "select rolname from pg_roles where rolname ~ 'walhook'"); roles != "" {
		t.Errorf("detach --drop-schema left roles:\n%s", roles)
	}
}

func checkJSON(s *harness.Site, command string, want int) {
	s.T.Helper()
	out, errOut, status := s.Walhook(command, "--json")
	if status != want {
		s.T.Errorf("%s --json: status %d, not %d\n%s%s", command, status, want, out, errOut)
	}
	var parsed map[string]any
	if err := json.Unmarshal([]byte(out), &parsed); err != nil || len(parsed) == 0 {
		s.T.Errorf("%s --json is not a JSON object: %v\n%s", command, err, out)
	}
	if out, errOut, status := s.Walhook(command); status != want || out == "" {
		s.T.Errorf("%s: status %d, not %d\n%s%s", command, status, want, out, errOut)
	}
}

// Creating a slot waits for open transactions. attach lists them, and an attach that was killed while it waited can be
// repeated. A daemon that is started meanwhile waits for it.
func TestAttachInterrupted(t *testing.T) {
	t.Parallel()
	s := harness.NewSiteOn(t, testenv.NewServer(t, nil), harness.SampleSchema) // otherwise it would wait for other tests' transactions
	holder := testenv.Connect(t, s.DB)
	if _, err := holder.Exec(t.Context(), "begin; insert into respondent (id, assessment_id) values (1, 1)"); err != nil {
		t.Fatal(err)
	}
	pid := testenv.Psql(t, s.DB, "select pid from pg_stat_activity where backend_xid is not null")

	killed := s.Background("attach")
	testenv.Eventually(t, harness.Patience, "a word about the open transaction", func() (bool, string) {
		return strings.Contains(killed.Log.String(), "pid "+pid), killed.Log.String()
	})
	killed.Kill()
	harness.MustFail(s, "run", "interrupted", "walhook attach")

	again := s.Background("attach")
	testenv.Eventually(t, harness.Patience, "a word about the open transaction", func() (bool, string) {
		return strings.Contains(again.Log.String(), "pid "+pid), again.Log.String()
	})
	d := s.Start()
	d.Readyz(503, "an attach is in progress")
	if _, err := holder.Exec(t.Context(), "commit"); err != nil {
		t.Fatal(err)
	}
	if status := again.Wait(); status != 0 {
		t.Fatalf("attach after an interruption: status %d\n%s", status, again.Log)
	}
	d.Ready()
	s.Hooks()
	s.Exec("update respondent set started_at = now()")
	s.Expect("/hook", "started 1")
}

// attach records the rows in transactions of a limited size, so that a server that must decode them does so in memory.
// The next attach removes what an interrupted one left.
func TestAttachInParts(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RESPONDENT_ORGANIZATION", "organization_id")
	s.Exec("insert into respondent (id, assessment_id, organization_id) select g, 1, repeat('o', 200) from generate_series(1, 50000) g")
	s.Attach()
	const state = `select count(*), count(distinct response_id::int), min(response_id::int), max(response_id::int), min(organization_id) = repeat('o', 200),
		count(distinct xmin::text) between 2 and 10 from walhook.response_state`
	const want = "50000|50000|1|50000|t|t"
	if got := testenv.Psql(t, s.DB, state); got != want {
		t.Errorf("the recorded state is %s, not %s", got, want)
	}
	s.Exec("update walhook.attachment set phase = 'attaching'; update walhook.response_state set response_id = '6000000' || response_id where response_id like '%7'")
	// The store fails late, with an error.
	s.Exec(`create function late() returns trigger language plpgsql as $$ begin raise exception 'too late'; end $$;
		create trigger late before insert on walhook.response_state for each row when (new.response_id = '49999') execute function late()`)
	if _, errOut, status := s.Walhook("attach"); status != 1 || !strings.Contains(errOut, "write the state of") || !strings.Contains(errOut, "too late") {
		t.Errorf("an attach to a failing store exits with status %d:\n%s", status, errOut)
	}
	if got := testenv.Psql(t, s.DB, "select count(*) > 0, bool_and(response_id::int < 50000), (select count(*) from pg_replication_slots where database = current_database()) from walhook.response_state"); got != "t|t|0" {
		t.Errorf("a failed attach left %s", got)
	}
	s.Exec("drop trigger late on walhook.response_state")
	s.Attach()
	if got := testenv.Psql(t, s.DB, state); got != want {
		t.Errorf("after an interrupted attach, the recorded state is %s, not %s", got, want)
	}
}

// AUTO_ATTACH attaches if nothing is attached, and does nothing on the next start.
func TestAutoAttach(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("AUTO_ATTACH", "true")
	d := s.Start().Ready()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Expect("/hook", "created 1")
	d.Stop()
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.Start().Ready()
	s.Expect("/hook", "created 1", "created 2")
}

// A sidecar may start before the database: it keeps running, reports what it waits for, and starts once the database is
// available.
func TestStartsBeforeTheDatabase(t *testing.T) {
	t.Parallel()
	for _, autoAttach := range []string{"true", "false"} {
		t.Run("AUTO_ATTACH="+autoAttach, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema)
			if autoAttach == "false" {
				s.Attach()
			}
			wire := harness.BehindWire(s.With("AUTO_ATTACH", autoAttach), "DATABASE_URL", s.DB)
			wire.Cut()

			stopped := s.Start()
			stopped.Readyz(503, "connect to the store")
			if status := stopped.Stop(); status != 0 {
				t.Errorf("stopped while it waited, it exited with status %d", status)
			}

			d := s.Start()
			d.Readyz(503, "connect to the store")
			if status, body := d.Get("/healthz"); status != 200 {
				t.Errorf("/healthz returns %d %s", status, body)
			}
			wire.Restore()
			d.Ready()
		})
	}
}

// With AUTO_ATTACH, an existing attachment is left to the daemon, which repairs what attach would refuse. If nothing is
// attached and attach refuses, the daemon exits with the reason.
func TestAutoAttachLeavesMendingToTheDaemon(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("AUTO_ATTACH", "true")
	s.Start().Ready().Stop()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.DropSlot()
	s.Start().Ready()
	s.Expect("/hook", "created 1")

	refused := harness.NewSite(t, "create table respondent (id bigint, assessment_id bigint, started_at timestamptz, finished_at timestamptz)").With("AUTO_ATTACH", "true")
	harness.MustFail(refused, "run", "attach refuses")
}

// A store of a newer walhook is left unchanged.
func TestNewerStore(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Attach()
	s.Exec("update walhook.schema_version set version = version + 1000")
	for _, command := range []string{"attach", "run", "status", "detach", "reconcile"} {
		harness.MustFail(s, command, "newer walhook")
	}
	if _, errOut, status := s.Walhook("detach", "--drop-schema"); status != 1 || !strings.Contains(errOut, "newer walhook") {
		t.Errorf("detach --drop-schema of a newer store: status %d\n%s", status, errOut)
	}
	harness.MustFail(s, "doctor")
}
