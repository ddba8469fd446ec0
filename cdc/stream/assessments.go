package stream

import (
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/sql"
)

// assessments collects consecutive changes of the assessment table, without an event between them, so that a bulk
// import is one statement.
type assessments struct {
	storeEncoding string
	rows          map[string]cdc.Row // by assessment id; what a row leaves unchanged is as the store has it
	deleted       []string
	originals,
	copies []string // assessments inserted as copies, beside the originals that they were copied from
}

// add adds a change. It queues rare operations at once, after everything that was collected before.
func (a *assessments) add(work *pgx.Batch, c *cdc.Change) {
	switch c.Kind {
	case cdc.Truncate:
		a.flush(work)
		work.Queue(sql.TruncateAssessments.SQL)
	case cdc.Delete:
		a.flush(work)
		a.deleted = append(a.deleted, c.New.ID)
	case cdc.Insert, cdc.Update:
		if len(a.deleted) > 0 || c.KeyChanged {
			a.flush(work)
		}
		if c.KeyChanged {
			work.Queue(
				sql.RenameAssessment.SQL,
				sql.RenameAssessment.Bind(sql.Args{"from_id": c.OldID, "to_id": c.New.ID})...)
		}
		a.write(&c.New)
		if from := c.New.CopiedFrom.Trimmed(); c.Kind == cdc.Insert && !from.Null && !from.Unchanged {
			a.originals = append(a.originals, from.Value)
			a.copies = append(a.copies, c.New.ID)
		}
	}
}

// write collects what the store keeps of a row.
func (a *assessments) write(row *cdc.Row) {
	now := cdc.Row{
		ExternalID: row.ExternalID.Trimmed(), Organization: row.Organization, Name: row.Name.DisplayName(a.storeEncoding),
	}
	if before, known := a.rows[row.ID]; known {
		now.ExternalID = now.ExternalID.After(before.ExternalID)
		now.Organization = now.Organization.After(before.Organization)
		now.Name = now.Name.After(before.Name)
	}
	if a.rows == nil {
		a.rows = map[string]cdc.Row{}
	}
	a.rows[row.ID] = now
}

// assessmentRow is an assessment as walhook.assessment_in has it.
type assessmentRow struct {
	AssessmentID          string  `sql:"assessment_id"`
	ExternalID            *string `sql:"external_id"`
	OrganizationID        *string `sql:"organization_id"`
	Name                  *string `sql:"name"`
	ExternalIDUnchanged   bool    `sql:"external_id_unchanged"`
	OrganizationUnchanged bool    `sql:"organization_unchanged"`
	NameUnchanged         bool    `sql:"name_unchanged"`
}

// flush queues the statements for the collected changes.
func (a *assessments) flush(work *pgx.Batch) {
	if len(a.rows) > 0 {
		rows := make(sql.Rows[assessmentRow], 0, len(a.rows))
		for id, row := range a.rows {
			rows = append(rows, assessmentRow{
				AssessmentID: id,
				ExternalID:   row.ExternalID.Pointer(), ExternalIDUnchanged: row.ExternalID.Unchanged,
				OrganizationID: row.Organization.Pointer(), OrganizationUnchanged: row.Organization.Unchanged,
				Name: row.Name.Pointer(), NameUnchanged: row.Name.Unchanged,
			})
		}
		work.Queue(sql.WriteAssessments.SQL, sql.WriteAssessments.Bind(sql.Args{"assessments": rows})...)
	}
	if len(a.deleted) > 0 {
		work.Queue(sql.DeleteAssessments.SQL, sql.DeleteAssessments.Bind(sql.Args{"assessment_ids": a.deleted})...)
	}
	if len(a.copies) > 0 {
		work.Queue(
			sql.CopyWebhooks.SQL,
			sql.CopyWebhooks.Bind(sql.Args{"originals": a.originals, "copies": a.copies})...)
	}
	*a = assessments{storeEncoding: a.storeEncoding}
}
