package commands

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/session"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// psqlFile runs a script the way the plan describes, and returns psql's output.
func psqlFile(t *testing.T, database, script string) (string, error) {
	t.Helper()
	return psqlFileIn(t, database, t.TempDir(), script)
}

// psqlFileIn does the same in a folder that may hold files that the script includes.
func psqlFileIn(t *testing.T, database, folder, script string) (string, error) {
	t.Helper()
	psql := testenv.PsqlProgram(t)
	path := filepath.Join(folder, "script.sql")
	if err := os.WriteFile(path, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(psql, "-X", "-v", "ON_ERROR_STOP=1", "-f", path, database).CombinedOutput()
	return string(out), err
}

func mustRunFile(t *testing.T, database, script string) {
	t.Helper()
	if out, err := psqlFile(t, database, script); err != nil {
		t.Fatalf("psql -f: %v\n%s\n%s", err, out, script)
	}
}

var undoLine = regexp.MustCompile(`(?m)^--undo (.*)$`)

// undoOf extracts the undo script from a plan, the way the plan describes.
func undoOf(plan string) string {
	var b strings.Builder
	for _, match := range undoLine.FindAllStringSubmatch(plan, -1) {
		b.WriteString(match[1] + "\n")
	}
	return b.String()
}

// After a DBA has run plan's script, attach and run need a role with only the documented rights, and the script's undo
// leaves nothing behind.
func TestPlanIsRunByHand(t *testing.T) {
	t.Parallel()
	server, another := testenv.NewServer(t, nil), testenv.NewServer(t, nil) // roles belong to the whole server
	for _, c := range []struct {
		name         string
		prepare      string   // as a superuser
		prepareStore string   // the same on a separate store
		planner      string   // the role that runs plan; "": a superuser
		args         []string // of plan
		dba          string   // the role that runs the script; "": a superuser
		role         string   // of the daemon
		variables    []string
		elsewhere    bool
		status       int // of plan
	}{
		{name: "superuser plans, role is missing", args: []string{"--role", "walhook"}, role: "walhook"},
		{name: "daemon's role plans", prepare: "create role d login", planner: "d", role: "d", status: 1},
		{
			name: "owner plans and runs part one", planner: "app_owner", dba: "app_owner", args: []string{"--role", "odd \"name"}, role: `odd "name`, status: 1,
			prepare: `create role "odd ""name" login replication; do $$ begin execute format('grant create on database %I to app_owner', current_database()); end $$;
				create role walhook_admin; create role walhook_viewer; create role walhook_daemon; grant "odd ""name" to app_owner`,
		},
		{
			name: "owner may create roles", planner: "app_owner", dba: "app_owner", args: []string{"--role", "walhook"}, role: "walhook",
			prepare: ownsAll,
		},
		{
			name: "owner may create roles, role is there", planner: "app_owner", dba: "app_owner", args: []string{"--role", "walhook"}, role: "walhook",
			prepare: ownsAll + "; set role app_owner; create role walhook login",
		},
		{
			name: "owner may create roles, store elsewhere", dba: "app_owner", args: []string{"--role", "walhook"}, role: "walhook", elsewhere: true,
			prepare: ownsAll, prepareStore: "create role app_owner login createrole; " + ownsDatabase,
		},
		{name: "nothing is public", args: []string{"--role", "walhook"}, role: "walhook", prepare: `revoke all on schema public from public;
			do $$ begin execute format('revoke all on database %I from public', current_database()); end $$; create role walhook login`},
		{
			name: "mapped columns, another publication", args: []string{"--role", "walhook"}, role: "walhook", variables: []string{"PUBLISH", "mapped", "PUBLICATION", `it's "ours"`},
			prepare: "alter table assessment replica identity default",
		},
		{name: "row-level security", role: "d", planner: "d", status: 1, prepare: "create role d login; alter table respondent enable row level security"},
		{name: "store elsewhere", args: []string{"--role", "walhook"}, role: "walhook", elsewhere: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dropRolesAfter(t, server)
			if c.prepareStore != "" {
				dropRolesAfter(t, another)
			}
			if strings.Contains(c.name, "mapped") && server.Version() < 150000 {
				c.variables = c.variables[2:] // column lists need 15
			}
			if strings.HasPrefix(c.prepare, ownsAll) && server.Version() < 160000 {
				c.prepare = ownsAll + "; create role walhook login replication" // only a superuser creates a role with REPLICATION
			}
			s := harness.NewSiteOn(t, server, livedIn).With("ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id").With(c.variables...)
			storeServer := server
			if c.elsewhere {
				storeServer = another
				s.WithStore(storeServer)
			}
			if c.prepare != "" {
				testenv.Psql(t, s.DB, c.prepare)
			}
			if c.prepareStore != "" {
				testenv.Psql(t, s.Store, c.prepareStore)
			}
			superDB, superStore := s.DB, s.Store
			look := func() string {
				return imprint(t, server.BinDir(), superDB) + imprint(t, storeServer.BinDir(), superStore)
			}
			before := look()
			if c.planner != "" {
				s.With("DATABASE_URL", harness.UserOf(t, superDB, c.planner))
			}
			script, errOut, status := s.Walhook(append([]string{"plan"}, c.args...)...)
			if status != c.status || strings.Contains(errOut, "would refuse: ") != (status == 1) || strings.Count(errOut, "\n") != status {
				t.Fatalf("plan: status %d, not %d\n%s%s", status, c.status, script, errOut)
			}
			unchanged(t, "plan", before, look())

			dba, storeDBA := superDB, superStore
			if c.dba != "" {
				dba, storeDBA = harness.UserOf(t, superDB, c.dba), harness.UserOf(t, superStore, c.dba)
			}
			if c.name == "daemon's role plans" {
				// The first part is enough: attach does the rest.
				script, _, _ = strings.Cut(script, "\n-- 2. ")
			}
			mustRunFile(t, dba, script)
			if c.elsewhere {
				mustRunFile(t, storeDBA, script)
				s.With("STORE_URL", harness.UserOf(t, superStore, c.role))
			}
			s.With("DATABASE_URL", harness.UserOf(t, superDB, c.role))
			fewRights(t, superDB, c.role)
			deliversAs(s, t)

			undo := undoOf(script)
			if c.elsewhere {
				mustRunFile(t, storeDBA, undo)
			}
			mustRunFile(t, dba, undo)
			s.Exec("delete from respondent where id > 50")
			unchanged(t, "the script and its undo", before, look())
		})
	}
}

