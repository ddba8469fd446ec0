package catalog

import (
	"encoding/json"
	"fmt"

	"walhook/cdc"
	"walhook/cdc/condition"
)

// StateColumns are the columns that StateConverter writes.
const StateColumns = "(response_id, assessment_id, organization_id, stamp, flags)"

// StateConverter converts the mapped columns of a respondent to a state that has fired nothing.
func StateConverter(m cdc.Mapping, t *Table, key *cdc.StampKey) func([]byte, []cdc.Text) ([]byte, error) {
	row := NewRowReader(m, t, key)
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

// SnapshotConverter is StateConverter for a reconciliation. With values, it appends the values behind the stamps, as
// JSON.
func SnapshotConverter(
	m cdc.Mapping, t *Table, key *cdc.StampKey, values bool,
) func([]byte, []cdc.Text) ([]byte, error) {
	row := NewRowReader(m, t, key)
	return func(dst []byte, fields []cdc.Text) ([]byte, error) {
		r, err := row(fields)
		if err != nil {
			return dst, err
		}
		dst = append(AppendState(dst, r.ID, cdc.InitialState(r)), '\t')
		if !values {
			return appendCopyNull(dst), nil
		}
		known := make([]*string, len(r.Stamps))
		for i, stamp := range r.Stamps {
			if value := stamp.Value.Text; !stamp.Stored.Null && len(value) <= maxStagedStamp {
				known[i] = &value
			}
		}
		text, err := json.Marshal(known)
		return AppendCopyField(dst, string(text)), err
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
func NewRowReader(m cdc.Mapping, t *Table, key *cdc.StampKey) func(fields []cdc.Text) (cdc.Row, error) {
	at := map[string]int{}
	for i, column := range m.RespondentColumns() {
		at[column] = i
	}
	stamps := m.StampColumns()
	stampTypes := make([]cdc.ColumnType, len(stamps))
	for i, column := range stamps {
		stampTypes[i] = t.columnType(column)
	}
	var markers []func(*cdc.Row, []cdc.Text) error
	for _, marker := range m.Markers() {
		if !marker.IsZero() {
			markers = append(markers, bindMarker(marker, t, at))
		}
	}
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
			Stamps: cdc.NewStamps(len(stamps), key, func(i int) (cdc.Text, cdc.ColumnType) {
				return fields[at[stamps[i]]], stampTypes[i]
			}),
		}
		for _, marker := range markers {
			if err := marker(&row, fields); err != nil {
				return cdc.Row{}, err
			}
		}
		row.Assessment.Value = assessment.CanonicalID(row.Assessment.Value)
		if m.Organization != "" {
			row.Organization = fields[at[m.Organization]]
			row.Organization.Value = organization.CanonicalID(row.Organization.Value)
		}
		return row, nil
	}
}

// bindMarker returns a function that evaluates a marker on a row's fields; at has the indexes of the columns.
func bindMarker(m cdc.MappedMarker, t *Table, at map[string]int) func(*cdc.Row, []cdc.Text) error {
	bound, err := m.Bind(t.Types)
	if err != nil {
		return func(*cdc.Row, []cdc.Text) error { return fmt.Errorf("%s: %w", m.Variable, err) }
	}
	return func(row *cdc.Row, fields []cdc.Text) error {
		truth, err := bound.Eval(func(column int) condition.Text {
			return condition.Text(fields[at[bound.Columns()[column]]])
		})
		if err != nil {
			return fmt.Errorf("evaluate %s on a row of %s: %w", m.Variable, t.Name.Display(), err)
		}
		row.SetMark(m.Kind, cdc.MarkOf(truth))
		return nil
	}
}

// AssessmentColumns are the columns that AssessmentConverter writes without copies.
const AssessmentColumns = "(assessment_id, external_id, organization_id, name)"

// AssessmentConverter converts the mapped columns of an assessment to what the store keeps of it and, with copies, the
// assessment that it was copied from.
func AssessmentConverter(
	m cdc.Mapping, t *Table, storeEncoding string, copies bool,
) func([]byte, []cdc.Text) ([]byte, error) {
	read := NewAssessmentReader(m, t)
	return func(dst []byte, fields []cdc.Text) ([]byte, error) {
		row, identified := read(fields)
		if !identified {
			return dst, nil
		}
		dst = AppendCopyField(dst, row.ID)
		values := []cdc.Text{row.ExternalID, row.Organization, row.Name.DisplayName(storeEncoding)}
		if copies {
			values = append(values, row.CopiedFrom)
		}
		for _, value := range values {
			dst = append(dst, '\t')
			if value.Null {
				dst = appendCopyNull(dst)
			} else {
				dst = AppendCopyField(dst, value.Value)
			}
		}
		return dst, nil
	}
}

// NewAssessmentReader returns a function that converts the fields of AssessmentColumns to the Row that the decoder would
// return, and reports whether it has a key.
func NewAssessmentReader(m cdc.Mapping, t *Table) func(fields []cdc.Text) (row cdc.Row, identified bool) {
	at := map[string]int{}
	for i, column := range m.AssessmentColumns() {
		at[column] = i
	}
	return func(fields []cdc.Text) (cdc.Row, bool) {
		text := func(column string) cdc.Text {
			if column == "" {
				return cdc.Text{Null: true}
			}
			return fields[at[column]]
		}
		id := func(column string) cdc.Text {
			value := text(column)
			value.Value = t.columnType(column).CanonicalID(value.Value)
			return value
		}
		key := id(m.AssessmentID)
		return cdc.Row{
			ID: key.Value, ExternalID: text(m.ExternalID).Trimmed(), Organization: id(m.AssessmentOrganization),
			Name: text(m.AssessmentName), CopiedFrom: id(m.CopiedFrom).Trimmed(),
		}, !key.Null
	}
}

func nilIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
