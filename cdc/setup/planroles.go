package setup

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
	"walhook/session"
	"walhook/sql"
)

// roleRights are the rights that a role already has in a database, or those of PUBLIC if the role does not exist.
type roleRights struct {
	name               string
	exists, super      bool
	replication        bool
	bypassRLS          bool
	connect, temporary bool
	daemon             bool     // a member of walhook_daemon
	missingGroups      []string // group roles that do not exist
	selfGranted        []string // roles that granted themselves membership in it
}

// grantee is the role whose rights to look up: a role that is yet to be created will have PUBLIC's.
func (r *roleRights) grantee() string {
	if r.exists {
		return r.name
	}
	return "public"
}

func (r *roleRights) quoted() string { return pgx.Identifier{r.name}.Sanitize() }

func readRoleRights(ctx context.Context, conn *pgx.Conn, role string) (*roleRights, error) {
	r := &roleRights{name: role}
	fail := func(err error) (*roleRights, error) {
		return nil, fmt.Errorf("look up the rights of role %s: %w", role, err)
	}
	err := conn.QueryRow(ctx, "select exists (select from pg_catalog.pg_roles where rolname = $1)", role).Scan(&r.exists)
	if err != nil {
		return fail(err)
	}
	err = conn.QueryRow(ctx, `
		select pg_catalog.has_database_privilege($1, current_database(), 'connect'),
		       pg_catalog.has_database_privilege($1, current_database(), 'temporary'),
		       array(select g from unnest($2::text[]) g where not exists (select from pg_catalog.pg_roles where rolname = g))`,
		r.grantee(), sql.GroupRoles).
		Scan(&r.connect, &r.temporary, &r.missingGroups)
	if err != nil {
		return fail(err)
	}
	if !r.exists {
		return r, nil
	}
	err = conn.QueryRow(ctx, `
		select rolsuper,
		       rolreplication or rolsuper or exists (
		           select from pg_catalog.pg_roles m
		            where m.rolname = any($2) and pg_catalog.pg_has_role(r.oid, m.oid, 'member')),
		       rolbypassrls or rolsuper,
		       exists (
		           select from pg_catalog.pg_roles m
		            where m.rolname = 'walhook_daemon' and pg_catalog.pg_has_role(r.oid, m.oid, 'usage')),
		       array(
		           select g.rolname::text from pg_catalog.pg_auth_members a join pg_catalog.pg_roles g on g.oid = a.member
		            where a.roleid = r.oid and a.grantor = a.member)
		  from pg_catalog.pg_roles r where rolname = $1`, role, sql.CloudReplicators).
		Scan(&r.super, &r.replication, &r.bypassRLS, &r.daemon, &r.selfGranted)
	if err != nil {
		return fail(err)
	}
	return r, nil
}

// grantRole creates the role and lets it connect and, in the store, create the temporary tables of a reconciliation.
func (m *planner) grantRole(r *roleRights, database string, replicates, stores bool) []PlanStep {
	var steps []PlanStep
	undo, option := &m.undoStore, ""
	if replicates {
		undo, option = &m.undoSource, " replication"
	}
	switch {
	case !r.exists:
		steps = append(steps, PlanStep{
			"Needs a superuser, or CREATEROLE (from 16 on a role that also has REPLICATION itself). Locks no table. Then give the role a password:\n" +
				"\\password " + r.quoted(), "create role " + r.quoted() + " login" + option + ";",
		})
		*undo = append(*undo, PlanStep{"", "drop role " + r.quoted() + ";"})
	case replicates && !r.replication:
		steps = append(steps, PlanStep{
			"Needs a superuser. On managed services grant a group role instead, such as rds_replication.",
			"alter role " + r.quoted() + " replication;",
		})
		*undo = append(*undo, PlanStep{"", "alter role " + r.quoted() + " noreplication;"})
	}
	for _, right := range []struct {
		has  bool
		name string
	}{{r.connect, "connect"}, {r.temporary || !stores, "temporary"}} {
		if !right.has {
			m.grant(&steps, undo, "Locks no table.",
				fmt.Sprintf("%s on database %s", right.name, pgx.Identifier{database}.Sanitize()), r)
		}
	}
	return steps
}

