package catalog

import (
	"fmt"
	"slices"
	"strings"

	"walhook/cdc"
)

// StateColumns are the columns that StateConverter writes.
const StateColumns = "(response_id, assessment_id, organization_id, stamp, flags)"

// StateConverter converts the mapped columns of a respondent to a state that has fired nothing.
func StateConverter(m cdc.Mapping, t *Table) func([]byte, []cdc.Text) ([]byte, error) {
	row := NewRowReader(m, t)
	return func(dst []byte, fields []cdc.Text) ([]byte, error) {
		r, err := row(fields)
		if err != nil {
			return dst, err
		}
		return AppendState(dst, r.ID, cdc.InitialState(r)), nil
	}
}

// maxStagedStamp is the longest stamp whose value a reconciliation stages. It lives as long as the transaction.
const maxStagedStamp = 256

// SnapshotConverter is StateConverter for a reconciliation. With values, it appends the value behind each stamp.
func SnapshotConverter(m cdc.Mapping, t *Table, values bool) func([]byte, []cdc.Text) ([]byte, error) {
	row := NewRowReader(m, t)
	return func(dst []byte, fields []cdc.Text) ([]byte, error) {
		r, err := row(fields)
		if err != nil {
			return dst, err
		}
		dst = append(AppendState(dst, r.ID, cdc.InitialState(r)), '\t')
		if value := r.StampValue.Text; values && !r.Stamp.Null && len(value) <= maxStagedStamp {
			return AppendCopyField(dst, value), nil
		}
		return appendCopyNull(dst), nil
	}
}

// AppendState appends a state as a line of COPY's text format, without the newline.
func AppendState(dst []byte, id string, s cdc.State) []byte {
	dst = AppendCopyField(dst, id)
	for _, value := range []*string{s.AssessmentID, s.OrganizationID, nilIfEmpty(s.Stamp)} {
		dst = append(dst, '\t')
		if value == nil {
			dst = appendCopyNull(dst)
		} else {
			dst = AppendCopyField(dst, *value)
		}
	}
	dst = append(dst, '\t')
	return fmt.Appendf(dst, "%d", s.Flags())
}

// NewRowReader returns a function that converts the fields of RespondentColumns to the Row that the decoder would
// return.
func NewRowReader(m cdc.Mapping, t *Table) func(fields []cdc.Text) (cdc.Row, error) {
	at := map[string]int{}
	for i, column := range m.RespondentColumns() {
		at[column] = i
	}
	stamp := m.StampColumn()
	markers := slices.DeleteFunc(m.Markers(), func(m cdc.MappedMarker) bool { return m.Column == "" })
	assessment, organization := t.columnType(m.Assessment), t.columnType(m.Organization)
	return func(fields []cdc.Text) (cdc.Row, error) {
		id := fields[at[m.ID]]
		if id.Null {
			return cdc.Row{}, fmt.Errorf("a row of %s has no %s", t.Name.Display(), m.ID)
		}
		row := cdc.Row{
			ID:           id.Value,
			Assessment:   fields[at[m.Assessment]],
			Organization: cdc.Text{Null: true},
			Stamp:        cdc.Text{Null: true},
		}
		for _, marker := range markers {
			row.SetMark(marker.Kind, marker.Mark(fields[at[marker.Column]], t.Columns[marker.Column]))
		}
		row.Assessment.Value = assessment.CanonicalID(row.Assessment.Value)
		if m.Organization != "" {
			row.Organization = fields[at[m.Organization]]
			row.Organization.Value = organization.CanonicalID(row.Organization.Value)
		}
		if stamp != "" {
			if row.Stamp = fields[at[stamp]]; !row.Stamp.Null {
				row.StampValue = cdc.StampValue{Text: row.Stamp.Value, Type: t.columnType(stamp)}
				row.Stamp.Value = row.StampValue.Type.EncodeStamp(row.StampValue.Text)
			}
		}
		return row, nil
	}
}

// AssessmentColumns are the columns that AssessmentConverter writes without copies.
const AssessmentColumns = "(assessment_id, external_id)"

// AssessmentConverter converts the mapped columns of an assessment to its id and external id and, with copies, to the
// assessment that it was copied from.
func AssessmentConverter(m cdc.Mapping, t *Table, copies bool) func([]byte, []cdc.Text) ([]byte, error) {
	at := map[string]int{}
	for i, column := range m.AssessmentColumns() {
		at[column] = i
	}
	appendText := func(dst []byte, value cdc.Text) []byte {
		trimmed := strings.TrimSpace(value.Value)
		if value.Null || trimmed == "" {
			return appendCopyNull(dst)
		}
		return AppendCopyField(dst, trimmed)
	}
	return func(dst []byte, fields []cdc.Text) ([]byte, error) {
		id := fields[at[m.AssessmentID]]
		if id.Null {
			return dst, nil
		}
		dst = append(AppendCopyField(dst, t.columnType(m.AssessmentID).CanonicalID(id.Value)), '\t')
		dst = appendText(dst, fields[at[m.ExternalID]])
		if !copies {
			return dst, nil
		}
		dst = append(dst, '\t')
		if m.CopiedFrom == "" {
			return appendCopyNull(dst), nil
		}
		from := fields[at[m.CopiedFrom]]
		from.Value = t.columnType(m.CopiedFrom).CanonicalID(from.Value)
		return appendText(dst, from), nil
	}
}

func nilIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
