package stream

import (
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/sql"
)

// assessments collects consecutive changes of the assessment table, without an event between them, so that a bulk
// import is one statement.
type assessments struct {
	external map[string]*string // external id by assessment id
	deleted  []string
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
		if !c.New.ExternalID.Unchanged {
			if a.external == nil {
				a.external = map[string]*string{}
			}
			a.external[c.New.ID] = c.New.ExternalID.Trimmed().Pointer()
		}
		if from := c.New.CopiedFrom.Trimmed(); c.Kind == cdc.Insert && !from.Null && !from.Unchanged {
			a.originals = append(a.originals, from.Value)
			a.copies = append(a.copies, c.New.ID)
		}
	}
}

// flush queues the statements for the collected changes.
func (a *assessments) flush(work *pgx.Batch) {
	if len(a.external) > 0 {
		ids := make([]string, 0, len(a.external))
		external := make([]*string, 0, len(a.external))
		for id, value := range a.external {
			ids = append(ids, id)
			external = append(external, value)
		}
		work.Queue(
			sql.WriteAssessments.SQL,
			sql.WriteAssessments.Bind(sql.Args{"assessment_ids": ids, "external_ids": external})...)
	}
	if len(a.deleted) > 0 {
		work.Queue(sql.DeleteAssessments.SQL, sql.DeleteAssessments.Bind(sql.Args{"assessment_ids": a.deleted})...)
	}
	if len(a.copies) > 0 {
		work.Queue(
			sql.CopyWebhooks.SQL,
			sql.CopyWebhooks.Bind(sql.Args{"originals": a.originals, "copies": a.copies})...)
	}
	*a = assessments{}
}
