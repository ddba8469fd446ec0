package commands

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/cdc/catalog"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

var documentedCheck = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (warn|fail) \\|")

// doctor runs walhook doctor in prepared states, and records which checks have found something.
type doctor struct {
	*harness.Site
	worst map[string]string // documented level, by check
	seen  map[string]catalog.Level

	advised string // remedies of the last run
}

func newDoctor(t *testing.T, s *harness.Site) *doctor {
	t.Helper()
	text, err := os.ReadFile("../../../../docs/reference/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	d := &doctor{Site: s, worst: map[string]string{}, seen: map[string]catalog.Level{}}
	for _, match := range documentedCheck.FindAllStringSubmatch(string(text), -1) {
		d.worst[match[1]] = match[2]
	}
	return d
}

// looks returns doctor's findings with some variables set for this run.
func (d *doctor) looks(pairs ...string) []catalog.Finding {
	d.T.Helper()
	one := &harness.Site{T: d.T, Env: maps.Clone(d.Env)}
	out, errOut, status := one.With(pairs...).Walhook("doctor", "--json")
	var report struct{ Findings []catalog.Finding }
	if err := json.Unmarshal([]byte(out), &report); err != nil || errOut != "" {
		d.T.Fatalf("doctor --json: %v\n%s%s", err, out, errOut)
	}
	fails := false
	for _, f := range report.Findings {
		worst, documented := d.worst[f.Check]
		if !documented || f.Level == catalog.Fail && worst != "fail" {
			d.T.Errorf("docs/reference/doctor.md does not list this: %+v", f)
		}
		if f.Level != catalog.OK && d.seen[f.Check] != catalog.Fail {
			d.seen[f.Check] = f.Level
		}
		fails = fails || f.Level == catalog.Fail
	}
	if fails != (status == 1) || status > 1 {
		d.T.Errorf("doctor exits with status %d:\n%s", status, out)
	}
	return report.Findings
}

// finds expects a finding with that check and level that contains a text and advice.
func (d *doctor) finds(check string, level catalog.Level, says string, pairs ...string) {
	d.T.Helper()
	all := d.looks(pairs...)
	d.advised = ""
	for _, f := range all {
		d.advised += f.Remedy + "\n"
	}
	for _, f := range all {
		if f.Check == check && f.Level == level && strings.Contains(f.Found, says) && (level == catalog.OK || f.Remedy != "") {
			return
		}
	}
	all = slices.DeleteFunc(all, func(f catalog.Finding) bool { return f.Check != check && f.Level == catalog.OK })
	d.T.Errorf("doctor has no %s of %s with %q:\n%+v", level, check, says, all)
}

// while prepares a state, runs doctor, and reverts the state.
func (d *doctor) while(bring, back, check string, level catalog.Level, says string, pairs ...string) {
	d.T.Helper()
	testenv.Psql(d.T, d.Store, bring)
	d.finds(check, level, says, pairs...)
	testenv.Psql(d.T, d.Store, back)
}

// setting does the same with a server setting.
func (d *doctor) setting(name, value, check string, level catalog.Level, says string) {
	d.T.Helper()
	reload := "select pg_reload_conf();"
	testenv.Psql(d.T, d.DB, "alter system set "+name+" = "+value+";"+reload)
	testenv.Eventually(d.T, harness.Patience, name+" to be "+value, func() (bool, string) {
		got := testenv.Psql(d.T, d.DB, "select current_setting('"+name+"')")
		return got == strings.Trim(value, "'"), got
	})
	d.finds(check, level, says)
	testenv.Psql(d.T, d.DB, "alter system reset "+name+";"+reload)
}

// sawAlso merges what another run has found.
func (d *doctor) sawAlso(other *doctor) {
	for check, level := range other.seen {
		if d.seen[check] != catalog.Fail {
			d.seen[check] = level
		}
	}
}

// lookAs returns the variable that makes doctor run as another role.
func (d *doctor) lookAs(role string) []string {
	return []string{"DATABASE_URL", harness.UserOf(d.T, d.DB, role)}
}

// doctor finds every problem that docs/reference/doctor.md lists, prepared on a real server.
func TestDoctorFindsWhatItLists(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, map[string]string{"fsync": "on", "max_wal_size": "32MB", "min_wal_size": "32MB"})
	s := harness.NewSiteOn(t, server, harness.SampleSchema+`; create type mood as enum ('open', 'shut');
		alter table respondent add column status text, add column done boolean, add column day date, add column state mood,
		  add column made boolean generated always as (status = 'done') stored;
		create role d login replication; grant select (id, assessment_id, started_at, finished_at) on respondent to d;
		grant select (id, external_id) on assessment to d; create role nobody_yet login;`).With("ASSESSMENT_TABLE", "public.assessment")
	d := newDoctor(t, s)

	d.beforeAttach(server)
	s.Attach()
	d.finds("ca_file", catalog.Fail, "no such file", "CA_FILE", "nowhere.pem")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, testenv.NewTLSReceiver(t).CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	d.finds("ca_file", catalog.OK, "can be read", "CA_FILE", ca)
	d.ofTheServer(server)
	d.ofTheTables(server)
	d.ofRights()
	d.ofTheStore()
	d.ofWebhooks()
	d.ofPoolers()
	// These may leave problems behind.
	d.while("update walhook.attachment set phase = 'attaching'", "update walhook.attachment set phase = 'attached'", "attachment", catalog.Fail, "interrupted")
	d.while("update walhook.attachment set system_identifier = system_identifier || '0'", "update walhook.attachment set system_identifier = left(system_identifier, -1)", "copy", catalog.Fail, "this is a copy")
	d.while("update walhook.schema_version set version = version + 1", "update walhook.schema_version set version = version - 1", "store_version", catalog.Fail, "newer walhook")
	s.DropSlot()
	d.finds("slot", catalog.Fail, "does not exist")

	small := testenv.NewServer(t, map[string]string{"wal_level": "", "max_replication_slots": "", "max_wal_senders": "1"})
	other := newDoctor(t, harness.NewSiteOn(t, small, harness.SampleSchema))
	other.ofSmallServers(small)
	d.sawAlso(other)

	delete(d.worst, "server_version") // there is no older server to test with
	if server.Version() >= 150000 {
		delete(d.worst, "publish")
	}
	if server.Version() < 180000 {
		delete(d.worst, "idle_slot_timeout")
	}
	for check, worst := range d.worst {
		if string(d.seen[check]) != worst {
			t.Errorf("docs/reference/doctor.md documents %s as %s at worst; the test saw %q", check, worst, d.seen[check])
		}
	}
}

