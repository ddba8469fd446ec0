package setup

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
	"walhook/sql"
)

// Plan is what an attach would do.
type Plan struct {
	Preflight *catalog.Preflight
	Copy      bool // of the attached original: attach needs a CopyMode
	Attached  bool // at most an upgrade of the store's schema remains
	Refusals  []catalog.Finding

	Role      string // the daemon's role in the application's database, for which the script is written
	StoreRole string // its role in the store; differs if the store is elsewhere and its URL says so
	Elsewhere bool   // the store is another database
	Source    catalog.Place
	Store     catalog.Place

	Owners []PlanPart // run by the owner of the tables or a superuser, one part per database
	Daemon []PlanPart // run by the daemon's role, as a part of attach
	Rest   []PlanStep // what only attach can do: the slot, and reading its snapshot
	Undo   []PlanPart

	Snapshot string // an estimate of the snapshot's duration, and its basis
}

// Blockers returns the refusals that running the script would not remedy. Then the script must not be run.
func (p *Plan) Blockers() []catalog.Finding {
	return slices.DeleteFunc(slices.Clone(p.Refusals), func(f catalog.Finding) bool { return f.Right })
}

// PlanPart is a sequence of statements for one database.
type PlanPart struct {
	In    catalog.Place
	As    string // the role to SET ROLE to; "": whoever runs the script
	Steps []PlanStep
}

// PlanStep is a statement, or a few that belong together, with a note on its locks and rights.
type PlanStep struct{ Note, SQL string }

// PlanConfig configures MakePlan.
type PlanConfig struct {
	SourceURL, StoreURL string
	Target              catalog.Target
	Role                string // the daemon's; "": the connected role
}

// MakePlan inspects source and store and changes nothing. It returns a *catalog.MappingError if a variable does not fit
// the table.
func MakePlan(ctx context.Context, cfg PlanConfig) (*Plan, error) {
	source, err := catalog.ConnectSource(ctx, cfg.SourceURL)
	if err != nil {
		return nil, err
	}
	defer catalog.CloseQuietly(source)
	store, err := catalog.ConnectStore(ctx, cfg.StoreURL)
	if err != nil {
		return nil, err
	}
	defer catalog.CloseQuietly(store)
	preflight, err := catalog.InspectSource(ctx, source, cfg.Target)
	if err != nil {
		return nil, err
	}
	view, refusals, err := inspectForAttach(ctx, source, store, cfg.Target, preflight, "")
	if err != nil {
		return nil, err
	}
	m := &planner{source: source, store: store, cfg: cfg, preflight: preflight, view: view}
	p := &Plan{
		Preflight: preflight, Refusals: refusals, Copy: view.Err() != nil, Attached: view.attached(),
		Source: view.Source, Store: view.Store, Elsewhere: view.separate(),
	}
	if p.Role, p.StoreRole = cfg.Role, cfg.Role; cfg.Role == "" {
		p.Role, p.StoreRole = preflight.User, view.user
	}
	if view.Err() != nil || view.untrusted != nil {
		return p, nil // a script would be for the original, or for another role's schema
	}
	if preflight.Respondent == nil || cfg.Target.Mapping.HasAssessmentTable() && preflight.Assessment == nil {
		return p, nil
	}
	return p, m.fill(ctx, p)
}

// planner composes the statements.
type planner struct {
	source, store *pgx.Conn
	cfg           PlanConfig
	preflight     *catalog.Preflight
	view          *storeView

	undoSource, undoStore []PlanStep // in the order of execution
}

