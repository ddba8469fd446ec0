package cdc

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/condition"
)

// Name is a schema-qualified table name, exactly as the catalog spells it.
type Name struct{ Schema, Table string }

// Display returns the unquoted name, for messages.
func (n Name) Display() string { return n.Schema + "." + n.Table }

// String returns the name quoted for SQL.
func (n Name) String() string { return pgx.Identifier{n.Schema, n.Table}.Sanitize() }

// setting returns the name in the form that ParseName accepts, or "" for the zero Name.
func (n Name) setting() string {
	if n == (Name{}) {
		return ""
	}
	return quoteIfNeeded(n.Schema, `."`) + "." + quoteIfNeeded(n.Table, `."`)
}

// quoteIfNeeded quotes an identifier that contains one of the special characters or has a leading or trailing blank.
func quoteIfNeeded(identifier, special string) string {
	if strings.ContainsAny(identifier, special) || strings.TrimSpace(identifier) != identifier {
		return pgx.Identifier{identifier}.Sanitize()
	}
	return identifier
}

// Marker is a condition that shows how far a response has come, or whether a row is a response at all.
type Marker = condition.Condition

// Mapping names the tables and columns of the application that hold responses and assessments.
type Mapping struct {
	Respondent   Name
	ID           string // primary key column
	Assessment   string // column
	Organization string // column; empty: none
	Where        Marker `json:",omitzero"` // which rows are responses; zero: all
	Started      Marker
	Finished     Marker
	Stamp        Columns // of the finish stamp; empty: StampColumns decides

	AssessmentTable        Name // zero: none
	AssessmentID           string
	ExternalID             string
	CopiedFrom             string // column; empty: none
	AssessmentOrganization string // column; empty: none
	AssessmentName         string // column; empty: none
}

// HasAssessmentTable reports whether an assessment table is mapped.
func (m Mapping) HasAssessmentTable() bool { return m.AssessmentTable != Name{} }

// TableOf returns the name of a mapped table.
func (m Mapping) TableOf(t Table) Name {
	if t == Assessment {
		return m.AssessmentTable
	}
	return m.Respondent
}

// StampColumns returns the columns whose values distinguish one finish from the next: the configured ones, else the
// finished marker if it is a column alone, else none.
func (m Mapping) StampColumns() []string {
	if len(m.Stamp) == 0 && m.Finished.IsColumn() {
		return []string{m.Finished.Column}
	}
	return m.Stamp
}

// Columns are names of columns.
type Columns []string

// UnmarshalJSON also accepts one name, which is how older versions stored it.
func (c *Columns) UnmarshalJSON(text []byte) error {
	var name string
	if err := json.Unmarshal(text, &name); err == nil {
		if *c = nil; name != "" {
			*c = Columns{name}
		}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(c))
}

// setting returns the columns in the form that ParseColumns accepts.
func setting(columns []string) string {
	quoted := make([]string, len(columns))
	for i, column := range columns {
		quoted[i] = quoteIfNeeded(column, `,"`)
	}
	return strings.Join(quoted, ",")
}

// MarkerKind is one of the markers.
type MarkerKind uint8

// The markers.
const (
	WhereMarker MarkerKind = iota + 1
	StartedMarker
	FinishedMarker
)

// MappedMarker describes a marker: all that other code knows of it.
type MappedMarker struct {
	Kind     MarkerKind
	Role     string // in walhook.attachment.column_types
	Variable string
	Fires    EventType // fires when the marker is set for the first time; 0: none
	Marker             // zero: not mapped
}

// Markers returns all markers.
func (m Mapping) Markers() []MappedMarker {
	return []MappedMarker{
		{WhereMarker, "where", "WALHOOK_RESPONDENT_WHERE", 0, m.Where},
		{StartedMarker, "started", "WALHOOK_STARTED", Started, m.Started},
		{FinishedMarker, "finished", "WALHOOK_FINISHED", Completed, m.Finished},
	}
}

// RespondentColumns returns the distinct mapped columns of the respondent table, in a fixed order.
func (m Mapping) RespondentColumns() []string {
	columns := []string{m.ID, m.Assessment, m.Organization}
	for _, marker := range m.Markers() {
		columns = append(columns, marker.Columns()...)
	}
	return distinct(append(columns, m.StampColumns()...)...)
}

// AssessmentColumns returns the distinct mapped columns of the assessment table, in a fixed order.
func (m Mapping) AssessmentColumns() []string {
	return distinct(m.AssessmentID, m.ExternalID, m.CopiedFrom, m.AssessmentOrganization, m.AssessmentName)
}

func distinct(columns ...string) []string {
	var kept []string
	for _, column := range columns {
		if column != "" && !slices.Contains(kept, column) {
			kept = append(kept, column)
		}
	}
	return kept
}

// Difference is a variable whose value differs from the attached one.
type Difference struct{ Variable, Before, After string }

