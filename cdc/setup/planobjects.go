package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
	"walhook/session"
	"walhook/sql"
)

// schemaSteps creates the group roles and the schema in the store, or lets the daemon's role use an existing
// attachment of another role.
func (m *planner) schemaSteps(r *roleRights, undo *[]PlanStep) []PlanStep {
	var steps []PlanStep
	note := "The group roles. Needs CREATEROLE. Locks no table."
	for _, group := range r.missingGroups {
		steps = append(steps, PlanStep{
			note, "create role " + group + " nologin;\ncomment on role " + group + " is '" + sql.GroupRoleMark + "';",
		})
		note = ""
	}
	switch owner := m.view.schemaOwner; {
	case owner == "":
		if !r.super {
			steps = append(steps, setRoleStep(r, undo))
		}
		steps = append(steps, PlanStep{schemaNote, "create schema walhook authorization " + r.quoted() + ";"})
		if !r.super && !r.replication && !r.daemon {
			steps = append(steps, PlanStep{
				"Roles that use the schema trust its owner as a member of walhook_daemon, also without REPLICATION. Locks no table.",
				"grant walhook_daemon to " + r.quoted() + ";",
			})
		}
	case m.view.attached() && owner != r.name && !r.daemon && !r.super:
		steps = append(steps, PlanStep{
			"The schema belongs to " + owner + ": the daemon gets its rights by the group role.",
			"grant walhook_daemon to " + r.quoted() + ";",
		})
	}
	return steps
}

// silenceSteps creates schema and function in the application's database if the store is elsewhere.
func (m *planner) silenceSteps(ctx context.Context) ([]PlanStep, error) {
	var schema bool
	err := m.source.QueryRow(ctx, "select exists (select from pg_catalog.pg_namespace where nspname = 'walhook')").
		Scan(&schema)
	if err != nil {
		return nil, fmt.Errorf("look for schema walhook: %w", err)
	}
	function, _, err := m.lookUpFunction(ctx, "walhook.silence()", "")
	if err != nil || function {
		return nil, err
	}
	text, err := sql.SilenceScript()
	if err != nil {
		return nil, err
	}
	var steps []PlanStep
	if !schema {
		steps = append(steps, PlanStep{"Needs CREATE on the database. Locks no table.", "create schema walhook;"})
	}
	return append(steps, PlanStep{"", text}), nil
}

// unpublishSteps creates the function that lets a daemon without ownership remove a table from the publication.
func (m *planner) unpublishSteps(ctx context.Context, role string) ([]PlanStep, error) {
	function, may, err := m.lookUpFunction(ctx, sql.UnpublishSignature, role)
	if err != nil {
		return nil, err
	}
	var steps []PlanStep
	if !function {
		text, err := sql.UnpublishScript(m.cfg.Target.Publication)
		if err != nil {
			return nil, err
		}
		steps = append(steps, PlanStep{unpublishNote, text})
	}
	if !may {
		grantee := pgx.Identifier{role}.Sanitize()
		steps = append(steps, PlanStep{
			"", "grant execute on function walhook.unpublish(name, regclass) to " + grantee + ";",
		})
	}
	return steps, nil
}

// lookUpFunction reports whether a function of schema walhook exists in the application's database, and whether the
// role may call it.
func (m *planner) lookUpFunction(ctx context.Context, signature, role string) (exists, may bool, err error) {
	err = m.source.QueryRow(ctx, `
		select exists (select from pg_catalog.pg_roles r
		                where r.rolname = $2 and pg_catalog.has_function_privilege(r.oid, p.oid, 'execute'))
		  from pg_catalog.pg_proc p where p.oid = pg_catalog.to_regprocedure($1)`, signature, role).Scan(&may)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, false, nil
	case err != nil:
		return false, false, fmt.Errorf("look for %s: %w", signature, err)
	}
	return true, may, nil
}

// publicationSteps creates or repairs the publication.
func (m *planner) publicationSteps() []PlanStep {
	if len(m.preflight.PublicationSpec.Drift(m.preflight.Publication)) == 0 {
		return nil
	}
	steps := []PlanStep{{publicationNote, m.preflight.PublicationSpec.CheckWritesSQL()}}
	for _, statement := range m.preflight.PublicationSpec.RepairSQL(m.preflight.Publication) {
		steps = append(steps, PlanStep{"", statement + ";"})
	}
	return steps
}

// undo removes what the script and attach create. What existed before stays.
func (m *planner) undo(p *Plan) error {
	target := m.cfg.Target
	// Dropping a slot needs REPLICATION. A role that lacks it can do so as the daemon's role.
	gone := []PlanStep{{"", fmt.Sprintf(`do $walhook$ begin if exists (select from pg_roles me, pg_roles d where me.rolname = current_user
  and not me.rolsuper and not me.rolreplication and d.rolname = %s and %s) then set role %s; end if; end $walhook$;
select pg_drop_replication_slot(s.slot_name) from pg_replication_slots s where s.slot_name = '%s' and %s;
reset role;`,
		session.QuoteLiteral(p.Role), MaySetRole("d.oid"), pgx.Identifier{p.Role}.Sanitize(), target.Slot,
		catalog.OwnSlotCondition,
	)}}
	if have := m.preflight.Publication; have == nil || m.view.attachment.OwnsPublication(have, target.Slot) {
		gone = append(gone,
			PlanStep{"", fmt.Sprintf("drop publication if exists %s;", pgx.Identifier{target.Publication}.Sanitize())})
	}
	schema, err := sql.DropScript(target.Slot, !p.Elsewhere)
	if err != nil {
		return err
	}
	gone = append(gone, PlanStep{"", schema})
	var groups []PlanStep
	for _, part := range p.Owners {
		for _, step := range part.Steps {
			if role, made := strings.CutPrefix(step.SQL, "create role walhook_"); made {
				role, _, _ = strings.Cut(role, " nologin;")
				groups = append(groups, PlanStep{"", dropGroup("walhook_" + role)})
			}
		}
	}
	inSource := PlanPart{In: p.Source, Steps: slices.Concat(gone, m.undoSource)}
	if !p.Elsewhere {
		inSource.Steps = slices.Insert(inSource.Steps, len(gone), groups...)
		p.Undo = []PlanPart{inSource}
		return nil
	}
	if schema, err = sql.DropScript(target.Slot, true); err != nil {
		return err
	}
	// Undo the store first: a role that owned objects there can only be dropped afterwards.
	p.Undo = []PlanPart{{In: p.Store, Steps: slices.Concat([]PlanStep{{"", schema}}, groups, m.undoStore)}, inSource}
	return nil
}

// dropGroup drops a group role unless the walhook of another database of the server has granted rights to it. A
// script that was interrupted may not have created the role.
func dropGroup(role string) string {
	return "do $$ begin drop role if exists " + role +
		"; exception when dependent_objects_still_exist then raise notice 'role " + role +
		" is used elsewhere, and stays'; end $$;"
}
