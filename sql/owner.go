package sql

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// CloudReplicators are the groups that may replicate on managed services, where no role has REPLICATION.
var CloudReplicators = []string{"rds_replication", "azure_pg_admin", "cloudsqlsuperuser"}

// Whoever may create a schema can create one that is named walhook, with views and functions under walhook's names, and whoever reads or
// calls those runs their code. Names, comments and the definition of a table prove nothing, since anybody can copy them. Its owner does:
// nothing of a schema walhook is read or called unless the schema and everything in it belongs to roles that nobody becomes by creating
// or granting something in the database. These are the connected role itself, superusers, roles that may replicate (attach needs that,
// and they can read the whole server), and members of walhook_daemon, which only an administrator of roles can add.
//
// $1 are the groups whose members count, $2 whether to check the application's database, and $3 its respondent table.
// walhook does not call the functions silence and unpublish, except for unpublish as the function of the publication's
// owner; CheckSourceOwners is for them. PostgreSQL resolves no other kind of object by its owner's schema.
const ownersSQL = `
	with trusted as (
	  select r.oid from pg_catalog.pg_roles r
	   where r.rolname = current_user or r.rolsuper or r.rolreplication
	      or exists (select from pg_catalog.pg_roles g where g.rolname = any($1) and pg_catalog.pg_has_role(r.oid, g.oid, 'member'))
	), object as (
	  select 1 as turn, 'schema walhook' as name, n.nspowner as owner, true as source from pg_catalog.pg_namespace n where n.nspname = 'walhook'
	  union all
	  select 2, 'relation walhook.' || c.relname, c.relowner, false from pg_catalog.pg_class c
	   where c.relnamespace = pg_catalog.to_regnamespace('walhook') and c.relkind not in ('i', 'I', 't')
	  union all
	  select 2, 'function walhook.' || p.proname, p.proowner, p.proname in ('silence', 'unpublish') from pg_catalog.pg_proc p
	   where p.pronamespace = pg_catalog.to_regnamespace('walhook')
	  union all
	  select 2, 'type walhook.' || t.typname, t.typowner, false from pg_catalog.pg_type t
	   where t.typnamespace = pg_catalog.to_regnamespace('walhook')
	)
	select exists (select from pg_catalog.pg_class c where c.relnamespace = pg_catalog.to_regnamespace('walhook') and c.relname = 'schema_version'),
	       current_user::text, coalesce(found.name, ''), coalesce(pg_catalog.pg_get_userbyid(found.owner)::text, '')
	  from (values (1)) one left join (
	    select o.name, o.owner from object o
	     where o.owner not in (select t.oid from trusted t)
	       and case when $2 then o.source and not exists (
	                  select from pg_catalog.pg_class c where c.oid = $3 and pg_catalog.pg_has_role(o.owner, c.relowner, 'member'))
	                else o.turn = 1 or not o.source end
	     order by o.turn, o.name limit 1) found on true`

// OwnerError reports a schema walhook of which nothing was read, because it or something in it belongs to a role that walhook does not
// trust.
type OwnerError struct{ Object, Owner, User string }

func (e *OwnerError) Error() string { return e.Found() + "; " + e.Remedy() }

// Found says what was found.
func (e *OwnerError) Found() string {
	return fmt.Sprintf("%s belongs to role %s, whose code must not run as role %s; nothing in the schema was read", e.Object, e.Owner, e.User)
}

// Remedy says what to do.
func (e *OwnerError) Remedy() string {
	owner := pgx.Identifier{e.Owner}.Sanitize()
	return fmt.Sprintf("if %s did not attach walhook, let it drop what it created, or set WALHOOK_STORE_URL to another database; "+
		"if it did: GRANT walhook_daemon TO %s;", e.Owner, owner)
}

// SourceRemedy is Remedy for the application's database.
func (e *OwnerError) SourceRemedy() string {
	return fmt.Sprintf("walhook needs a schema of this name there for its functions silence() and unpublish(): let %s drop or rename what it created, "+
		"or have the owner of the respondent table run the script of walhook plan", e.Owner)
}

// checkOwners reports whether the store's schema is installed. It returns an *OwnerError if the schema is not to be read. It reads
// system catalogs alone, and needs no right in the schema.
func checkOwners(ctx context.Context, conn *pgx.Conn) (installed bool, err error) {
	return lookUpOwners(ctx, conn, false, 0)
}

// CheckOwners returns an *OwnerError if the store's schema is not to be read.
func CheckOwners(ctx context.Context, conn *pgx.Conn) error {
	_, err := checkOwners(ctx, conn)
	return err
}

// CheckSourceOwners returns an *OwnerError if the functions silence and unpublish of the application's database, or its schema walhook,
// belong to a role that walhook does not trust. The owner of the respondent table is trusted, too: it may run the script of plan.
func CheckSourceOwners(ctx context.Context, conn *pgx.Conn, respondentOID uint32) error {
	_, err := lookUpOwners(ctx, conn, true, respondentOID)
	return err
}

func lookUpOwners(ctx context.Context, conn *pgx.Conn, source bool, respondentOID uint32) (installed bool, err error) {
	var e OwnerError
	err = conn.QueryRow(ctx, ownersSQL, append([]string{"walhook_daemon"}, CloudReplicators...), source, respondentOID).
		Scan(&installed, &e.User, &e.Object, &e.Owner)
	if err != nil {
		return false, fmt.Errorf("look up the owners in schema walhook: %w", err)
	}
	if e.Object != "" {
		return false, &e
	}
	return installed, nil
}
