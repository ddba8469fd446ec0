package cdc

import (
	"context"
	"fmt"
	"strings"

	"walhook/sql"
)

// Plan is what an attach would do.
type Plan struct {
	Preflight *Preflight
	Attached  bool // nothing but an upgrade of the store's schema is left to do
	Refusals  []Finding
	Owner     string // SQL for the owner of the tables, or a superuser, in the application's database
	Store     string // SQL for the store
	Slot      string // the replication command
	Snapshot  string // what is read at the slot's snapshot
	Undo      string // SQL that undoes it
}

// MakePlan looks at source and store and changes nothing.
func MakePlan(ctx context.Context, sourceURL, storeURL string, target Target) (*Plan, error) {
	source, err := ConnectSource(ctx, sourceURL)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(source)
	store, err := ConnectStore(ctx, storeURL)
	if err != nil {
		return nil, err
	}
	defer closeQuietly(store)
	preflight, err := Inspect(ctx, source, target)
	if err != nil {
		return nil, err
	}
	version, err := sql.Version(ctx, store)
	if err != nil {
		return nil, err
	}
	before, err := existingAttachment(ctx, store)
	if err != nil {
		return nil, err
	}
	p := &Plan{Preflight: preflight, Refusals: preflight.Refusals()}
	if before != nil && before.Complete {
		p.Attached = true
		if err := before.Matches(target.Slot, target.Publication, target.Mapping); err != nil {
			p.Refusals = append(p.Refusals, Finding{Check: "mapping", Level: Fail, Found: err.Error()})
		}
	}
	if preflight.Slot.Exists && before == nil {
		p.Refusals = append(p.Refusals, foreignSlot(target.Slot))
	}
	if p.Store, err = sql.Script(version); err != nil {
		return nil, err
	}
	if p.Owner, err = sql.SourceScript(target.Publication); err != nil {
		return nil, err
	}
	if preflight.Respondent == nil || target.Mapping.HasAssessmentTable() && preflight.Assessment == nil {
		return p, nil
	}
	if len(preflight.publication.drift(preflight.havePublication)) > 0 {
		p.Owner += strings.Join(preflight.publication.mendSQL(preflight.havePublication), ";\n") + ";\n"
	}
	p.Slot = fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput EXPORT_SNAPSHOT", quoteSlot(target.Slot))
	if preflight.Version >= failoverVersion {
		p.Slot = fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)", quoteSlot(target.Slot))
	}
	p.Snapshot = copyOutSQL(target.Mapping.Respondent, target.Mapping.RespondentColumns()) + ";\n"
	if preflight.Assessment != nil {
		p.Snapshot += copyOutSQL(target.Mapping.AssessmentTable, target.Mapping.AssessmentColumns()) + ";\n"
	}
	p.Undo = fmt.Sprintf("select pg_drop_replication_slot('%s');\ndrop publication if exists %s;\ndrop schema if exists walhook cascade;\n",
		target.Slot, quotePublication(target.Publication))
	return p, nil
}