func (d *doctor) beforeAttach(server *pgserver.Server) {
	d.T.Helper()
	d.finds("attachment", catalog.Warn, "nothing is attached")
	d.finds("publication", catalog.OK, "can be created")
	d.finds("source_connection", catalog.Fail, "connect to the application's database", "DATABASE_URL", "postgres://postgres@127.0.0.1:1/app")
	d.finds("store_connection", catalog.Fail, "connect to the store", "STORE_URL", "postgres://postgres@127.0.0.1:1/app")
	d.finds("table", catalog.Fail, "does not exist", "RESPONDENT_TABLE", "nowhere")
	if all := d.looks("RESPONDENT_TABLE", "nowhere"); slices.ContainsFunc(all, func(f catalog.Finding) bool { return f.Check == "finish_stamp" }) {
		d.T.Errorf("doctor judges the finish stamp of a table that does not exist: %+v", all)
	}
	d.finds("columns", catalog.Fail, `has no column "begun"`, "STARTED", "begun")
	d.finds("columns", catalog.Fail, "generated columns are not in the stream", "FINISHED", "made", "FINISH_STAMP", "finished_at")
	d.finds("primary_key", catalog.Fail, "is not a primary key", "RESPONDENT_ID", "assessment_id")
	d.finds("replication_right", catalog.Fail, "may not replicate", d.lookAs("nobody_yet")...)
	d.finds("select_right", catalog.Fail, "may not read id", d.lookAs("nobody_yet")...)
	for _, remedy := range []string{`ON "public"."respondent" TO "nobody_yet";`, "walhook plan --role nobody_yet"} {
		if !strings.Contains(d.advised, remedy) {
			d.T.Errorf("doctor does not advise %s:\n%s", remedy, d.advised)
		}
	}
	d.finds("store_schema", catalog.Fail, "may not create the schema", d.lookAs("d")...)
	elsewhere := append([]string{"STORE_URL", testenv.Database(d.T, server, "create role reader")}, d.lookAs("d")...)
	d.finds("source_schema", catalog.Fail, "may not create the functions", elsewhere...)
	d.while("create schema walhook; create table walhook.cargo ()", "drop schema walhook cascade", "source_schema", catalog.Fail, "it holds the relation cargo", elsewhere...)
	d.while("create schema walhook", "drop schema walhook", "source_schema", catalog.Fail, "may not create the functions", elsewhere...)
	d.while("create schema walhook; grant create on schema walhook to reader", "drop schema walhook cascade", "others_rights", catalog.Warn, "application's database: reader may create on schema walhook", elsewhere...)
	d.while("create schema walhook; grant create on schema walhook to reader", "drop schema walhook cascade", "others_rights", catalog.Warn, "store: reader may create on schema walhook")
	if server.Version() < 150000 {
		d.finds("publish", catalog.Fail, "column lists", "PUBLISH", "mapped")
	}
	d.while("alter table respondent enable row level security", "alter table respondent disable row level security", "row_security", catalog.Fail, "hides rows", d.lookAs("d")...)
	d.while("select pg_create_logical_replication_slot('"+d.Env["SLOT"]+"', 'pgoutput')", "select pg_drop_replication_slot('"+d.Env["SLOT"]+"')", "slot", catalog.Fail, "this store did not create it")

	d.finds("marker_values", catalog.Warn, "\"no\", which column \"done\"", "FINISHED", "done=no")
	d.finds("marker_values", catalog.Warn, "\"opne\", which column \"state\"", "STARTED", "state=open|opne")
	if all := d.looks("STARTED", "state=open", "FINISHED", "done=true|t"); slices.ContainsFunc(all, func(f catalog.Finding) bool { return f.Check == "marker_values" }) {
		d.T.Errorf("doctor warns about existing values: %+v", all)
	}
	d.ofMarkers()
	d.finds("condition", catalog.OK, "WALHOOK_FINISHED can be evaluated", "FINISHED", "state = 'open' and day is not null", "FINISH_STAMP", "finished_at")
	d.finds("condition", catalog.Fail, "the order of an enum's labels can change", "FINISHED", "state > 'open'")
	d.finds("condition_values", catalog.Warn, "a long value of status", "FINISHED", `status >= 'd' and done`)
	d.finds("finish_stamp", catalog.OK, "finished_at")
	d.finds("finish_stamp", catalog.Warn, "there is no finish stamp", "FINISHED", "status=done")
	d.finds("finish_stamp", catalog.OK, "finished_at", "FINISHED", "status=done", "FINISH_STAMP", "finished_at")
	d.finds("finish_stamp", catalog.Warn, "marker is an expression", "FINISHED", "not done")
	d.finds("finish_stamp", catalog.Warn, "done is a flag", "FINISHED", "done")
	d.finds("finish_stamp", catalog.Warn, "day is a date", "FINISHED", "day")
	d.finds("finish_stamp", catalog.Warn, "id does not change", "FINISHED", "done", "FINISH_STAMP", "id")
	d.finds("finish_stamp", catalog.Warn, "day is a date", "FINISHED", "done", "FINISH_STAMP", "id,day")
	d.finds("finish_stamp", catalog.OK, "a new value of day or finished_at", "FINISHED", "done", "FINISH_STAMP", "day,finished_at")
	d.finds("condition", catalog.Fail, "WALHOOK_RESPONDENT_WHERE cannot be evaluated", "RESPONDENT_WHERE", "not status")
	d.finds("columns", catalog.Fail, `no column "stat"`, "RESPONDENT_WHERE", "stat is null")

	d.finds("running_transactions", catalog.OK, "")
	holder := testenv.Connect(d.T, d.DB)
	if _, err := holder.Exec(d.T.Context(), "begin; insert into respondent (id) values (1)"); err != nil {
		d.T.Fatal(err)
	}
	d.finds("running_transactions", catalog.Warn, "pid ")
	if _, err := holder.Exec(d.T.Context(), "rollback"); err != nil {
		d.T.Fatal(err)
	}
	d.while("begin; insert into respondent (id) values (1); prepare transaction 'left over'", "rollback prepared 'left over'", "prepared_transactions", catalog.Warn, "left over")
	d.finds("prepared_transactions", catalog.OK, "")
}

