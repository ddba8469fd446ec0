package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// call runs walhook inside this process, with no variable of the environment.
func call(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errOut bytes.Buffer
	status = run(t.Context(), args, func(string) (string, bool) { return "", false }, &out, &errOut)
	return out.String(), errOut.String(), status
}

// The help of every command is what people read and scripts scrape. go test ./cmd/walhook -run Help -update writes it anew.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, cmd := range everyCommand(NewRoot(&Environment{})) {
		words := strings.Fields(cmd.CommandPath())
		name, command := strings.Join(words, "_"), words[1:]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, errOut, status := call(t, append(command, "--help")...)
			if status != ExitOK || errOut != "" {
				t.Errorf("status %d: %s", status, errOut)
			}
			path := filepath.Join("testdata", "help", name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

func TestBadUsage(t *testing.T) {
	t.Parallel()
	cases := [][]string{{}, {"nonsense"}, {"--no-such-flag"}, {"help", "nonsense"}, {"completion"}, {"completion", "nonsense"}, {"completion", "bash", "surplus"}}
	for _, command := range []string{"preview", "plan", "attach", "run", "reconcile", "detach", "doctor", "status", "demo", "version"} {
		cases = append(cases, []string{command, "surplus"}, []string{command, "--no-such-flag"})
	}
	for _, args := range cases {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			_, errOut, status := call(t, args...)
			if status != ExitUsage || !strings.HasPrefix(errOut, "walhook: ") || strings.Count(errOut, "\n") != 1 {
				t.Errorf("status %d: %s", status, errOut)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	out, errOut, status := call(t, "version")
	want := fmt.Sprintf("^walhook %s, commit \\S+( with changes)?, %s, %s/%s\n$", regexp.QuoteMeta(Version()), regexp.QuoteMeta(runtime.Version()), runtime.GOOS, runtime.GOARCH)
	if status != ExitOK || errOut != "" || !regexp.MustCompile(want).MatchString(out) {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	for settings, want := range map[[2]string]string{
		{"0123abc", "false"}: ", commit 0123abc, ",
		{"0123abc", "true"}:  ", commit 0123abc with changes, ",
	} {
		info := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: settings[0]}, {Key: "vcs.modified", Value: settings[1]}}}
		if line := versionLine(info); !strings.Contains(line, want) {
			t.Errorf("a build from %v says %q", settings, line)
		}
	}
}
