package main

import (
	"os"
	"strings"
	"testing"
)

// The README's table of variables is the one that the program knows.
func TestReadmeHasTheEnvironment(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if table := environmentTable(); !strings.Contains(string(readme), table) {
		t.Errorf("README.md does not contain the table of variables as the program renders it:\n%s", table)
	}
}
