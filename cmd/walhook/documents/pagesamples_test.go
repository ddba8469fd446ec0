package documents

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/cdc"
	"walhook/cmd/walhook/internal/harness"
	"walhook/dispatch/post"
	"walhook/testenv"
)

const requestPage = "../../../docs/reference/request.md"

// The request that the page shows has the signature of the recipe's secret, and the recipe prints it.
func TestPagesShowASignature(t *testing.T) {
	t.Parallel()
	text, recipe := harness.TextsOf(t, requestPage), openPage(t, requestPage).script()
	shown := regexp.MustCompile(`(?m)^    webhook-signature: (v1,\S+)$`).FindStringSubmatch(text[""])
	if shown == nil {
		t.Fatal("the page shows no signature")
	}
	given := map[string]string{}
	for _, assignment := range regexp.MustCompile(`(?m)^(\w+)='?([^'$\n]+)'?$`).FindAllStringSubmatch(recipe, -1) {
		given[assignment[1]] = assignment[2]
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(given["secret"], "whsec_"))
	if err != nil || len(key) == 0 {
		t.Fatalf("the recipe's secret is %q: %v", given["secret"], err)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", given["id"], given["timestamp"], given["body"])
	if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); shown[1] != want {
		t.Errorf("the page shows the signature %s instead of %s", shown[1], want)
	}
	testenv.Program(t, "openssl")
	out, err := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", recipe).CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != shown[1] {
		t.Errorf("the recipe prints %s instead of %s: %v", got, shown[1], err)
	}
}

// The table of retries shows the daemon's schedule with the defaults.
func TestPagesShowTheRetrySchedule(t *testing.T) {
	cfg, err := configured(t) // which changes the environment, so this does not run in parallel
	if err != nil {
		t.Fatal(err)
	}
	backoff := post.Backoff{Base: time.Duration(cfg.RetryBase), Cap: time.Duration(cfg.RetryCap)}
	var want strings.Builder
	want.WriteString("| ---: | ---: | ---: |\n| 1 | | 0 s |\n")
	var total time.Duration
	for attempt := 2; attempt <= cfg.MaxAttempts; attempt++ {
		wait := backoff.Delay(attempt-1, 0.5)
		total += wait
		fmt.Fprintf(&want, "| %d | %s | %s |\n", attempt, roughly(wait), roughly(total))
	}
	want.WriteString("\n")
	if text := harness.TextsOf(t, requestPage)["Retries"]; !strings.Contains(text, want.String()) {
		t.Errorf("the page does not show\n%s", want.String())
	}
}

// roughly formats a duration with its two largest units.
func roughly(d time.Duration) string {
	var parts []string
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}} {
		if n := d / unit.length; n > 0 && len(parts) < 2 {
			parts = append(parts, fmt.Sprintf("%d %s", n, unit.name))
		}
		d %= unit.length
	}
	return strings.Join(parts, " ")
}

// Exactly the existing kinds of incidents are documented, those that stay open and those that are resolved when
// recorded.
func TestPagesListIncidents(t *testing.T) {
	t.Parallel()
	const file = "../../../docs/reference/incidents.md"
	listed := func(section string) (kinds []string) {
		for _, match := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(harness.TextsOf(t, file)[section], -1) {
			kinds = append(kinds, match[1])
		}
		slices.Sort(kinds)
		return kinds
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(cdc.IncidentKinds)), listed("Incidents that stay open")); diff != "" {
		t.Errorf("cdc.IncidentKinds (-) and the page (+):\n%s", diff)
	}
	noted := map[string]bool{}
	for _, source := range []struct{ glob, kind string }{
		{"../../../cdc/*/*.go", `(?m)^\s*[iI]ncident[A-Z]\w* *= "([a-z_]+)"`},
		{"../../../sql/queries/*.sql", `insert into walhook\.incident_log \(kind, detail, resolved_at\)\s+select '([a-z_]+)'`},
		{"../../../sql/code/*.sql", `insert into walhook\.incident_log \(kind, detail, resolved_at\)\s+select '([a-z_]+)'`},
	} {
		files, err := filepath.Glob(source.glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range regexp.MustCompile(source.kind).FindAllStringSubmatch(string(text), -1) {
				noted[match[1]] = true
			}
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(noted)), listed("Incidents that are resolved when recorded")); diff != "" {
		t.Errorf("the sources (-) and the page (+):\n%s", diff)
	}
}

// sample is a command and its output as shown on a page. A line "..." stands for any number of lines.
type sample struct{ command, printed string }