// grant adds a GRANT, and prepends its REVOKE to the undo steps, which run before the role is dropped.
func (m *planner) grant(steps, undo *[]PlanStep, note, right string, r *roleRights) {
	*steps = append(*steps, PlanStep{note, "grant " + right + " to " + r.quoted() + ";"})
	*undo = slices.Insert(*undo, 0, PlanStep{"", "revoke " + right + " from " + r.quoted() + ";"})
}

// grantTables grants the role the missing rights to read the mapped columns.
func (m *planner) grantTables(ctx context.Context, r *roleRights) ([]PlanStep, error) {
	var steps []PlanStep
	var schemas []string
	for _, table := range []struct {
		info    *catalog.Table // nil: not mapped
		columns []string
	}{
		{m.preflight.Respondent, m.cfg.Target.Mapping.RespondentColumns()},
		{m.preflight.Assessment, m.cfg.Target.Mapping.AssessmentColumns()},
	} {
		if table.info == nil {
			continue
		}
		var usage, rowSecurity, owner bool
		var lacking []string
		err := m.source.QueryRow(ctx, `
			select pg_catalog.has_schema_privilege($1, c.relnamespace, 'usage'), c.relrowsecurity,
			       exists (select from pg_catalog.pg_roles r
			                where r.rolname = $1 and pg_catalog.pg_has_role(r.oid, c.relowner, 'usage')),
			       array(select a from unnest($3::text[]) with ordinality u (a, n)
			              where not pg_catalog.has_column_privilege($1, c.oid, a, 'select') order by n)
			  from pg_catalog.pg_class c where c.oid = $2`, r.grantee(), table.info.OID, table.columns).
			Scan(&usage, &rowSecurity, &owner, &lacking)
		if err != nil {
			return nil, fmt.Errorf("look up the rights on %s: %w", table.info.Name.Display(), err)
		}
		schema := pgx.Identifier{table.info.Name.Schema}.Sanitize()
		if !usage && !slices.Contains(schemas, schema) {
			schemas = append(schemas, schema)
			m.grant(&steps, &m.undoSource, "Locks no table.", "usage on schema "+schema, r)
		}
		if len(lacking) > 0 {
			m.grant(&steps, &m.undoSource, "Needs ownership of the table. "+grantNote(m.preflight.Version),
				fmt.Sprintf("select (%s) on table %s", catalog.QuoteIdentifiers(lacking), table.info.Name), r)
		}
		if rowSecurity && !owner && !r.bypassRLS {
			steps = append(steps, PlanStep{
				"Needs a superuser. Row-level security would hide rows from the snapshot.",
				"alter role " + r.quoted() + " bypassrls;",
			})
			if r.exists {
				m.undoSource = append(m.undoSource, PlanStep{"", "alter role " + r.quoted() + " nobypassrls;"})
			}
			r.bypassRLS = true
		}
	}
	return steps, nil
}

// MaySetRole returns the SQL condition that the current role may SET ROLE to a role, given as a literal. From 16 on,
// membership alone does not allow that.
func MaySetRole(role string) string {
	return "pg_has_role(current_user, " + role +
		", case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end)"
}

// setRoleStep lets whoever runs the script create a schema for the role, and drop it again: CREATEROLE alone does not
// suffice. The membership ends when the role is dropped or, if the role existed before, with the undo.
func setRoleStep(r *roleRights, undo *[]PlanStep) PlanStep {
	role := session.QuoteLiteral(r.name)
	if r.exists {
		before := make([]string, len(r.selfGranted))
		for i, name := range r.selfGranted {
			before[i] = session.QuoteLiteral(name)
		}
		*undo = append(*undo, PlanStep{"", `do $walhook$
begin
  if current_user <> all (array[` + strings.Join(before, ", ") + `]::name[])
     and exists (select from pg_auth_members m join pg_roles r on r.oid = m.roleid
                  where r.rolname = ` + role + ` and m.member = current_user::regrole and m.grantor = m.member) then
    execute format('revoke %I from %I', ` + role + `, current_user);
  end if;
end
$walhook$;`})
	}
	return PlanStep{
		"Lets whoever runs this act as the role, if that needs a grant: only then can the schema be created for it. Locks no table.",
		`do $walhook$
begin
  if not ` + MaySetRole(role) + ` then
    execute format('grant %I to %I', ` + role + `, current_user)
      || case when current_setting('server_version_num')::int < 160000 then '' else ' with inherit true, set true' end;
  end if;
end
$walhook$;`,
	}
}
