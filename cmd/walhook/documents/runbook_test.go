package documents

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

var runbookHeading = regexp.MustCompile(`(?m)^## (.*)$`)

// Each alert has a section in the runbook, in the same order, with commands that run as written beside a running
// daemon.
func TestRunbook(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/how-to/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	var alerts, sections []string
	for _, rule := range readAlerts(t) {
		alerts = append(alerts, rule.Alert)
	}
	var script strings.Builder
	headings := runbookHeading.FindAllStringSubmatchIndex(string(text), -1)
	for i, at := range headings {
		end := len(text)
		if i+1 < len(headings) {
			end = headings[i+1][0]
		}
		section := string(text[at[2]:at[3]])
		sections = append(sections, section)
		parts := strings.Split(string(text[at[1]:end]), "```")
		if len(parts) != 3 || !strings.HasPrefix(parts[1], "sh\n") || strings.TrimSpace(parts[0]) == "" || strings.TrimSpace(parts[2]) == "" {
			t.Errorf("%s lacks its meaning, its commands or its remedy", section)
			continue
		}
		script.WriteString("echo '== " + section + "'\n" + strings.TrimPrefix(parts[1], "sh\n"))
	}
	if diff := cmp.Diff(alerts, sections); diff != "" {
		t.Fatalf("alerts (-) and sections of the runbook (+):\n%s", diff)
	}
	for _, link := range regexp.MustCompile(`\(#([a-z]+)\)`).FindAllStringSubmatch(string(text), -1) {
		if !strings.Contains(strings.ToLower(string(text)), "\n## "+link[1]+"\n") {
			t.Errorf("the link #%s has no target", link[1])
		}
	}

	path := testenv.PathWithPsql(t)
	s := harness.NewSite(t, harness.SampleSchema).With("LISTEN", harness.FreePort(t))
	d := s.Run()
	s.Hooks()
	d.Shows(1, "walhook_daemons") // the store's metrics have been read once
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "walhook")); err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(s.DB)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", walkPrelude+strings.ReplaceAll(script.String(), "127.0.0.1:9464", s.Env["LISTEN"]))
	cmd.Dir = dir
	password, _ := at.User.Password()
	walhook := s.Command()
	cmd.ExtraFiles = walhook.ExtraFiles
	cmd.Env = append(walhook.Env, path, "PGHOST="+at.Hostname(), "PGPORT="+at.Port(), "PGUSER="+at.User.Username(), "PGPASSWORD="+password,
		"PGDATABASE="+strings.Trim(at.Path, "/"))
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the runbook's commands failed: %v\n%s", err, out)
	}
	for _, says := range []string{"streaming", "reserved", "walhook_slot_lag_seconds 0", "UPDATE 1"} {
		if !strings.Contains(string(out), says) {
			t.Errorf("the runbook's commands do not print %q:\n%s", says, out)
		}
	}
}