// samples returns the samples in a page's console blocks.
func samples(t *testing.T, file string) []sample {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found []sample
	for _, match := range regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(match[1]) {
			if command, isCommand := strings.CutPrefix(line, "$ "); isCommand {
				found = append(found, sample{command: strings.TrimSpace(command)})
				continue
			}
			found[len(found)-1].printed += line
		}
	}
	return found
}

var (
	sampleTime  = regexp.MustCompile(`\d{4}-\d\d-\d\d[ T][\d:.]+Z?`)
	sampleValue = regexp.MustCompile(`\b(?:msg_[0-9a-f]{32}|v1,\S+|whsec_\S+|[0-9A-F]+/[0-9A-F]{2,}|slot_\w+|[\w.-]+/\d+)|\d+(?:\.\d+)?(?: ?(?:ms|s|B|kB|MB))?\b`)
	sampleBlank = regexp.MustCompile(`[ +-]{2,}`)
)

// likeness reduces a line of output to what does not vary.
func likeness(line string) string {
	line = sampleValue.ReplaceAllString(sampleTime.ReplaceAllString(line, "T"), "N")
	return strings.TrimSpace(sampleBlank.ReplaceAllString(line, " "))
}

// shows reports whether the sample matches what the command printed.
func (s sample) shows(printed string) bool {
	pattern := "^"
	for line := range strings.Lines(s.printed) {
		if strings.TrimSpace(line) == "..." {
			pattern += `(?:.*\n)*?`
			continue
		}
		pattern += regexp.QuoteMeta(likeness(line)) + `\n`
	}
	return regexp.MustCompile(pattern + `\s*$`).MatchString(likenessOf(printed))
}

// likenessOf does that for several lines.
func likenessOf(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(likeness(line) + "\n")
	}
	return b.String()
}

// The commands in the samples, run in order on one installation, print what the page shows.
func TestPagesShowWhatCommandsPrint(t *testing.T) {
	t.Parallel()
	path := testenv.PathWithPsql(t)
	server, receiver := testenv.NewServer(t, nil), testenv.NewReceiver(t)
	testenv.Exec(t, server.URL("postgres"), "create database app")
	testenv.Exec(t, server.URL("app"), `create table respondent (id bigint generated always as identity primary key, assessment_id bigint not null,
		name text not null, started_at timestamptz, finished_at timestamptz); insert into respondent (assessment_id, name) values (17, 'Ada Lovelace')`)
	at, err := url.Parse(server.URL("app"))
	if err != nil {
		t.Fatal(err)
	}
	dir, listen, down := t.TempDir(), harness.FreePort(t), "http://"+harness.ClosedPort(t)
	if err := os.Symlink(self(t), filepath.Join(dir, "walhook")); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("http://receiver.example.com", receiver.URL(""), "http://down.example.com", down)
	asShown := strings.NewReplacer(receiver.URL(""), "http://receiver.example.com", down, "http://down.example.com", at.Host, "db.example.com:5432")
	s := &harness.Site{T: t, Env: map[string]string{"DATABASE_URL": server.URL("app"), "LISTEN": listen, "ALLOW_NETWORKS": "127.0.0.0/8", "RETRY_BASE": "1h"}}
	run := func(command string) string {
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-c", here.Replace(command))
		cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
		walhook := s.Command()
		cmd.ExtraFiles = walhook.ExtraFiles
		cmd.Env = append(walhook.Env, "PATH="+dir+":"+strings.TrimPrefix(path, "PATH="),
			"PGHOST="+at.Hostname(), "PGPORT="+at.Port(), "PGUSER="+at.User.Username(), "PGDATABASE=app")
		out, _ := cmd.CombinedOutput() // doctor and status may exit with 1
		return asShown.Replace(string(out))
	}
	var d *harness.Daemon
	const page = "../../../docs/reference/commands.md"
	for _, sample := range samples(t, page) {
		switch name := strings.TrimPrefix(sample.command, "walhook "); name {
		case "run":
			d = s.Start().Ready()
			if !sample.shows(d.Log.String()) {
				t.Errorf("%s shows of walhook run\n%s\nand it logs\n%s", page, sample.printed, d.Log.String())
			}
			continue
		case "detach --drop-schema":
			d.Stop()
		}
		said, asks := run(sample.command), strings.HasPrefix(sample.command, "psql -c \"SELECT") || strings.HasPrefix(sample.command, "walhook status")
		if asks { // recent events may not be recorded yet
			testenv.Eventually(t, harness.Patience, sample.command, func() (bool, string) {
				said = run(sample.command)
				return sample.shows(said), said
			})
		}
		if !sample.shows(said) {
			t.Fatalf("%s shows of %s\n%s\nand it prints\n%s", page, sample.command, sample.printed, said)
		}
	}
}
