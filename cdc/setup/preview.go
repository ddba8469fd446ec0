package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

const (
	// previewRows is about how many rows a preview reads.
	previewRows = 100_000

	// previewTime bounds the reading. The server ends a statement that has sent no row for longer.
	previewTime = 30 * time.Second

	// previewLockTimeout bounds the wait for whoever has locked the table.
	previewLockTimeout = 5 * time.Second
)

// PreviewConfig configures MakePreview.
type PreviewConfig struct {
	SourceURL string
	Target    catalog.Target
	Progress  func(rows, total int64)
}

// Preview is what a mapping makes of the rows that exist. Its JSON form is documented in docs/reference/preview.md.
type Preview struct {
	Table   string          `json:"table"`
	Read    PreviewRead     `json:"read"`
	Counts  PreviewCounts   `json:"counts"`
	Markers []PreviewMarker `json:"markers"`

	Assessments   PreviewAssessments   `json:"assessments"`
	Organizations PreviewOrganizations `json:"organizations"`

	Stamp    PreviewStamp      `json:"stamp"`
	Odd      []PreviewOdd      `json:"odd"`
	Examples []PreviewExample  `json:"examples"`
	Next     []PreviewNext     `json:"next"`
	Findings []catalog.Finding `json:"findings"` // warnings, and what attach would refuse
}

// PreviewRead describes which rows were read.
type PreviewRead struct {
	Rows          int64   `json:"rows"`
	EstimatedRows int64   `json:"estimated_rows"` // of the table
	Method        string  `json:"method"`
	Stopped       string  `json:"stopped"` // why the reading ended early, or ""
	Seconds       float64 `json:"seconds"`
}

// PreviewCounts counts the rows by how far they have come.
type PreviewCounts struct {
	NoResponse  int64 `json:"no_response"`
	CreatedOnly int64 `json:"created_only"`
	Started     int64 `json:"started"` // and not finished
	Finished    int64 `json:"finished"`
}

// Responses returns how many rows are responses.
func (c PreviewCounts) Responses() int64 { return c.CreatedOnly + c.Started + c.Finished }

// PreviewAssessments counts the responses whose assessment lacks something. Everything but Table is 0 if there is none.
type PreviewAssessments struct {
	Table        string `json:"table"` // "" if none is mapped
	Rows         int64  `json:"rows"`  // of the table, as far as they were read
	Unknown      int64  `json:"unknown"`
	NoExternalID int64  `json:"no_external_id"`
	NoName       int64  `json:"no_name"`
}

// PreviewOrganizations counts the responses by where their organization comes from.
type PreviewOrganizations struct {
	Mapped       bool  `json:"mapped"`
	Own          int64 `json:"own"`
	OfAssessment int64 `json:"of_assessment"`
	None         int64 `json:"none"`
}

// PreviewMarker shows the values of a marker's columns.
type PreviewMarker struct {
	Variable  string          `json:"variable"`
	Condition string          `json:"condition"`
	Columns   []PreviewColumn `json:"columns"`
}

// PreviewColumn shows a column's most frequent values. Only responses count, unless the marker decides which rows are.
type PreviewColumn struct {
	Column      string         `json:"column"`
	Type        string         `json:"type"`
	Values      []PreviewValue `json:"values"`
	OtherValues int64          `json:"other_values"` // how many further values there are
	OtherRows   int64          `json:"other_rows"`   // how many rows have them
	OtherSet    int64          `json:"other_set"`    // for how many of these rows the condition is true
}

// PreviewValue is a column's value.
type PreviewValue struct {
	Value *string `json:"value"` // nil: NULL; long ones are truncated
	Rows  int64   `json:"rows"`
	Set   int64   `json:"set"` // for how many of them the condition is true
}

// PreviewStamp shows the finish stamps of finished responses.
type PreviewStamp struct {
	Columns  []string `json:"columns"`
	Finished int64    `json:"finished"`
	Null     int64    `json:"null"`
	Distinct int64    `json:"distinct"`
	Shared   int64    `json:"shared"` // have the stamp of another one
	Most     int64    `json:"most"`   // have the most frequent stamp
	Warning  string   `json:"warning"`
}

// PreviewOdd counts responses that a mapping is rarely meant to have.
type PreviewOdd struct {
	What string   `json:"what"` // a name that does not change between versions
	Rows int64    `json:"rows"`
	IDs  []string `json:"ids"` // some of them
}

// PreviewExample is a row of a kind.
type PreviewExample struct {
	Kind    string        `json:"kind"` // a name of PreviewCounts
	ID      string        `json:"id"`
	Columns []PreviewCell `json:"columns"` // the mapped ones

	Organization   *string `json:"organization"`    // nil: none
	AssessmentName *string `json:"assessment_name"` // nil: none, or none is mapped
}

// PreviewCell is a value of an example.
type PreviewCell struct {
	Column string  `json:"column"`
	Value  *string `json:"value"` // nil: NULL; long ones are truncated
}

// PreviewNext is what a write to a row of a kind would fire.
type PreviewNext struct {
	Kind  string   `json:"kind"`
	Write string   `json:"write"`
	Fires []string `json:"fires"`
}

// UnreadableError reports why the rows cannot be read with the mapping.
type UnreadableError struct{ Findings []catalog.Finding }

func (e *UnreadableError) Error() string {
	return "the rows cannot be read with this mapping: " + catalog.FormatFindings(e.Findings)
}

// errEnough ends reading early, without an error.
var errEnough = errors.New("enough rows were read")

