package harness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TextsOf returns the text under each heading of a document.
func TextsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	texts, section := map[string]string{}, ""
	for line := range strings.Lines(string(text)) {
		if heading, found := strings.CutPrefix(line, "## "); found {
			section = strings.TrimSpace(heading)
			continue
		}
		texts[section] += line
	}
	return texts
}

// Fields returns the fields in a command's JSON output.
func Fields(t *testing.T, out string) map[string]string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(out))
	decoder.UseNumber()
	seen := map[string]string{}
	for decoder.More() {
		var value any
		if err := decoder.Decode(&value); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		fieldsOf(seen, "", value)
	}
	return seen
}

// fieldsOf adds the fields of a value to those seen.
func fieldsOf(seen map[string]string, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for name, below := range v {
			fieldsOf(seen, strings.TrimPrefix(path+"."+name, "."), below)
		}
		return
	case []any:
		seen[path] = "array"
		for _, below := range v {
			fieldsOf(seen, path+"[]", below)
		}
		return
	case bool:
		seen[path] = "boolean"
	case string:
		seen[path] = "string"
	case json.Number:
		// A field that has a fraction once is a number, not an integer.
		if strings.ContainsAny(v.String(), ".e") {
			seen[path] = "number"
		} else if seen[path] == "" {
			seen[path] = "integer"
		}
	}
}

// DocumentedMetrics returns the metrics in docs/reference/metrics.md with their types, which TestMetricsMove compares
// with /metrics.
func DocumentedMetrics(t *testing.T, repository string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "docs/reference/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range metricRow.FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2]
	}
	return documented
}

var metricRow = regexp.MustCompile("(?m)^\\| `(walhook_[a-z_]+)` \\| ([a-z]+) \\|")
