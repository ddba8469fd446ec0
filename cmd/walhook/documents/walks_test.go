package documents

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The quick start runs as written, except for ports and folders, and leaves nothing behind.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	p := openPage(t, "../../../docs/tutorial/quickstart.md")
	server := testenv.NewServer(t, nil)
	at, err := url.Parse(server.URL("app"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	receiver := filepath.Join(dir, "receiver")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", receiver, "../../../examples/compose/receiver").CombinedOutput(); err != nil {
		t.Fatalf("build the receiver: %v\n%s", err, out)
	}
	out := walk(t, server, dir, p.script(), [][2]string{
		{"PGHOST=127.0.0.1 PGPORT=5432 PGUSER=postgres", fmt.Sprintf("PGHOST=%s PGPORT=%s PGUSER=%s", at.Hostname(), at.Port(), at.User.Username())},
		{"go build -o walhook ./cmd/walhook\n", "ln -s '" + self(t) + "' walhook\n"},
		{"go build -o dist/receiver ./examples/compose/receiver\n", "mkdir dist && cp '" + receiver + "' dist/receiver\n"},
		{"dropdb app\n", ""}, // checked below
		// A reader would check again on a busy machine.
		{"sleep 2\n", "until psql -Atc 'SELECT status FROM walhook.delivery_log WHERE NOT test' | grep -q success; do sleep 0.2; done\n"},
		{"SELECT pg_sleep(2);\n", "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM walhook.delivery_attempt) LOOP PERFORM pg_sleep(0.2); END LOOP; END $$;\n"},
		{"./walhook run & daemon", "WALHOOK_LISTEN=127.0.0.1:9464 ./walhook run & daemon"},
		{"127.0.0.1:9464", harness.FreePort(t)},
		{"127.0.0.1:9465", harness.FreePort(t)},
		{"127.0.0.1:8080", harness.FreePort(t)},
		{"127.0.0.1:8081", harness.ClosedPort(t)},
		{"./walhook console & console", "WALHOOK_CONSOLE_LISTEN=127.0.0.1:8464 ./walhook console & console"},
		{"127.0.0.1:8464", harness.FreePort(t)},
	})
	saysInOrder(t, out, "attached: slot", "streaming", "walhook_streaming 1", "standing by", "exit status 0", "streaming",
		"response.completed", "success", "success", "pending", "connection refused", "webhook was deleted", "Sign in", "pg_drop_replication_slot", "DROP PUBLICATION", "DROP ROLE", "ALTER SYSTEM")
	if files, err := filepath.Glob(filepath.Join(dir, "*.sql")); err != nil || len(files) > 0 {
		t.Errorf("files left: %v %v", files, err)
	}
	left := testenv.Psql(t, server.URL("app"), `select count(*) from pg_replication_slots`) +
		testenv.Psql(t, server.URL("app"), `select count(*) from pg_publication`) +
		testenv.Psql(t, server.URL("app"), `select count(*) from pg_roles where rolname like 'walhook%'`) +
		testenv.Psql(t, server.URL("app"), `select count(*) from pg_namespace where nspname = 'walhook'`)
	if left != "0000" {
		t.Errorf("slots, publications, roles and schemas left: %s", left)
	}
}

// The operators' pages run as written, one after the other on the same installation.
func TestOperatorsPages(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	testenv.Exec(t, server.URL("postgres"), "create database app")
	testenv.Exec(t, server.URL("app"), `create table respondent (id bigint primary key, assessment_id bigint not null, started_at timestamptz, finished_at timestamptz);
		insert into respondent values (1, 17, now(), now())`)
	dir := t.TempDir()
	listen := harness.FreePort(t)
	script := "ln -s '" + self(t) + "' walhook\n./walhook attach\n"
	operations := openPage(t, "../../../docs/how-to/operate.md")
	for i, section := range operations.sections() {
		script += operations.scriptOf(operations.in(section))
		if i == 0 { // which kills its daemons
			script += "./walhook run & daemon=$!\nuntil curl -s http://" + listen + "/readyz | grep -q streaming; do sleep 0.1; done\n"
		}
	}
	script += openPage(t, "../../../docs/how-to/recover.md").script() + "kill $daemon; wait $daemon\n"
	out := walk(t, server, dir, script, [][2]string{{"127.0.0.1:9464", listen}, {"127.0.0.1:9465", harness.FreePort(t)}}, "WALHOOK_DATABASE_URL="+server.URL("app"), "WALHOOK_LISTEN="+listen)
	saysInOrder(t, out, "attached: slot", "standing by: another daemon reads the slot", "streaming", "0 differed")
}

// self returns the path of the test program, which acts as walhook when told to.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