// ofMarkers looks at markers that can be evaluated and mean something else than was meant.
func (d *doctor) ofMarkers() {
	d.T.Helper()
	d.finds("marker_list", catalog.Warn, `one value, "completed,finished_at", although "finished_at" is a column`, "FINISHED", "status=completed,finished_at")
	if want := "set WALHOOK_FINISHED=status=completed and WALHOOK_FINISH_STAMP=finished_at"; !strings.Contains(d.advised, want) {
		d.T.Errorf("doctor does not advise %q:\n%s", want, d.advised)
	}
	d.while("alter table respondent alter page set default 1", "alter table respondent alter page set default 0", "marker_default", catalog.Warn,
		"already set by default in a new row (page is 1), so response.started fires with response.created", "STARTED", "page")
	d.while("alter table respondent add constraint steps check (status in ('open', 'done'))", "alter table respondent drop constraint steps", "marker_values", catalog.Warn,
		`"opne", which the constraint "steps" of column "status"`, "STARTED", "status=opne|done")
	d.while("insert into respondent (id, status) select g, 'done' from generate_series(1, 10) g", "delete from respondent", "marker_values", catalog.Warn,
		`"dome", and none of the 10 rows that were read has it in column "status"`, "FINISHED", "status=done|dome")
	if strings.Contains(d.advised, `"done"`) {
		d.T.Errorf("doctor advises about a value that rows have:\n%s", d.advised)
	}
}