// ownsAll creates an owner of everything who may create roles and is not a superuser.
const (
	ownsAll      = "alter role app_owner createrole replication; alter schema public owner to app_owner; " + ownsDatabase
	ownsDatabase = "do $$ begin execute format('alter database %I owner to app_owner', current_database()); end $$"
)

// For the role that connects, plan's script creates the same as attach, except for the slot and the recorded states.
func TestPlanIsWhatAttachRuns(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	byHand := harness.NewSiteOn(t, server, livedIn)
	script, errOut, status := byHand.Walhook("plan")
	if status != 0 {
		t.Fatalf("plan: status %d\n%s%s", status, errOut, script)
	}
	mustRunFile(t, byHand.DB, script)
	attached := harness.NewSiteOn(t, server, livedInAlso).Attach()
	name := regexp.MustCompile(`test_[0-9]+`)
	look := func(s *harness.Site) string {
		lines := strings.Split(name.ReplaceAllString(catalogs(t, s.DB), "DATABASE"), "\n")
		slices.Sort(lines) // attach creates some of it in another order
		return strings.Join(lines, "\n")
	}
	unchanged(t, "attach, beside the script,", look(byHand), look(attached))
	// attach accepts what was created by hand.
	byHand.Attach()
	byHand.Start().Ready()
	byHand.Hooks()
	byHand.Exec("insert into respondent (id, assessment_id) values (60, 1)")
	byHand.Expect("/hook", "created 60")
}

