package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// protectWrites unpublishes tables whose updates and deletes PostgreSQL rejects because their replica identity was
// changed: the application's writes take precedence over the stream. It returns the resulting gap, nil if there is
// none.
func (g *Guard) protectWrites(
	ctx context.Context, source *pgx.Conn, have *catalog.Publication, tables ...*catalog.Table,
) *cdc.GapError {
	for _, table := range tables {
		why := table.WriteRefusal(have)
		if why == "" {
			continue
		}
		gap := &cdc.GapError{Kind: cdc.IdentityLost, Detail: fmt.Sprintf("table %s %s", table.Name.Display(), why)}
		if !have.Publishes(table) {
			gap.Detail += fmt.Sprintf("; it stays out of publication %q until that is fixed", g.cfg.Publication)
			return gap
		}
		remove, err := g.unpublish(ctx, source, have, table)
		switch {
		case err != nil:
			gap.Detail += fmt.Sprintf(
				"; PostgreSQL refuses the application's updates until the publication's owner runs: %s; (this role may not: %s)",
				remove, err,
			)
		case have.IncludesImplicitly(table):
			gap.Detail += fmt.Sprintf(
				"; publication %q, which includes it, publishes no updates and deletes until that is fixed, "+
					"so that the application can keep writing",
				g.cfg.Publication,
			)
		default:
			gap.Detail += fmt.Sprintf("; it was taken out of publication %q, so that the application can keep writing", g.cfg.Publication)
		}
		if last := g.lastWarning.Swap(&gap.Detail); last == nil || *last != gap.Detail {
			g.cfg.Log.Error(
				"a published table would refuse the application's updates", "table", table.Name.Display(), "detail",
				gap.Detail,
			)
		}
		return gap
	}
	return nil
}

// protectWhileIdle is protectWrites while nothing is streamed and the watch does not run. The stream finds the gap
// when it starts, even if a reconciliation was in progress.
func (g *Guard) protectWhileIdle(ctx context.Context, source *pgx.Conn) error {
	have, err := catalog.InspectPublication(ctx, source, g.cfg.Publication)
	if err != nil || have == nil {
		return err
	}
	var published []*catalog.Table
	for _, name := range []cdc.Name{g.cfg.Mapping.Respondent, g.cfg.Mapping.AssessmentTable} {
		table, err := catalog.InspectTable(ctx, source, name)
		if err != nil {
			return err
		}
		if table != nil && have.Publishes(table) {
			published = append(published, table)
		}
	}
	_ = g.protectWrites(ctx, source, have, published...)
	return nil
}

// unpublish removes a table from the publication, as its owner or through the function that attach created for other
// roles. If the publication includes the table implicitly, it stops publishing updates and deletes instead. unpublish
// returns the statement.
func (g *Guard) unpublish(
	ctx context.Context, source *pgx.Conn, have *catalog.Publication, table *catalog.Table,
) (string, error) {
	remove := "ALTER PUBLICATION " + pgx.Identifier{g.cfg.Publication}.Sanitize()
	if have.IncludesImplicitly(table) {
		remove += " SET (publish = 'insert, truncate')"
	} else {
		remove += " DROP TABLE " + table.Name.String()
	}
	var owner, function bool
	err := source.QueryRow(ctx, `
		select coalesce((select pg_catalog.pg_has_role(p.pubowner, 'usage') from pg_catalog.pg_publication p where p.pubname = $1), false),
		       -- With the rights of the publication's owner, never with those of this role.
		       exists (select from pg_catalog.pg_proc f join pg_catalog.pg_publication p on p.pubname = $1
		                where f.oid = pg_catalog.to_regprocedure($2) and pg_catalog.has_function_privilege(f.oid, 'execute')
		                  and f.prosecdef and pg_catalog.pg_has_role(f.proowner, p.pubowner, 'usage'))`,
		g.cfg.Publication, sql.UnpublishSignature).Scan(&owner, &function)
	switch {
	case err != nil:
	case owner:
		_, err = source.Exec(ctx, remove)
	case function:
		_, err = source.Exec(ctx, "select walhook.unpublish($1, $2::oid::regclass)", g.cfg.Publication, table.OID)
	default:
		err = errors.New("it is not the owner, and has no right to a function walhook.unpublish(name, regclass) of the owner's")
	}
	return remove, err
}