func (m *planner) fill(ctx context.Context, p *Plan) error {
	inSource, err := readRoleRights(ctx, m.source, p.Role)
	if err != nil {
		return err
	}
	var parts []PlanPart
	database := PlanPart{In: p.Source, Steps: m.grantRole(inSource, p.Source.Database, true, !p.Elsewhere)}
	tables, err := m.grantTables(ctx, inSource)
	if err != nil {
		return err
	}
	database.Steps = append(database.Steps, tables...)
	if p.Elsewhere {
		inStore, err := readRoleRights(ctx, m.store, p.StoreRole)
		if err != nil {
			return err
		}
		sameServer := p.Source.System == p.Store.System && inStore.name == inSource.name
		inStore.exists = inStore.exists || sameServer // created above
		inStore.replication = inStore.replication || sameServer
		at := PlanPart{
			In:    p.Store,
			Steps: append(m.grantRole(inStore, p.Store.Database, false, true), m.schemaSteps(inStore, &m.undoStore)...),
		}
		parts = append(parts, at)
		silence, err := m.silenceSteps(ctx)
		if err != nil {
			return err
		}
		database.Steps = append(database.Steps, silence...)
	} else {
		database.Steps = append(database.Steps, m.schemaSteps(inSource, &m.undoSource)...)
	}
	unpublish, err := m.unpublishSteps(ctx, p.Role)
	if err != nil {
		return err
	}
	database.Steps = append(append(database.Steps, unpublish...), m.publicationSteps()...)
	for _, part := range append([]PlanPart{database}, parts...) {
		if len(part.Steps) > 0 {
			p.Owners = append(p.Owners, part)
		}
	}
	if m.view.version >= 0 {
		script, err := sql.Script(m.view.version)
		if err != nil {
			return err
		}
		as := m.view.schemaOwner
		if as == "" {
			as = p.StoreRole
		}
		p.Daemon = []PlanPart{{In: p.Store, As: as, Steps: []PlanStep{
			{"Tables, functions, views and grants of the schema walhook. Locks nothing of the application.", script},
		}}}
	}
	if !p.Attached {
		if p.Rest, err = m.restSteps(ctx); err != nil {
			return err
		}
		if len(p.Refusals) == 0 { // what is refused may also be why the table should not be read
			columns := m.cfg.Target.Mapping.RespondentColumns()
			p.Snapshot = estimateSnapshot(ctx, m.cfg.SourceURL, m.preflight.Respondent, columns)
		}
	}
	return m.undo(p)
}

// restSteps is what attach does once everything else exists.
func (m *planner) restSteps(ctx context.Context) ([]PlanStep, error) {
	target := m.cfg.Target
	read := "begin isolation level repeatable read read only; set transaction snapshot '(that of the slot)';\n"
	write := "truncate walhook.response_state, walhook.assessment; -- what follows is committed every 2 MiB\n" +
		sql.DropResponseIndexes.SQL + "\n"
	if m.preflight.Assessment != nil {
		table, columns := target.Mapping.AssessmentTable, target.Mapping.AssessmentColumns()
		statements, err := catalog.CopyOutSQL(ctx, m.source, table, columns)
		if err != nil {
			return nil, err
		}
		read += strings.Join(statements, ";\n") + ";\n"
		write += "copy walhook.assessment " + catalog.AssessmentColumns + " from stdin;\n"
	}
	statements, err := catalog.CopyOutSQL(ctx, m.source, target.Mapping.Respondent, target.Mapping.RespondentColumns())
	if err != nil {
		return nil, err
	}
	read += strings.Join(statements, ";\n") + ";\ncommit;"
	indexes, err := sql.ResponseIndexesScript()
	if err != nil {
		return nil, err
	}
	write += "copy walhook.response_state " + catalog.StateColumns + " from stdin;\n" + indexes + "begin; " +
		strings.TrimSuffix(strings.TrimSpace(sql.SetPosition.SQL), ";") + ";\n" + strings.TrimSpace(sql.RecordOrigin.SQL) +
		";\nupdate walhook.attachment set phase = 'attached', attached_at = now(), publication_rows = $1;\ncommit; " +
		"analyze walhook.response_state;"
	return []PlanStep{
		{
			"In the store: what is being attached, so that an interrupted attach can be taken up again.",
			"insert into walhook.attachment (phase, ...) values ('attaching', ...);",
		},
		{slotNote, catalog.PermanentSlot(target.Slot, m.preflight.Version).SQL()},
		{snapshotNote, read},
		{
			"In the store, meanwhile: the state of the rows. Only the last commit makes the attachment complete. " +
				"Locks nothing of the application.",
			write,
		},
	}, nil
}
