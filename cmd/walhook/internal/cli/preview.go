package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"walhook/cdc/catalog"
	"walhook/cdc/setup"
)

func newPreviewCommand(env *Environment) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "preview",
		Short: "Show what the mapping makes of the rows that exist; changes nothing",
		Long: `Reads the existing rows with the mapping of the WALHOOK_ variables, and shows what attach would make of them: how many are not
responses, only created, started or finished; the most frequent values of each marker's columns, and whether they count as set;
finish stamps that are NULL or shared; rows that look wrong; some rows of each kind; and what the next writes would fire.

It changes nothing, and needs neither a store nor a slot: SELECT on the mapped columns is enough. It reads for at most 30
seconds, and of a large table only about 100,000 rows. It says which share that is. All counts are of the rows that were read.

The output contains ids and values of the mapped columns; long values are truncated.

--json prints one object, which docs/reference/preview.md describes.`,
		Example: "  WALHOOK_STARTED=page WALHOOK_FINISHED='status=done|closed' WALHOOK_FINISH_STAMP=submitted_at walhook preview",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.config()
			if err != nil {
				return err
			}
			var bar *progress
			p, err := setup.MakePreview(cmd.Context(), setup.PreviewConfig{
				SourceURL: cfg.sourceURL(), Target: cfg.target(),
				Progress: func(rows, total int64) {
					if bar == nil {
						bar = newProgress(cmd.ErrOrStderr(), "reading rows", total)
					}
					bar.Set(rows)
				},
			})
			if bar != nil {
				bar.Done()
			}
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(p)
			}
			return (&previewPrinter{w: cmd.OutOrStdout(), preview: p}).print()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// kindNames are the printed names of the kinds of rows.
var kindNames = map[string]string{
	"no_response": "no response", "created_only": "created only", "started": "started", "finished": "finished",
}

// oddNames describe the kinds of odd rows.
var oddNames = map[string]string{
	"finished_before_started": "finished before started",
	"finished_not_started":    "finished but not started: response.completed fires without response.started",
	"no_assessment":           "without an assessment: only webhooks for any assessment could match",
	"stamp_without_finish":    "with a finish stamp but not finished: reopened, or other writes set the stamp too",
}

type previewPrinter struct {
	w       io.Writer
	preview *setup.Preview
}

func (p *previewPrinter) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

// table prints rows of cells in aligned columns.
func (p *previewPrinter) table(rows [][]string) error {
	w := tabwriter.NewWriter(p.w, 0, 0, 2, ' ', 0)
	for _, cells := range rows {
		fmt.Fprintln(w, "  "+strings.Join(cells, "\t"))
	}
	return w.Flush()
}

func (p *previewPrinter) print() error {
	p.line("%s", p.source())
	if p.preview.Read.Rows == 0 {
		p.findings()
		return nil
	}
	p.line("")
	for _, print := range []func() error{p.counts, p.markers, p.stamp, p.assessments, p.organizations, p.odd, p.examples, p.next} {
		if err := print(); err != nil {
			return err
		}
	}
	p.findings()
	return nil
}

// source describes which rows were read.
func (p *previewPrinter) source() string {
	read := p.preview.Read
	var how string
	switch {
	case read.Method == catalog.SamplePages:
		how = fmt.Sprintf("a sample of %d of about %d rows was read, from pages chosen at random (%.3g %%)",
			read.Rows, read.EstimatedRows, 100*float64(read.Rows)/float64(max(read.EstimatedRows, 1)))
	case read.Method == catalog.SampleBeginning:
		how = fmt.Sprintf("of about %d rows, the first %d in storage order were read. An index, extended statistics or the partition key calls a function "+
			"or an operator that is not PostgreSQL's own, which choosing pages at random would run", read.EstimatedRows, read.Rows)
	case read.Stopped != "":
		how = fmt.Sprintf("%d of about %d rows were read", read.Rows, read.EstimatedRows)
	case read.Rows == 0:
		how = "it has no rows"
	case read.Rows == 1:
		how = "its only row was read"
	default:
		how = fmt.Sprintf("all %d rows were read", read.Rows)
	}
	if read.Stopped != "" {
		how += "; reading stopped " + read.Stopped
	}
	return fmt.Sprintf("Table %s: %s.", p.preview.Table, how)
}

