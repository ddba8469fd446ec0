package catalog

import "walhook/cdc"

const (
	respondentOID = 16385
	assessmentOID = 16390
	otherOID      = 16400
)

var testMapping = cdc.Mapping{
	Respondent: cdc.Name{
		Schema: "public", Table: "respondent",
	}, ID: "id", Assessment: "assessment_id", Organization: "organization_id",
	Started: cdc.Marker{
		Column: "started_at",
	}, Finished: cdc.Marker{Column: "status", Values: []string{"done"}}, Stamp: cdc.Columns{"finished_at"},
	AssessmentTable: cdc.Name{
		Schema: "public", Table: "assessment",
	}, AssessmentID: "id", ExternalID: "external_id", CopiedFrom: "copied_from",
}

var null = cdc.Text{Null: true}

func text(value string) cdc.Text { return cdc.Text{Value: value} }
