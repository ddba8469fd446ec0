package documents

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The commands of docs/how-to/upgrade.md run as written. In place of the server's upgrade, a response is finished.
func TestUpgradePage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/how-to/upgrade.md")
	if err != nil {
		t.Fatal(err)
	}
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema).With("SLOT", "walhook", "LISTEN", harness.FreePort(t))
	s.Attach()
	s.Hook("/hook", "completed")
	owner := s.DB
	testenv.Psql(t, owner, "create role d login replication in role walhook_daemon; grant select (id, assessment_id, started_at, finished_at) on respondent to d")
	s.With("DATABASE_URL", harness.UserOf(t, owner, "d")) // the daemon's URL, as in the quick start
	var script strings.Builder
	for i, part := range strings.Split(string(text), "```") {
		if block, isShell := strings.CutPrefix(part, "sh\n"); i%2 == 1 && isShell {
			script.WriteString(block)
		}
	}
	path := testenv.PathWithPsql(t)
	const here = "# now upgrade the server\n"
	if strings.Count(script.String(), here) != 1 {
		t.Fatalf("docs/how-to/upgrade.md does not mark the server's upgrade:\n%s", script.String())
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
	cmd := exec.CommandContext(ctx, "bash", "-c", walkPrelude+"psql() { command psql -X -A -t \"$@\" \"$WALHOOK_DATABASE_URL\"; }\n./walhook run & daemon=$!\n"+strings.ReplaceAll(wait+adapted, "127.0.0.1:9464", s.Env["LISTEN"])+"\nkill $daemon; wait $daemon")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "WALHOOK_TEST_EXEC=1", path, "owner="+owner)
	for name, value := range s.Env {
		cmd.Env = append(cmd.Env, "WALHOOK_"+name+"="+value)
	}
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the page's commands failed: %v\n%s", err, out)
	}
	for _, says := range []string{"already attached; the schema is up to date", "streaming", "slot_lost", "read by a daemon"} {
		if !strings.Contains(string(out), says) {
			t.Errorf("the page's commands do not print %q:\n%s", says, out)
		}
	}
	if got := s.Events("/hook"); len(got) != 1 || got[0] != "completed 5" {
		t.Errorf("events during the upgrade arrived as %v", got)
	}
	if got := testenv.Psql(t, s.Store, "select status, recovered from walhook.delivery_log"); got != "success|t" {
		t.Errorf("the log says %s", got)
	}
}
