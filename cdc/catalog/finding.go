package catalog

import (
	"slices"
	"strings"
)

// Level grades a Finding.
type Level string

// The levels of a Finding.
const (
	OK   Level = "ok"
	Warn Level = "warn"
	Fail Level = "fail"
)

// Finding is the result of one check, and the remedy unless its level is ok.
type Finding struct {
	Check  string `json:"check"` // stable name, such as replica_identity
	Level  Level  `json:"level"`
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`

	NotFound bool `json:"-"` // the object that a variable names does not exist
	Right    bool `json:"-"` // the role lacks a right, which the script of a plan grants
}

// FormatFindings joins findings and their remedies in one line.
func FormatFindings(findings []Finding) string {
	texts := make([]string, len(findings))
	for i, f := range findings {
		texts[i] = f.Found
		again := slices.ContainsFunc(findings[i+1:], func(later Finding) bool { return later.Remedy == f.Remedy })
		switch {
		case f.Remedy == "" || again: // a shared remedy follows the last of its findings
		case strings.Contains(f.Found, "\n"):
			texts[i] += "\n" + f.Remedy
		default:
			texts[i] += " (" + f.Remedy + ")"
		}
	}
	return strings.Join(texts, "; ")
}