// counted returns a number with its unit.
func counted(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// of returns a share of the rows that were read.
func of(rows, all int64) string {
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f %%", 100*float64(rows)/float64(all))
}

func (p *previewPrinter) counts() error {
	c, all := p.preview.Counts, p.preview.Read.Rows
	p.line("Rows:")
	var rows [][]string
	for _, kind := range []struct {
		name string
		rows int64
	}{{"no_response", c.NoResponse}, {"created_only", c.CreatedOnly}, {"started", c.Started}, {"finished", c.Finished}} {
		if kind.name == "no_response" && kind.rows == 0 && !p.filtered() {
			continue
		}
		rows = append(rows, []string{kindNames[kind.name], fmt.Sprint(kind.rows), of(kind.rows, all)})
	}
	return p.table(rows)
}

// filtered reports whether a condition decides which rows are responses.
func (p *previewPrinter) filtered() bool {
	return p.preview.Markers[0].Variable == "WALHOOK_RESPONDENT_WHERE"
}

// markers shows the values of the markers' columns.
func (p *previewPrinter) markers() error {
	for _, marker := range p.preview.Markers {
		whole, yes, no := "of the responses", "set", "not set"
		if marker.Variable == "WALHOOK_RESPONDENT_WHERE" {
			whole, yes, no = "of all rows", "a response", "no response"
		}
		verdict := func(rows, set int64) string {
			switch set {
			case 0:
				return no
			case rows:
				return yes
			}
			return fmt.Sprintf("%s in %d", yes, set)
		}
		for _, column := range marker.Columns {
			if len(column.Values) == 0 && column.OtherRows == 0 {
				continue
			}
			p.line("")
			p.line("%s=%s, values of %s (%s) %s:", marker.Variable, oneLine(marker.Condition, shortLine), column.Column, column.Type, whole)
			var rows [][]string
			for _, v := range column.Values {
				rows = append(rows, []string{cell(v.Value), fmt.Sprint(v.Rows), verdict(v.Rows, v.Set)})
			}
			if column.OtherRows > 0 {
				rows = append(rows, []string{
					counted(column.OtherValues, "other value", "other values"), fmt.Sprint(column.OtherRows),
					verdict(column.OtherRows, column.OtherSet),
				})
			}
			if err := p.table(rows); err != nil {
				return err
			}
		}
	}
	return nil
}

// cell formats a value: text in quotes, so that NULL and the empty string differ.
func cell(value *string) string {
	if value == nil {
		return "NULL"
	}
	return "'" + *value + "'"
}

func (p *previewPrinter) stamp() error {
	s := p.preview.Stamp
	p.line("")
	if len(s.Columns) == 0 {
		p.line("Finish stamp: none.")
		return nil
	}
	if s.Finished == 0 {
		p.line("Finish stamp %s: no response is finished.", strings.Join(s.Columns, ", "))
		return nil
	}
	p.line("Finish stamp %s, of %s:", strings.Join(s.Columns, ", "), counted(s.Finished, "finished response", "finished responses"))
	err := p.table([][]string{
		{"NULL", fmt.Sprint(s.Null)},
		{"different stamps", fmt.Sprint(s.Distinct)},
		{"share a stamp with others", fmt.Sprint(s.Shared)},
		{"have the most frequent one", fmt.Sprint(s.Most)},
	})
	if s.Warning != "" {
		p.line("  warn: %s", s.Warning)
	}
	return err
}

func (p *previewPrinter) assessments() error {
	a := p.preview.Assessments
	if a.Table == "" {
		return nil
	}
	p.line("")
	p.line("Assessments in %s, %s; of the responses:", a.Table, counted(a.Rows, "row", "rows"))
	return p.table([][]string{
		{"no such assessment", fmt.Sprint(a.Unknown)},
		{"no external id, so only webhooks for their assessment match", fmt.Sprint(a.NoExternalID)},
		{"no name in WALHOOK_ASSESSMENT_NAME", fmt.Sprint(a.NoName)},
	})
}

func (p *previewPrinter) organizations() error {
	o := p.preview.Organizations
	if !o.Mapped {
		return nil
	}
	p.line("")
	p.line("Organization of the responses:")
	return p.table([][]string{
		{"their own", fmt.Sprint(o.Own)}, {"that of their assessment", fmt.Sprint(o.OfAssessment)}, {"none", fmt.Sprint(o.None)},
	})
}

func (p *previewPrinter) odd() error {
	if len(p.preview.Odd) == 0 {
		return nil
	}
	p.line("")
	p.line("Odd rows:")
	for _, odd := range p.preview.Odd {
		ids := strings.Join(odd.IDs, ", ")
		if int64(len(odd.IDs)) < odd.Rows {
			ids = "such as " + ids
		}
		p.line("  %d %s (%s)", odd.Rows, oddNames[odd.What], ids)
	}
	return nil
}

func (p *previewPrinter) examples() error {
	if len(p.preview.Examples) == 0 {
		return nil
	}
	p.line("")
	p.line("Some rows:")
	for _, example := range p.preview.Examples {
		cells := make([]string, len(example.Columns))
		for i, c := range example.Columns {
			cells[i] = c.Column + " " + cell(c.Value)
		}
		if p.preview.Organizations.Mapped {
			cells = append(cells, "organization "+cell(example.Organization))
		}
		if p.preview.Assessments.Table != "" && example.AssessmentName != nil {
			cells = append(cells, "assessment's name "+cell(example.AssessmentName))
		}
		p.line("  %-12s  %s: %s", kindNames[example.Kind], example.ID, strings.Join(cells, ", "))
	}
	return nil
}

func (p *previewPrinter) next() error {
	if len(p.preview.Next) == 0 {
		return nil
	}
	p.line("")
	p.line("What the next write to such a row would fire:")
	var rows [][]string
	for _, next := range p.preview.Next {
		fires := strings.Join(next.Fires, ", ")
		if fires == "" {
			fires = "nothing"
		}
		rows = append(rows, []string{kindNames[next.Kind], next.Write, fires})
	}
	return p.table(rows)
}

// findings lists warnings, and what attach would refuse.
func (p *previewPrinter) findings() {
	for i, f := range p.preview.Findings {
		if i == 0 {
			p.line("")
		}
		level := string(f.Level)
		if f.Level == catalog.Fail {
			level = "attach would refuse"
		}
		p.line("%s: %s", level, f.Found)
		p.line("  -> %s", f.Remedy)
	}
}