func (d *doctor) ofTheServer(server *pgserver.Server) {
	d.T.Helper()
	d.finds("daemon", catalog.Warn, "nobody reads the slot")
	d.finds("slot_limit", catalog.Warn, "until the server's disk is full")
	d.setting("max_slot_wal_keep_size", "'10GB'", "slot_limit", catalog.OK, "10GB")
	d.finds("slot_limit", catalog.Warn, "while no daemon runs", "MAX_SLOT_LAG", "10GB")
	if server.Version() >= 180000 {
		d.setting("idle_replication_slot_timeout", "'1d'", "idle_slot_timeout", catalog.Warn, "is 1d")
	}
	d.finds("idle_slot_timeout", catalog.OK, "")
	d.setting("synchronous_standby_names", "'*'", "synchronous_standby_names", catalog.Fail, "0 of 1 standbys")
	d.setting("synchronous_standby_names", "'ANY 1 (\"one\", WalHook)'", "synchronous_standby_names", catalog.Fail, "wait for the daemon")
	d.setting("synchronous_standby_names", "'walhook_too'", "synchronous_standby_names", catalog.OK, "")

	d.finds("slot", catalog.OK, "retains")
	d.finds("failover", catalog.OK, "")
	standby := d.replication("true")
	standby.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION PHYSICAL " + testenv.Psql(d.T, d.DB, "select pg_current_wal_flush_lsn()") + " TIMELINE 1"})
	if err := standby.Frontend().Flush(); err != nil {
		d.T.Fatal(err)
	}
	testenv.Eventually(d.T, harness.Patience, "a standby to stream", func() (bool, string) {
		got := testenv.Psql(d.T, d.DB, "select state from pg_stat_replication where application_name = 'somebody'")
		return got == "streaming", got
	})
	d.finds("failover", catalog.Warn, "standby")
	d.finds("failover", catalog.Warn, "standby", d.lookAs("d")...)
	_ = standby.Close(d.T.Context())
	if server.Version() >= 170000 {
		r := d.replication("database")
		if _, err := r.Exec(d.T.Context(), `ALTER_REPLICATION_SLOT "`+d.Env["SLOT"]+`" (FAILOVER false)`).ReadAll(); err != nil {
			d.T.Fatal(err)
		}
		_ = r.Close(d.T.Context())
		d.finds("failover", catalog.Warn, "without failover")
	}
	harness.FillWAL(d.Site, 40)
	d.finds("slot", catalog.Warn, "more than max_wal_size")
	d.finds("slot", catalog.Warn, "is dropped beyond", "MAX_SLOT_LAG", "45MB")
	run := d.Start().Ready()
	// The server releases WAL only after it has logged another snapshot, four per minute, and that is acknowledged.
	testenv.Eventually(d.T, 4*harness.Patience, "the slot to be read up", func() (bool, string) {
		all := d.looks()
		return slices.ContainsFunc(all, func(f catalog.Finding) bool { return f.Check == "slot" && f.Level == catalog.OK }) &&
			slices.ContainsFunc(all, func(f catalog.Finding) bool { return f.Check == "daemon" && f.Level == catalog.OK }), "not yet"
	})
	run.Stop()
}