// A plan begins with a summary of what it does, and ends with the schema, which may be in a separate file.
func TestPlanIsReadable(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, livedIn)
	whole, errOut, status := s.Walhook("plan", "--role", "walhook")
	if status != 0 {
		t.Fatalf("plan: status %d\n%s", status, errOut)
	}
	head, rest, _ := strings.Cut(whole, "\n\\set ON_ERROR_STOP on\n")
	before := 0
	for _, text := range []string{
		"What is done, in this order:", "1. Part 1 in ", "creates role \"walhook\"", "grants select (", "creates schema walhook", "creates publication \"walhook\"",
		"2. Part 2 in ", "the end of this script", "3. walhook attach creates the replication slot", "No table of the application is altered",
	} {
		at := strings.Index(head[before:], text)
		if at < 0 {
			t.Fatalf("the head of the plan lacks %q, or has it too early:\n%s", text, head)
		}
		before += at
	}
	short, _, schemaIsLast := strings.Cut(rest, "\n-- 2. ")
	if n := strings.Count(short, "\n"); !schemaIsLast || n > 260 || !strings.Contains(short, "\n--undo ") || !strings.Contains(short, "CREATE_REPLICATION_SLOT") {
		t.Errorf("before the schema there are %d lines:\n%s", n, short)
	}

	folder := t.TempDir()
	schema := filepath.Join(folder, "it's the schema.sql")
	script, errOut, status := s.Walhook("plan", "--role", "walhook", "--schema", schema)
	if status != 0 || strings.Count(script, "\n") > 300 {
		t.Errorf("plan --schema: status %d, %d lines\n%s", status, strings.Count(script, "\n"), errOut)
	}
	included, err := os.ReadFile(schema)
	if err != nil || !strings.Contains(string(included), "create table walhook.queue") {
		t.Errorf("the file of the schema: %v, %d bytes", err, len(included))
	}
	moved := filepath.Join(t.TempDir(), "with the script")
	if err := os.Rename(folder, moved); err != nil {
		t.Fatal(err)
	}
	untouched := catalogs(t, s.DB)
	if out, err := psqlFileIn(t, s.DB, moved, script); err != nil {
		t.Fatalf("the script in one folder with the file of the schema: %v\n%s", err, out)
	}
	byFiles := catalogs(t, s.DB)
	mustRunFile(t, s.DB, undoOf(script))
	unchanged(t, "the script with a file and its undo", untouched, catalogs(t, s.DB))
	mustRunFile(t, s.DB, whole)
	unchanged(t, "the script in one file, beside that in two,", byFiles, catalogs(t, s.DB))
	mustRunFile(t, s.DB, undoOf(whole))
	unchanged(t, "the script and its undo", untouched, catalogs(t, s.DB))

	if _, errOut, status := s.Walhook("plan", "--schema", filepath.Join(folder, "none", "f.sql")); status != 1 || !strings.Contains(errOut, "write the schema: open ") {
		t.Errorf("a file that cannot be written: status %d: %s", status, errOut)
	}
}

