package main

import (
	"os"
	"strings"
	"testing"
)

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