// replication opens a replication connection: "true" for a physical one, "database" for a logical one.
func (d *doctor) replication(mode string) *pgconn.PgConn {
	d.T.Helper()
	config, err := pgconn.ParseConfig(d.DB)
	if err != nil {
		d.T.Fatal(err)
	}
	config.RuntimeParams["replication"] = mode
	config.RuntimeParams["application_name"] = "somebody"
	conn, err := pgconn.ConnectConfig(d.T.Context(), config)
	if err != nil {
		d.T.Fatal(err)
	}
	d.T.Cleanup(func() { _ = conn.Close(d.T.Context()) })
	return conn
}

func (d *doctor) ofTheTables(server *pgserver.Server) {
	d.T.Helper()
	d.finds("publication", catalog.OK, "")
	d.finds("mapping", catalog.Fail, "WALHOOK_STARTED", "STARTED", "page")
	d.while("alter table respondent rename finished_at to ended_at", "alter table respondent rename ended_at to finished_at", "columns", catalog.Fail, `no column "finished_at"`)
	if all := d.advised; strings.Contains(all, "to one of its columns") || !strings.Contains(all, "give it back its name") {
		d.T.Errorf("doctor advises a mapping other than the attached one:\n%s", all)
	}
	d.while("alter table respondent replica identity nothing", "alter table respondent replica identity default", "replica_identity", catalog.Fail, "NOTHING")
	d.while("alter publication walhook drop table respondent", "alter publication walhook add table respondent", "publication", catalog.Fail, "lacks table public.respondent")
	d.while("alter publication walhook set (publish = 'insert')", "alter publication walhook set (publish = 'insert, update, delete, truncate')", "publication", catalog.Fail, "does not publish update")
	if server.Version() >= 150000 {
		const whole = "alter publication walhook set table respondent, assessment"
		d.while("alter publication walhook set table respondent (id), assessment", whole, "publication", catalog.Fail, "column list of public.respondent")
		d.while("alter publication walhook set table respondent where (id > 5), assessment", whole, "publication", catalog.Fail, "row filter")
	}
}

func (d *doctor) ofRights() {
	d.T.Helper()
	d.finds("store_rights", catalog.Fail, "may not read the schema walhook", d.lookAs("d")...)
	testenv.Psql(d.T, d.DB, "grant walhook_daemon to d")
	d.finds("store_rights", catalog.OK, "that a daemon needs", d.lookAs("d")...)
	d.finds("unpublish_right", catalog.OK, "", d.lookAs("d")...)
	d.finds("group_roles", catalog.OK, "")
	d.while("alter role walhook_viewer rename to somebody_else", "alter role somebody_else rename to walhook_viewer", "group_roles", catalog.Warn, "walhook_viewer")
	d.while("revoke insert on walhook.queue from walhook_daemon; revoke execute on function walhook.bury(bigint) from walhook_daemon",
		"grant insert on walhook.queue to walhook_daemon; grant execute on function walhook.bury(bigint) to walhook_daemon",
		"store_rights", catalog.Fail, "execute on function walhook.bury(bigint); insert on table walhook.queue", d.lookAs("d")...)
	d.while("revoke execute on function walhook.unpublish(name, regclass) from walhook_daemon", "grant execute on function walhook.unpublish(name, regclass) to walhook_daemon",
		"unpublish_right", catalog.Warn, "until somebody else", d.lookAs("d")...)
	d.while("create role nobody_owner; alter function walhook.unpublish(name, regclass) owner to nobody_owner", "alter function walhook.unpublish(name, regclass) owner to current_user; drop role nobody_owner",
		"unpublish_right", catalog.Warn, "until somebody else", d.lookAs("d")...)
	d.finds("session_settings", catalog.OK, "", d.lookAs("d")...)
	d.while("alter role d set session_replication_role = replica", "alter role d reset session_replication_role",
		"session_settings", catalog.Warn, "session_replication_role = replica", d.lookAs("d")...)
	d.finds("others_rights", catalog.OK, "")
	for right, says := range map[string]string{
		"select on walhook.webhook":                                  "store: reporting may select on table walhook.webhook",
		"select (secret), update (url) on walhook.webhook":           "store: reporting may select, update on table walhook.webhook",
		"select on walhook.delivery_log":                             "store: reporting may select on table walhook.delivery_log",
		"usage on sequence walhook.delivery_id":                      "store: reporting may usage on sequence walhook.delivery_id",
		"execute on function walhook.rotate_secret(bigint,interval)": "store: reporting may execute on routine walhook.rotate_secret(bigint,interval)",
		"create on schema walhook":                                   "store: reporting may create on schema walhook",
	} {
		d.while("create role reporting; grant "+right+" to reporting", "drop owned by reporting; drop role reporting", "others_rights", catalog.Warn, says)
	}
	d.while("do $$ begin execute format('revoke temporary on database %I from public', current_database()); end $$",
		"do $$ begin execute format('grant temporary on database %I to public', current_database()); end $$", "temporary_right", catalog.Fail, "may not create temporary tables", d.lookAs("d")...)
}

