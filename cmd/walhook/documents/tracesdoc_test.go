package documents

import (
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
)

// The reference page lists the supported variables and the attributes of spans.
func TestTracesAreDocumented(t *testing.T) {
	t.Parallel()
	text := harness.TextsOf(t, "../../../docs/reference/traces.md")[""]
	documented := map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\| `(OTEL_[A-Z_]+)` \\|").FindAllStringSubmatch(text, -1) {
		documented[match[1]] = true
	}
	read := map[string]bool{}
	for _, v := range cli.TraceVariables {
		read[v.Name] = true
	}
	if diff := cmp.Diff(documented, read); diff != "" {
		t.Errorf("docs/reference/traces.md (-) and the supported variables (+):\n%s", diff)
	}
	documented, set := map[string]bool{}, map[string]bool{}
	for _, match := range regexp.MustCompile("(?m)^\\| \\| `([a-z._]+)` \\| (?:int|string) \\|").FindAllStringSubmatch(text, -1) {
		documented[match[1]] = true
	}
	for _, file := range []string{"../../../cdc/stream/trace.go", "../../../dispatch/trace.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`attribute\.\w+\("([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
			set[match[1]] = true
		}
	}
	if diff := cmp.Diff(documented, set); diff != "" {
		t.Errorf("docs/reference/traces.md (-) and the attributes of spans (+):\n%s", diff)
	}
}