// MakePreview reads a bounded number of the existing rows and evaluates the mapping on them, as attach does. It changes
// nothing, and only needs SELECT on the mapped columns.
func MakePreview(ctx context.Context, cfg PreviewConfig) (*Preview, error) {
	source, err := catalog.ConnectSource(ctx, cfg.SourceURL)
	if err != nil {
		return nil, err
	}
	defer catalog.CloseQuietly(source)
	preflight, err := catalog.InspectTables(ctx, source, cfg.Target)
	if err != nil {
		return nil, err
	}
	if err := preflight.CheckMapping(); err != nil {
		return nil, err
	}
	if unreadable := slices.DeleteFunc(preflight.Refusals(), isAboutChanges); len(unreadable) > 0 {
		return nil, &UnreadableError{unreadable}
	}
	t := newTally(cfg.Target.Mapping, preflight.Respondent)
	if preflight.Assessment != nil {
		if t.assessments, err = readAssessments(ctx, cfg, preflight.Assessment); err != nil {
			return nil, err
		}
	}
	read, err := readSample(ctx, source, t, previewTime, cfg.Progress)
	if err != nil {
		return nil, err
	}
	p := t.preview()
	p.Table, p.Read = preflight.Respondent.Name.Display(), read
	isOK := func(f catalog.Finding) bool { return f.Level == catalog.OK }
	p.Findings = append(slices.DeleteFunc(slices.Clone(preflight.Findings), isOK), t.missingValues()...)
	return p, nil
}

// readAssessments reads a bounded number of assessments, on a connection of its own.
func readAssessments(ctx context.Context, cfg PreviewConfig, table *catalog.Table) (map[string]cdc.Row, error) {
	source, err := catalog.ConnectSource(ctx, cfg.SourceURL)
	if err != nil {
		return nil, err
	}
	defer catalog.CloseQuietly(source)
	if err := beginReading(ctx, source, previewTime); err != nil {
		return nil, err
	}
	m := cfg.Target.Mapping
	statements, err := catalog.CopyOutSQL(ctx, source, m.AssessmentTable, m.AssessmentColumns())
	if err != nil {
		return nil, explainTimeout(err)
	}
	read, assessments := catalog.NewAssessmentReader(m, table), map[string]cdc.Row{}
	take := func(fields []cdc.Text) error {
		if len(assessments) >= previewRows {
			return errEnough
		}
		if row, identified := read(fields); identified {
			row.Name = row.Name.DisplayName("UTF8")
			assessments[row.ID] = row
		}
		return nil
	}
	err = catalog.ScanRows(ctx, source, m.AssessmentTable, m.AssessmentColumns(), statements, take, func(int64) {})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, explainTimeout(err)
	}
	return assessments, nil
}

// readSample counts a bounded number of rows for no longer than limit. The connection cannot be used afterwards.
func readSample(
	ctx context.Context, source *pgx.Conn, t *tally, limit time.Duration, progress func(rows, total int64),
) (PreviewRead, error) {
	if err := beginReading(ctx, source, limit); err != nil {
		return PreviewRead{}, err
	}
	sample, err := catalog.SampleSQL(ctx, source, t.table, t.columns, previewRows)
	if err != nil {
		return PreviewRead{}, explainTimeout(err)
	}
	read := PreviewRead{EstimatedRows: int64(sample.Rows), Method: sample.Method}
	total := int64(min(sample.Rows, previewRows))
	began := time.Now()
	err = catalog.ScanRows(ctx, source, t.mapping.Respondent, t.columns, sample.Statements, func(fields []cdc.Text) error {
		switch {
		case sample.Method == catalog.SampleBeginning && t.rows >= previewRows, t.rows >= 2*previewRows:
			read.Stopped = fmt.Sprintf("after %d rows", t.rows)
			return errEnough
		case time.Since(began) > limit:
			read.Stopped = fmt.Sprintf("after %s", limit)
			return errEnough
		}
		return t.add(fields)
	}, func(rows int64) { progress(rows, total) })
	if err != nil && !errors.Is(err, errEnough) {
		return PreviewRead{}, explainTimeout(err)
	}
	if read.Rows, read.Seconds = t.rows, time.Since(began).Seconds(); read.Method == catalog.SampleAll && read.Stopped == "" {
		read.EstimatedRows = t.rows // which is exact
	}
	return read, nil
}

// explainTimeout adds what to do if a timeout of beginReading has expired.
func explainTimeout(err error) error {
	switch cdc.SQLState(err) {
	case pgerrcode.LockNotAvailable:
		return fmt.Errorf("somebody has locked the table; try again later: %w", err)
	case pgerrcode.QueryCanceled:
		return fmt.Errorf("the server took too long; try again when it is less busy: %w", err)
	}
	return err
}

// isAboutChanges reports whether a finding only matters for the stream, so that the rows can be read nevertheless.
func isAboutChanges(f catalog.Finding) bool {
	return f.Check == "primary_key" || f.Check == "replica_identity"
}

// beginReading begins a transaction whose statements time out.
func beginReading(ctx context.Context, source *pgx.Conn, limit time.Duration) error {
	for _, statement := range []string{
		fmt.Sprintf("set statement_timeout = %d", (limit + previewLockTimeout).Milliseconds()),
		fmt.Sprintf("set lock_timeout = %d", previewLockTimeout.Milliseconds()),
		"begin isolation level repeatable read read only",
	} {
		if _, err := source.Exec(ctx, statement); err != nil {
			return fmt.Errorf("begin to read the rows: %w", err)
		}
	}
	return nil
}