func (d *doctor) ofTheStore() {
	d.T.Helper()
	d.finds("store_durability", catalog.OK, "")
	d.finds("clock", catalog.OK, "")
	d.while(`set allow_system_table_mods = on; alter function pg_catalog.clock_timestamp() rename to clock_of_before;
			create function pg_catalog.clock_timestamp() returns timestamptz language sql volatile as $$ select pg_catalog.clock_of_before() + interval '90 s' $$`,
		`set allow_system_table_mods = on; drop function pg_catalog.clock_timestamp(); alter function pg_catalog.clock_of_before() rename to clock_timestamp`,
		"clock", catalog.Warn, "1m30")

	d.finds("bloat", catalog.OK, "walhook.queue")
	testenv.Psql(d.T, d.Store, `alter table walhook.queue set (autovacuum_enabled = false);
		insert into walhook.queue (webhook_id, committed_at, event_type, response_id) select -1, now(), 1, g from generate_series(1, 60000) g; delete from walhook.queue`)
	testenv.Eventually(d.T, harness.Patience, "the server to know of the dead rows", func() (bool, string) {
		got := testenv.Psql(d.T, d.Store, "select n_dead_tup from pg_stat_all_tables where relid = 'walhook.queue'::regclass")
		return got == "60000", got
	})
	d.finds("bloat", catalog.Warn, "walhook.queue takes")
	testenv.Psql(d.T, d.Store, "alter table walhook.queue reset (autovacuum_enabled); vacuum walhook.queue")

	d.finds("retention", catalog.OK, "for ever")
	const entry = `insert into walhook.log (delivery_id, webhook_id, ordinal, committed_at, finished_at, attempts, event_type, kind, succeeded, response_id, error) `
	d.while("create table walhook.log_of_then partition of walhook.log for values from ('2001-01-01') to ('2001-02-01');"+entry+"values (1, 1, 1, now(), '2001-01-01', 1, 1, 0, true, '1', null)",
		"drop table walhook.log_of_then", "retention", catalog.Warn, "oldest entry is from 2001-01-01", "RETENTION", "240h")
	d.finds("retention", catalog.OK, "240h", "RETENTION", "240h")
	d.while(entry+"select g, 1, 1, now(), now(), 1, 1, 0, false, g, repeat('x', 1800) from generate_series(1, 60000) g", "truncate walhook.log", "retention", catalog.Warn, "for ever")
}