// A script never makes the application's writes fail. It does nothing if attach would refuse for a reason that the
// script does not remedy, and publishes no table that has lost its replica identity since.
func TestPlanProtectsTheApplicationsWrites(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	const keyless = "alter table respondent drop constraint respondent_pkey"
	for _, c := range []struct {
		name, prepare, meanwhile, says string
		variables                      []string
	}{
		{name: "no primary key", prepare: keyless, says: "attach would refuse: .*no primary key to serve as replica identity"},
		{
			name: "mapped columns and replica identity full", prepare: "alter table respondent replica identity full",
			says: "attach would refuse: .*has REPLICA IDENTITY FULL", variables: []string{"PUBLISH", "mapped"},
		},
		{
			name: "another's publication", prepare: "create publication walhook for table assessment",
			says: `attach would refuse: publication "walhook" exists, and walhook did not create it`,
		},
		{name: "primary key dropped meanwhile", meanwhile: keyless, says: "respondent has no replica identity"},
		{name: "replica identity nothing meanwhile", meanwhile: "alter table respondent replica identity nothing", says: "respondent has no replica identity"},
		{
			name: "replica identity full meanwhile", meanwhile: "alter table respondent replica identity full",
			says: "respondent has a replica identity that its column list lacks", variables: []string{"PUBLISH", "mapped"},
		},
		{
			name: "a partition without replica identity meanwhile", prepare: `drop table respondent cascade;
			create table respondent (id bigint primary key, assessment_id bigint not null, started_at timestamptz, finished_at timestamptz, page int) partition by range (id);
			create table respondent_1 partition of respondent for values from (0) to (1000)`,
			meanwhile: "alter table respondent_1 replica identity nothing", says: "respondent_1 has no replica identity",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if len(c.variables) > 0 && server.Version() < 150000 {
				t.Skip("column lists need 15")
			}
			dropRolesAfter(t, server)
			s := harness.NewSiteOn(t, server, livedIn).With(c.variables...)
			testenv.Psql(t, s.DB, c.prepare)
			s.Exec("insert into respondent (id, assessment_id) values (60, 1)")
			before := catalogs(t, s.DB)
			script, errOut, status := s.Walhook("plan", "--role", "walhook")
			if refused := c.meanwhile == ""; refused != (status == 1) ||
				refused != regexp.MustCompile(`\A-- .*\n-- attach as role postgres would refuse, so this script does nothing:\n`).MatchString(script) {
				t.Errorf("plan: status %d\n%s%s", status, errOut, script)
			}
			if c.meanwhile != "" {
				testenv.Psql(t, s.DB, c.meanwhile)
			}
			if out, err := psqlFile(t, s.DB, script); err == nil || !regexp.MustCompile(c.says).MatchString(out) {
				t.Errorf("the script: %v; its output lacks %q\n%s", err, c.says, out)
			}
			if err := testenv.TryExec(s.DB, "update respondent set page = page where id = 60"); err != nil {
				t.Errorf("the application's update after the script: %v", err)
			}
			if c.meanwhile == "" {
				unchanged(t, "a script that is refused", before, catalogs(t, s.DB))
			}
		})
	}
}

// A script or undo that runs in the wrong database does nothing. The undo also undoes a script that stopped halfway,
// and keeps group roles that a walhook in another database uses.
func TestPlanIsForItsDatabase(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, livedIn)
	script, errOut, status := s.Walhook("plan", "--role", "walhook")
	if status != 0 {
		t.Fatalf("plan: status %d\n%s%s", status, errOut, script)
	}
	undo := undoOf(script)
	elsewhere := server.URL("postgres")
	refused := regexp.MustCompile(`is for \S+/` + testenv.Value[string](t, s.DB, "select current_database()") + `, and this is another database \(postgres\)`)
	before := catalogs(t, elsewhere)
	for name, text := range map[string]string{"script": script, "undo": undo} {
		out, err := psqlFile(t, elsewhere, text)
		if err == nil || !refused.MatchString(out) {
			t.Errorf("the %s in another database: %v\n%s", name, err, out)
		}
	}
	unchanged(t, "a script for another database", before, catalogs(t, elsewhere))

	halfway, _, cut := strings.Cut(script, "create role walhook_viewer")
	mustRunFile(t, s.DB, halfway)
	mustRunFile(t, s.DB, undo)
	const roles = "select string_agg(rolname, ' ' order by rolname) from pg_roles where rolname ~ '^walhook'"
	if got := testenv.Psql(t, s.DB, roles); !cut || got != "" {
		t.Errorf("the undo of a script that stopped halfway leaves the roles %q", got)
	}

	mustRunFile(t, s.DB, script)
	neighbour := harness.NewSiteOn(t, server, livedInAlso).Attach()
	mustRunFile(t, s.DB, undo)
	if got := testenv.Psql(t, neighbour.DB, roles); got != "walhook_admin walhook_daemon walhook_viewer" {
		t.Errorf("after the undo there are the roles %q", got)
	}
	neighbour.Start().Ready()
	neighbour.Hooks()
	neighbour.Exec("insert into respondent (id, assessment_id) values (60, 1)")
	neighbour.Expect("/hook", "created 60")
}