// Diff lists the variables that differ between the attached mapping and another one. It returns nil if they are the
// same.
func Diff(before, after Mapping) []Difference {
	settings := []Difference{
		{"WALHOOK_RESPONDENT_TABLE", before.Respondent.setting(), after.Respondent.setting()},
		{"WALHOOK_RESPONDENT_ID", before.ID, after.ID},
		{"WALHOOK_RESPONDENT_ASSESSMENT", before.Assessment, after.Assessment},
		{"WALHOOK_RESPONDENT_ORGANIZATION", before.Organization, after.Organization},
	}
	for i, marker := range before.Markers() {
		settings = append(settings, Difference{marker.Variable, marker.String(), after.Markers()[i].String()})
	}
	settings = append(settings, []Difference{
		{"WALHOOK_FINISH_STAMP", setting(before.StampColumns()), setting(after.StampColumns())},
		{"WALHOOK_ASSESSMENT_TABLE", before.AssessmentTable.setting(), after.AssessmentTable.setting()},
		{"WALHOOK_ASSESSMENT_ID", before.AssessmentID, after.AssessmentID},
		{"WALHOOK_ASSESSMENT_EXTERNAL_ID", before.ExternalID, after.ExternalID},
		{"WALHOOK_ASSESSMENT_COPIED_FROM", before.CopiedFrom, after.CopiedFrom},
		{"WALHOOK_ASSESSMENT_ORGANIZATION", before.AssessmentOrganization, after.AssessmentOrganization},
		{"WALHOOK_ASSESSMENT_NAME", before.AssessmentName, after.AssessmentName},
	}...)
	var differs []Difference
	for _, v := range settings {
		if v.Before != v.After {
			differs = append(differs, v)
		}
	}
	return differs
}

// ParseName parses a table name such as public.respondent, respondent or "Survey Data"."Respondent.v2". Names are
// case-sensitive and never folded to lower case. Quotes are only needed around a name that contains a dot or a quote,
// or that has a leading or trailing blank.
func ParseName(s, defaultSchema string) (Name, error) {
	first, rest, err := cutIdentifier(s, ".")
	if err != nil {
		return Name{}, fmt.Errorf("parse table name %q: %w", s, err)
	}
	if rest == "" {
		return Name{Schema: defaultSchema, Table: first}, nil
	}
	second, rest, err := cutIdentifier(rest[1:], ".")
	if err != nil {
		return Name{}, fmt.Errorf("parse table name %q: %w", s, err)
	}
	if rest != "" {
		return Name{}, fmt.Errorf("parse table name %q: it has more than two parts", s)
	}
	return Name{Schema: first, Table: second}, nil
}

// ParseColumn parses a column name, with or without quotes.
func ParseColumn(s string) (string, error) {
	column, _, err := cutIdentifier(s, "")
	if err != nil {
		return "", fmt.Errorf("parse column name %q: %w", s, err)
	}
	return column, nil
}

// ParseColumns parses names of columns, separated by commas. A name that contains a comma must be quoted.
func ParseColumns(s string) (Columns, error) {
	var columns Columns
	for rest := "," + s; rest != ""; {
		column, following, err := cutIdentifier(rest[1:], ",")
		if err != nil {
			return nil, fmt.Errorf("parse column names %q: %w", s, err)
		}
		columns, rest = append(columns, column), following
	}
	return distinct(columns...), nil
}

// cutIdentifier cuts an identifier off the front of s, up to one of the stop characters or the end. rest begins with
// the stop character.
func cutIdentifier(s, stops string) (name, rest string, err error) {
	s = strings.TrimSpace(s)
	if !strings.HasPrefix(s, `"`) {
		end := len(s)
		if stops != "" {
			if at := strings.IndexAny(s, stops); at >= 0 {
				end = at
			}
		}
		name, rest = strings.TrimSpace(s[:end]), s[end:]
		if strings.Contains(name, `"`) {
			return "", "", fmt.Errorf("there is a quote inside a name that is not quoted")
		}
	} else {
		var b strings.Builder
		i := 1
		for ; ; i++ {
			if i >= len(s) {
				return "", "", fmt.Errorf("a quote is not closed")
			}
			if s[i] != '"' {
				b.WriteByte(s[i])
				continue
			}
			if i+1 < len(s) && s[i+1] == '"' {
				b.WriteByte('"')
				i++
				continue
			}
			break
		}
		name, rest = b.String(), strings.TrimSpace(s[i+1:])
		if rest != "" && !strings.ContainsAny(rest[:1], stops) {
			return "", "", fmt.Errorf("unexpected %q after the closing quote", rest)
		}
	}
	switch {
	case name == "":
		return "", "", fmt.Errorf("a name is empty")
	case strings.ContainsRune(name, 0):
		return "", "", fmt.Errorf("a name holds a NUL character")
	}
	return name, rest, nil
}
