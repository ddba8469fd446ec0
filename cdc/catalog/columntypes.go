package catalog

import (
	"encoding/json"
	"fmt"
	"slices"

	"walhook/cdc"
)

// Roles of the mapped columns, as in walhook.attachment.column_types.
const (
	RoleKey          = "key"
	RoleAssessment   = "assessment"
	roleOrganization = "organization"
	roleStamp        = "stamp"
)

// ColumnTypes maps the roles of the mapped columns to their types.
type ColumnTypes map[string]cdc.ColumnType

// MappedColumn is a mapped column of a table.
type MappedColumn struct {
	Role, Column string
	Table        *Table
}

// MappedColumns returns the mapped columns of the tables; assessment may be nil.
func MappedColumns(m cdc.Mapping, respondent, assessment *Table) []MappedColumn {
	columns := []MappedColumn{
		{RoleKey, m.ID, respondent},
		{RoleAssessment, m.Assessment, respondent},
		{roleOrganization, m.Organization, respondent},
	}
	for _, marker := range m.Markers() {
		for _, column := range marker.Columns() {
			role := marker.Role
			if marker.Expression != "" {
				role += " by " + column
			}
			columns = append(columns, MappedColumn{role, column, respondent})
		}
	}
	for i, role := range StampRoles(m) {
		columns = append(columns, MappedColumn{role, m.StampColumns()[i], respondent})
	}
	if assessment != nil {
		columns = append(columns,
			MappedColumn{"assessment_key", m.AssessmentID, assessment},
			MappedColumn{"external_id", m.ExternalID, assessment},
			MappedColumn{"copied_from", m.CopiedFrom, assessment},
			MappedColumn{"assessment_organization", m.AssessmentOrganization, assessment},
			MappedColumn{"assessment_name", m.AssessmentName, assessment})
	}
	return slices.DeleteFunc(columns, func(c MappedColumn) bool { return c.Column == "" })
}

// StampRoles returns the roles of the finish stamp's columns.
func StampRoles(m cdc.Mapping) []string {
	columns := m.StampColumns()
	if len(columns) == 1 {
		return []string{roleStamp}
	}
	roles := make([]string, len(columns))
	for i, column := range columns {
		roles[i] = roleStamp + " by " + column
	}
	return roles
}

// ColumnTypesOf returns the types of the mapped columns.
func ColumnTypesOf(m cdc.Mapping, respondent, assessment *Table) ColumnTypes {
	types := ColumnTypes{}
	for _, c := range MappedColumns(m, respondent, assessment) {
		types[c.Role] = c.Table.columnType(c.Column)
	}
	return types
}

// JSON returns the types as the store records them.
func (t ColumnTypes) JSON() ([]byte, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("record the types of the mapped columns: %w", err)
	}
	return text, nil
}