// If a DBA has attached, plan grants the daemon's role what it lacks.
func TestPlanAfterADBAAttached(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, livedIn).With("ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id").Attach()
	testenv.Psql(t, s.DB, "create role d login")
	dba := s.DB
	s.With("DATABASE_URL", harness.UserOf(t, dba, "d"))
	harness.MustFail(s, "plan", "belongs to postgres", "GRANT walhook_daemon TO", "may not replicate")
	s.With("DATABASE_URL", dba)
	script, errOut, status := s.Walhook("plan", "--role", "d")
	if status != 0 || !strings.Contains(script, "attached already") || strings.Contains(script, "CREATE_REPLICATION_SLOT") {
		t.Errorf("plan: status %d\n%s%s", status, errOut, script)
	}
	mustRunFile(t, dba, script)
	fewRights(t, dba, "d")
	s.With("DATABASE_URL", harness.UserOf(t, dba, "d"))
	d := s.Start().Ready()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (60, 1)")
	s.Expect("/hook", "created 60")
	if out, errOut, status := s.Walhook("doctor"); status != 0 {
		t.Errorf("doctor as the daemon's role: status %d\n%s%s", status, out, errOut)
	}
	d.Stop()
	s.With("DATABASE_URL", dba)
	again, _, _ := s.Walhook("plan", "--role", "d")
	if strings.Contains(again, "\n-- 1. ") {
		t.Errorf("after its script plan still has a first part:\n%s", again)
	}
}

// dropRolesAfter restores the server's roles when the test ends. Call it before databases are created, so that they are
// dropped first.
func dropRolesAfter(t *testing.T, server *pgserver.Server) {
	t.Helper()
	t.Cleanup(func() {
		testenv.Exec(t, server.URL("postgres"), `do $$ declare r text; begin
			for r in select rolname from pg_roles where rolname !~ '^(pg_|postgres)' loop execute format('drop role %I', r); end loop; end $$`)
	})
}

// deliversAs attaches and runs as the role in the site's URL, delivers an event and stops.
func deliversAs(s *harness.Site, t *testing.T) {
	t.Helper()
	if out, errOut, status := s.Walhook("plan"); status != 0 {
		t.Errorf("plan after part one: status %d\n%s%s", status, out, errOut)
	}
	s.Attach()
	d := s.Start().Ready()
	s.Hooks()
	s.Exec("insert into respondent (id, assessment_id) values (60, 1)")
	s.Expect("/hook", "created 60")
	if out, errOut, status := s.Walhook("doctor"); status != 0 {
		t.Errorf("doctor as the daemon's role: status %d\n%s%s", status, out, errOut)
	}
	// walhook.unpublish: if the table loses its replica identity, the application can keep writing.
	s.Exec("alter table respondent replica identity nothing")
	testenv.Eventually(t, harness.Patience, "the application to write again", func() (bool, string) {
		err := testenv.TryExec(s.DB, "update respondent set page = page where id = 60")
		return err == nil, "the update still fails"
	})
	s.Exec("alter table respondent replica identity default")
	if status := d.Stop(); status != 0 {
		t.Errorf("the daemon ended with status %d", status)
	}
	if strings.Contains(d.Log.String(), "permission denied") {
		t.Errorf("the daemon lacks a right:\n%s", d.Log)
	}
}