func (d *doctor) ofWebhooks() {
	d.T.Helper()
	d.finds("webhooks", catalog.Warn, "there are no webhooks")
	id := d.Hook("/a", "created")
	d.finds("webhooks", catalog.OK, "webhooks: 1")
	for _, check := range []string{"settings", "queue", "endpoints", "incidents", "webhooks_disabled", "webhooks_unknown_assessment", "webhooks_without_external_id", "webhooks_impossible_id", "webhooks_organization", "webhooks_changed"} {
		if check != "webhooks_changed" {
			d.finds(check, catalog.OK, "")
		}
	}
	back := "update walhook.webhook set enabled = true, assessment_id = '1', organization_id = null, event_type = 'response.created'"
	d.while("update walhook.webhook set enabled = false, disabled_reason = 'x'", back, "webhooks_disabled", catalog.Warn, "match nothing new: webhooks 1")
	d.while("insert into walhook.webhook (url, event_type, enabled) select 'https://example.com/' || g, 'response.created', false from generate_series(1, 22) g",
		"delete from walhook.webhook where url like 'https://example.com/%'", "webhooks_disabled", catalog.Warn, "; and 2 more")
	d.while("update walhook.webhook set assessment_id = '77'", back, "webhooks_unknown_assessment", catalog.Warn, "not in public.assessment")
	d.while("alter table walhook.webhook disable trigger user; update walhook.webhook set assessment_id = '17.5'; alter table walhook.webhook enable trigger user",
		back, "webhooks_impossible_id", catalog.Warn, "cannot be an id of its column")
	d.while("update walhook.webhook set organization_id = '7'", back, "webhooks_organization", catalog.Warn, "no organization column is mapped")
	d.while(`update walhook.webhook set organization_id = '7'; update walhook.attachment set mapping = mapping || '{"AssessmentOrganization": "title"}'`,
		back+"; update walhook.attachment set mapping = mapping - 'AssessmentOrganization'", "webhooks_unknown_organization", catalog.Warn,
		"no assessment is of their organization", "ASSESSMENT_ORGANIZATION", "title")
	d.while("update walhook.webhook set assessment_id = null; update walhook.assessment set external_id = null where assessment_id = '1'",
		back+"; update walhook.assessment set external_id = 'EXT-1' where assessment_id = '1'", "webhooks_without_external_id", catalog.Warn, "no assessment has one")
	d.while("update walhook.settings set enabled = false", "update walhook.settings set enabled = true", "settings", catalog.Warn, "switched off")
	d.while("update walhook.endpoint set failures = 4, failing_since = now(), last_error = 'HTTP 500'", "update walhook.endpoint set failures = 0", "endpoints", catalog.Warn, "4 failures in a row")
	d.while("update walhook.endpoint set failures = 4, failing_since = now(), last_error = 'HTTP 500'; update walhook.webhook set enabled = false", // has no pending deliveries
		"update walhook.endpoint set failures = 0; "+back, "endpoints", catalog.OK, "")
	d.while("insert into walhook.incident_log (kind, detail) values ('retention', 'held back')", "delete from walhook.incident_log", "incidents", catalog.Warn, "retention since")
	d.while("insert into walhook.incident_log (kind, detail) values ('log_upkeep', 'no partitions')", "delete from walhook.incident_log", "incidents", catalog.Fail, "log_upkeep since")
	const daemon = "insert into walhook.daemon (id, name, version, expires_at, heartbeat_at, unready) overriding system value values (1000, 'host/1', '1', now() + interval '1 hour', "
	d.while(daemon+"now() + interval '1 hour', 'odd')", "delete from walhook.daemon", "daemons", catalog.OK, "") // as if just killed
	d.while(daemon+"now() - interval '1 minute', null)", "delete from walhook.daemon", "daemons", catalog.OK, "")
	session := testenv.Connect(d.T, d.Store)
	if _, err := session.Exec(d.T.Context(), "select pg_advisory_lock($1, 1000)", harness.LockClass); err != nil {
		d.T.Fatal(err)
	}
	d.while(daemon+"now() + interval '1 hour', 'odd')", "delete from walhook.daemon", "daemons", catalog.Fail, "host/1 is not ready: odd")
	for _, starting := range []string{"starting", "starting: opening the stream"} {
		d.while(daemon+"now() + interval '1 hour', '"+starting+"')", "delete from walhook.daemon", "daemons", catalog.Warn, "host/1 is "+starting)
	}
	d.while(daemon+"now() - interval '1 minute', null)", "delete from walhook.daemon", "daemons", catalog.Fail, "host/1 has not reported for 6")
	_ = session.Close(d.T.Context())
	d.while(harness.RefuseDDL, "drop event trigger refuse; drop function public.refuse", "log_partitions", catalog.Fail, "and can get no other: no DDL here")
	testenv.Exec(d.T, d.Store, "insert into walhook.queue (webhook_id, committed_at, event_type, response_id) values ($1, now() - interval '2 hours', 1, '1')", id)
	d.finds("queue", catalog.Warn, "enabled for 2h0m")

	for _, c := range []struct {
		finished int
		stamp    string
		level    catalog.Level
		says     string
	}{
		{10, "null", catalog.Warn, "of 10 finished responses, 10 have no finish stamp: finished_at is NULL"},
		{10, "case when n > 6 then '1:' || n end", catalog.Warn, "6 have no finish stamp"},
		{10, "'1:x'", catalog.Warn, "all with a finish stamp have the same one: finished_at"},
		{30, "case when n > 10 then '1:' || n else '1:x' end", catalog.Warn, "10 share one finish stamp"},
		{10, "case when n > 3 then '1:' || n end", catalog.OK, "of 10 finished responses, few share a finish stamp"},
		{9, "null", catalog.OK, "fewer than 10"},
	} {
		d.while(fmt.Sprintf("insert into walhook.response_state (response_id, flags, stamp) select 'x' || n, 10, %s from generate_series(1, %d) n", c.stamp, c.finished),
			"delete from walhook.response_state where response_id like 'x%'", "stamp_values", c.level, c.says)
	}

	// A useless stamp, in a separate attachment.
	flag := newDoctor(d.T, harness.NewSiteOn(d.T, testenv.Postgres(d.T), "create table respondent (id bigint primary key, assessment_id bigint, begun boolean, done boolean)").With("STARTED", "begun", "FINISHED", "done"))
	flag.Attach()
	flag.Hook("/a", "changed")
	flag.finds("webhooks_changed", catalog.Warn, "response.changed")
	d.sawAlso(flag)
}

