package cdc

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Roles of the mapped columns, as walhook.attachment.column_types has them.
const (
	roleKey          = "key"
	roleAssessment   = "assessment"
	roleOrganization = "organization"
	roleStamp        = "stamp"
)

// ColumnTypes are the types of the mapped columns by their roles.
type ColumnTypes map[string]ColumnType

type mappedColumn struct {
	role, column string
	table        *TableInfo
}

// mappedColumns are the mapped columns of the tables; assessment may be nil.
func mappedColumns(m Mapping, respondent, assessment *TableInfo) []mappedColumn {
	columns := []mappedColumn{
		{roleKey, m.ID, respondent},
		{roleAssessment, m.Assessment, respondent},
		{roleOrganization, m.Organization, respondent},
		{"started", m.Started.Column, respondent},
		{"finished", m.Finished.Column, respondent},
		{roleStamp, m.StampColumn(), respondent},
	}
	if assessment != nil {
		columns = append(columns, mappedColumn{"assessment_key", m.AssessmentID, assessment},
			mappedColumn{"external_id", m.ExternalID, assessment}, mappedColumn{"copied_from", m.CopiedFrom, assessment})
	}
	return slices.DeleteFunc(columns, func(c mappedColumn) bool { return c.column == "" })
}

// columnTypesOf returns the types as the catalog has them.
func columnTypesOf(m Mapping, respondent, assessment *TableInfo) ColumnTypes {
	types := ColumnTypes{}
	for _, c := range mappedColumns(m, respondent, assessment) {
		types[c.role] = c.table.typeOf(c.column)
	}
	return types
}

// json returns the types as the store keeps them.
func (t ColumnTypes) json() ([]byte, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("record the types of the mapped columns: %w", err)
	}
	return text, nil
}
