package documents

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kelseyhightower/envconfig"

	"walhook/cmd/walhook/internal/cli"
)

func TestPagesHaveTheEnvironmentTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/reference/environment.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), cli.EnvironmentTable()) {
		t.Errorf("docs/reference/environment.md lacks the environment table; it must contain:\n%s", cli.EnvironmentTable())
	}
}

// Exactly the fields of Config are documented.
func TestVariablesAreThoseOfConfig(t *testing.T) {
	t.Parallel()
	var names strings.Builder
	if err := envconfig.Usagef("WALHOOK", &cli.Config{}, &names, "{{range .}}{{usage_key .}}\n{{end}}"); err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, v := range cli.Variables {
		documented = append(documented, "WALHOOK_"+v.Name)
	}
	read := strings.Fields(names.String())
	slices.Sort(read)
	slices.Sort(documented)
	if diff := cmp.Diff(read, documented); diff != "" {
		t.Errorf("variables of Config (-) and documented ones (+):\n%s", diff)
	}
}

// Newcomers follow the first lines of the README literally.
func TestReadmeBegins(t *testing.T) {
	t.Parallel()
	lines := strings.SplitAfterN(readme(t), "\n", 31)
	first := strings.Join(lines[:30], "")
	for _, command := range []string{"\n    go run ./cmd/walhook demo\n", "\n    go test ./...\n", "`docker compose up`"} {
		if !strings.Contains(first, command) {
			t.Errorf("the first 30 lines of the README lack %s", strings.TrimSpace(command))
		}
	}
}

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// readmeShows verifies that the demo prints the excerpt in the README.
func readmeShows(t *testing.T, printed string) {
	t.Helper()
	shown := 0
	printed = likenessOf(printed)
	for part := range strings.SplitSeq(readme(t), "\n\n") {
		if step, isStep := strings.CutPrefix(part, "    Ada "); isStep {
			shown++
			if step = "Ada " + step; !strings.Contains(printed, likenessOf(step)) {
				t.Errorf("the demo does not print\n%s", step)
			}
		}
	}
	if shown == 0 {
		t.Error("the README has no excerpt of the demo")
	}
}