// fewRights verifies that a role has only REPLICATION and the mapped columns.
func fewRights(t *testing.T, database, role string) {
	t.Helper()
	got := testenv.Psql(t, database, `
		select rolsuper, rolcreaterole, rolcreatedb, rolreplication,
		       has_database_privilege(rolname, current_database(), 'create'), pg_has_role(rolname, 'app_owner', 'member'),
		       has_table_privilege(rolname, 'respondent', 'select'), has_any_column_privilege(rolname, 'respondent', 'insert, update'),
		       has_column_privilege(rolname, 'respondent', 'essay', 'select'), has_column_privilege(rolname, 'respondent', 'organization_id', 'select')
		  from pg_roles where rolname = `+session.QuoteLiteral(role))
	if got != "f|f|f|t|f|f|f|f|f|t" {
		t.Errorf("role %s may %s", role, got)
	}
}

// The locks that plan lists for its statements are those that pg_locks shows.
func TestPlanTellsTheLocks(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, livedIn).With("ASSESSMENT_TABLE", "public.assessment")
	script, errOut, status := s.Walhook("plan", "--role", "somebody")
	if status != 0 {
		t.Fatalf("plan: status %d\n%s%s", status, script, errOut)
	}
	owner, _, _ := strings.Cut(script, "\n-- 2. ")
	const held = `select mode, count(distinct relation) from pg_locks where pid = pg_backend_pid() and relation in ('public.respondent'::regclass, 'public.assessment'::regclass) group by 1;`
	locks := func(statement string) string {
		return testenv.Psql(t, s.DB, "create role w; begin; "+statement+held+"rollback; drop role w;")
	}
	publication := regexp.MustCompile(`(?s)create publication .*?;`).FindString(owner)
	if got := locks(publication); got != "ShareUpdateExclusiveLock|2" || !strings.Contains(owner, "SHARE UPDATE EXCLUSIVE on each table") {
		t.Errorf("%s locks %s", publication, got)
	}
	grant := regexp.MustCompile(`grant select \(.*?\) on table "public"."respondent" to `).FindString(owner) + "w;"
	want, says := "", "Locks no table up to PostgreSQL 17"
	if server.Version() >= 180000 {
		want, says = "AccessShareLock|1", "ACCESS SHARE on the table for a moment"
	}
	if got := locks(grant); got != want || !strings.Contains(owner, says) {
		t.Errorf("%s locks %q, so the plan should list %q", grant, got, says)
	}
	// The rest of the first part locks no table of the application.
	for _, line := range []string{publication, regexp.MustCompile(`grant select .*`).FindString(owner)} {
		owner = strings.Replace(owner, line, "", 1)
	}
	owner = regexp.MustCompile(`(?m)^(grant select|comment on publication) .*$`).ReplaceAllString(owner, "")
	if got := testenv.Psql(t, s.DB, "begin;"+owner+"\n;"+held+"rollback"); got != "" {
		t.Errorf("the rest of part one locks %s", got)
	}
}

// plan estimates how long the snapshot takes, and shows what the estimate is based on.
func TestPlanEstimatesTheSnapshot(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	says := func(want string) {
		t.Helper()
		if out, errOut, status := s.Walhook("plan"); status != 0 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("plan: status %d, and it does not say %s\n%s%s", status, want, errOut, regexp.MustCompile("(?m)^-- Table.*$").FindString(out))
		}
	}
	says(`-- Table public\.respondent: 0 rows, .*well under a minute: reading all rows took`)
	s.Exec("alter table respondent set (autovacuum_enabled = false); insert into respondent (id, assessment_id) select g, 1 from generate_series(1, 60000) g")
	says(`-- Table public\.respondent: empty or never analysed, .* is not known, .*run ANALYZE`)
	s.Exec("analyze respondent")
	says(`-- Table public\.respondent: about 60000 rows .* MB\. The snapshot takes about \d+s, estimated from 50000 rows that were read just now in \d+ms, .* as much again for the store`)
}