// ofPoolers tests connections through a pooler.
func (d *doctor) ofPoolers() {
	d.T.Helper()
	u, err := url.Parse(d.DB)
	if err != nil {
		d.T.Fatal(err)
	}
	u.Host = poolerBefore(d.T, u.Host, nil)
	d.finds("pooler", catalog.Warn, "is in front of the application's database", "DATABASE_URL", u.String())
	d.finds("pooler", catalog.Warn, "is in front of the store", "STORE_URL", u.String())
	u.Host = poolerBefore(d.T, u.Host, []string{"replication"})
	d.finds("replication_connection", catalog.Fail, "PgBouncer", "DATABASE_URL", u.String())
}

// ofSmallServers tests a server without logical WAL and free slots, and a standby of it.
func (d *doctor) ofSmallServers(server *pgserver.Server) {
	d.T.Helper()
	d.finds("wal_level", catalog.Fail, "wal_level is replica")
	d.finds("store_durability", catalog.Warn, "fsync = off")
	d.finds("free_slots", catalog.OK, "0 of 10")
	d.while("select pg_create_physical_replication_slot('taken' || g) from generate_series(1, 10) g",
		"select pg_drop_replication_slot('taken' || g) from generate_series(1, 10) g", "free_slots", catalog.Fail, "10 of 10")
	busy := d.replication("true")
	d.finds("free_senders", catalog.Fail, "1 of 1")
	_ = busy.Close(d.T.Context())
	u, err := url.Parse(d.DB)
	if err != nil {
		d.T.Fatal(err)
	}
	standby := testenv.CopyServer(d.T, server, nil, "standby.signal")
	d.finds("primary", catalog.Fail, "is a standby", "DATABASE_URL", standby.URL(strings.Trim(u.Path, "/")))
	standby.Stop()

	testenv.Psql(d.T, d.DB, "alter system set wal_level = logical; create role plain login")
	server.Halt(syscall.SIGINT)
	if err := server.Restart(d.T.Context()); err != nil {
		d.T.Fatal(err)
	}
	d.finds("next_start", catalog.OK, "start again with the slot")
	d.while("alter system reset wal_level", "alter system set wal_level = logical", "next_start", catalog.Warn, "will be replica")
	d.Attach()
	d.while("alter system reset wal_level", "alter system set wal_level = logical", "next_start", catalog.Fail, "wal_level is logical now and will be replica")
	d.while("alter system set max_replication_slots = 0", "alter system reset max_replication_slots", "next_start", catalog.Fail, "max_replication_slots is 10 now and will be 0")

	// Others learn of it once the configuration has been reloaded, and till then are told nothing.
	const says = "select pending_restart from pg_settings where name = 'wal_level'"
	for _, step := range []struct{ change, pending string }{{"alter system reset wal_level", "t"}, {"alter system set wal_level = logical", "f"}} {
		testenv.Psql(d.T, d.DB, step.change+"; select pg_reload_conf()")
		testenv.Eventually(d.T, harness.Patience, "the configuration to be reloaded", func() (bool, string) {
			got := testenv.Psql(d.T, d.DB, says)
			return got == step.pending, got
		})
		if step.pending == "t" {
			d.finds("next_start", catalog.Fail, "will be lower", d.lookAs("plain")...)
		} else if all := d.looks(d.lookAs("plain")...); slices.ContainsFunc(all, func(f catalog.Finding) bool { return f.Check == "next_start" }) {
			d.T.Errorf("doctor claims to know how the server will start: %+v", all)
		}
	}
}
