package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"walhook/testenv"
)

// The README's recipe for checking a signature prints the one that the README shows.
func TestReadmeSignature(t *testing.T) {
	t.Parallel()
	testenv.Program(t, "openssl")
	const file = "../../README.md"
	shown := regexp.MustCompile(`(?m)^    webhook-signature: (v1,\S+)$`).FindStringSubmatch(textsOf(t, file)["The request"])
	if shown == nil {
		t.Fatal("README.md shows no signature")
	}
	out, err := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", openPage(t, file).script()).CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != shown[1] {
		t.Errorf("the recipe prints %s and not %s: %v", got, shown[1], err)
	}
}

func TestReadmeHasTheEnvironmentTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), environmentTable()) {
		t.Errorf("README.md lacks the environment table; it must hold:\n%s", environmentTable())
	}
}

// Every field of Config is documented, and nothing else is.
func TestVariablesAreThoseOfConfig(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("config.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "`envconfig:\""); n != len(variables) {
		t.Errorf("Config has %d variables and %d are documented", n, len(variables))
	}
	for _, v := range variables {
		if !strings.Contains(string(text), "`envconfig:\""+v.name+"\"") {
			t.Errorf("Config has no %s", v.name)
		}
	}
}
