package documents

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/cookiejar"
	"os"
	"regexp"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// demoRun starts the demo with a temporary folder of its own, to find leftovers.
func demoRun(t *testing.T, flags ...string) (d *harness.Daemon, left func() string) {
	t.Helper()
	// Not t.TempDir, which the server's user could not access.
	dir, err := os.MkdirTemp("", "walhook-demo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	s := &harness.Site{T: t, Extra: []string{"TMPDIR=" + dir, "PGBIN=" + testenv.Postgres(t).BinDir()}}
	return s.Background(append([]string{"demo"}, flags...)...), func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	d, left := demoRun(t)
	if status := d.Wait(); status != 0 {
		t.Errorf("status %d", status)
	}
	got := d.Log.String()
	if posts := strings.Count(got, "-> POST /hook"); posts != 7 {
		t.Errorf("%d POSTs instead of 7", posts)
	}
	if logged := strings.Count(got, "success "); logged != 7 {
		t.Errorf("%d deliveries in the log instead of 7", logged)
	}
	readmeShows(t, got)
	if names := left(); names != "" || t.Failed() {
		t.Errorf("left behind: %q, after:\n%s", names, got)
	}
}

func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]string{"at once": "Starting", "while it plays": "-> POST"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, left := demoRun(t)
			testenv.Eventually(t, 3*harness.Patience, "the demo to say "+when, func() (bool, string) {
				return strings.Contains(d.Log.String(), when), d.Log.String()
			})
			d.Stop()
			got := d.Log.String()
			if !strings.HasSuffix(got, "walhook: interrupted\n") || strings.Contains(got, "level=WARN") {
				t.Errorf("it says:\n%s", got)
			}
			if names := left(); names != "" {
				t.Errorf("left behind: %s", names)
			}
		})
	}
}

// With --console it stays, lets in once whoever has the address that it printed, and ends with status 0.
func TestDemoConsole(t *testing.T) {
	t.Parallel()
	d, left := demoRun(t, "--console")
	address := regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+/login\?key=\w+`)
	testenv.Eventually(t, 3*harness.Patience, "the demo to print its address", func() (bool, string) {
		return address.MatchString(d.Log.String()), d.Log.String()
	})
	in := address.FindString(d.Log.String())
	for _, want := range []string{"Overview</h1>", ">Sign in</button>"} {
		jar, _ := cookiejar.New(nil)
		res, err := (&http.Client{Jar: jar}).Get(in)
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !strings.Contains(string(page), want) {
			t.Errorf("%s shows no %s:\n%s", in, want, page)
		}
	}
	if status := d.Stop(); status != 0 {
		t.Errorf("status %d:\n%s", status, d.Log.String())
	}
	if names := left(); names != "" {
		t.Errorf("left behind: %s", names)
	}
}
