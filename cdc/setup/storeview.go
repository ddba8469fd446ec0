package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// storeView is the store as the connected role sees it.
type storeView struct {
	user          string
	superuser     bool
	mayCreate     bool // may create schemas
	schemaOwner   string
	ownsSchema    bool
	denied        bool  // the role may not read the existing schema
	version       int32 // of the schema; 0: none; -1: unknown, because rights are missing
	newer         error // a *sql.VersionError if a newer walhook wrote the store
	attachment    *catalog.Attachment
	temporary     bool // may create temporary tables, which a reconciliation needs
	missingGroups []string
	grantDaemon   string          // what lets this role run a daemon on the store
	restored      bool            // the schema was restored without rows, as from pg_dump -s
	foreign       string          // an object in schema walhook that walhook did not create
	untrusted     *sql.OwnerError // the schema was not read
	catalog.Provenance
}

// separate reports whether the store is not in the application's database.
func (v *storeView) separate() bool { return !v.Source.SameDatabase(v.Store) }

func (v *storeView) attached() bool { return v.attachment.Complete() || v.denied }

// inspectStore inspects the store. Missing rights are not an error.
func inspectStore(ctx context.Context, source, store *pgx.Conn) (*storeView, error) {
	v := &storeView{}
	err := store.QueryRow(ctx, `
		select r.rolname::text, r.rolsuper,
		       pg_catalog.has_database_privilege(current_database(), 'create'),
		       pg_catalog.has_database_privilege(current_database(), 'temporary'),
		       coalesce(pg_catalog.pg_get_userbyid(n.nspowner)::text, ''),
		       coalesce(pg_catalog.pg_has_role(n.nspowner, 'usage'), false)
		  from pg_catalog.pg_roles r left join pg_catalog.pg_namespace n on n.nspname = 'walhook' where r.rolname = current_user`).
		Scan(&v.user, &v.superuser, &v.mayCreate, &v.temporary, &v.schemaOwner, &v.ownsSchema)
	if err != nil {
		return nil, fmt.Errorf("read the state of the store: %w", err)
	}
	if v.missingGroups, err = sql.MissingGroups(ctx, store); err != nil {
		return nil, err
	}
	v.grantDaemon = sql.RightsRemedy(v.user, v.missingGroups, v.schemaOwner)
	if v.foreign, err = sql.ForeignObject(ctx, store); err != nil {
		return nil, err
	}
	v.version, err = sql.Version(ctx, store)
	if errors.As(err, &v.untrusted) {
		v.version = -1
		return v, v.locate(ctx, source, store)
	}
	if err == nil && v.version > 0 {
		v.restored, err = sql.LacksRows(ctx, store)
	}
	var recorded *catalog.Attachment
	if err == nil && v.version > 0 {
		recorded, err = catalog.ReadAttachment(ctx, store)
		if v.newer = sql.CheckNotNewer(v.version); v.newer == nil {
			v.attachment = recorded
		}
	}
	if err == nil {
		v.Provenance, err = catalog.InspectProvenance(ctx, source, store, recorded)
	}
	if cdc.SQLState(err) != pgerrcode.InsufficientPrivilege {
		return v, err
	}
	v.denied, v.version = true, -1
	return v, v.locate(ctx, source, store)
}

// locate fills in where both databases are, for a store that cannot be read.
func (v *storeView) locate(ctx context.Context, source, store *pgx.Conn) (err error) {
	if v.Source, err = catalog.PlaceOf(ctx, source); err == nil {
		v.Store, err = catalog.PlaceOf(ctx, store)
	}
	return err
}

// refusals returns what prevents an attach as this role, besides what the preflight finds.
func (v *storeView) refusals(
	ctx context.Context, source *pgx.Conn, target catalog.Target, p *catalog.Preflight, mode CopyMode,
) ([]catalog.Finding, error) {
	found := v.storeRefusals(target, p, mode)
	if v.untrusted == nil && p.Respondent != nil {
		var untrusted *sql.OwnerError
		if err := sql.CheckSourceOwners(ctx, source, p.Respondent.OID); errors.As(err, &untrusted) {
			return append(found, catalog.Finding{
				Check: "source_schema", Level: catalog.Fail, Found: "in the application's database " + untrusted.Found(),
				Remedy: untrusted.SourceRemedy(),
			}), nil
		} else if err != nil {
			return nil, err
		}
	}
	if !v.separate() {
		return found, nil
	}
	more, err := sourceSchemaRefusal(ctx, source, p.User)
	return append(found, more...), err
}

// storeRefusals returns what in the store prevents an attach as this role.
func (v *storeView) storeRefusals(target catalog.Target, p *catalog.Preflight, mode CopyMode) []catalog.Finding {
	var found []catalog.Finding
	refuse := func(check, what, remedy string) {
		found = append(found, catalog.Finding{Check: check, Level: catalog.Fail, Found: what, Remedy: remedy})
	}
	lacks := func(what, remedy string) {
		found = append(found, catalog.Finding{Check: "store_schema", Level: catalog.Fail, Found: what, Remedy: remedy, Right: true})
	}
	if v.untrusted != nil {
		refuse("store_schema", v.untrusted.Found(), v.untrusted.Remedy())
		return found
	}
	if v.newer != nil {
		refuse("store_version", v.newer.Error(), "")
	}
	recorded := v.attachment
	var copied *catalog.CopyError
	if errors.As(v.Err(), &copied) {
		if mode == "" { // everything else that the copy records concerns the original
			refuse("copy", copied.Detail, catalog.CopyRemedy)
			return found
		}
		if mode == CopyFresh {
			recorded = nil
		}
	}
	if recorded.Complete() {
		was := *recorded
		if copied != nil { // an adoption may rename slot and publication
			was.Slot, was.Publication, was.Publish = target.Slot, target.Publication, target.Publish
		}
		if found, remedy := was.CompareTarget(target); found != "" {
			refuse("mapping", found, remedy)
		}
	}
	if !v.denied && v.newer == nil {
		var known []string
		if recorded != nil {
			known = append(known, recorded.Slot)
		}
		if v.attachment != nil {
			known = append(known, v.attachment.NextSlot) // of an interrupted adoption, even if this is none
		}
		found = append(found, slotRefusals(p.Slot, known, copied != nil)...)
		if p.Respondent != nil {
			found = append(found, p.PublicationSpec.Refusals(p.Publication, v.publicationCreator(p, mode))...)
		}
	}
	switch {
	case v.foreign != "":
		refuse("store_schema", fmt.Sprintf("schema walhook in the store is not walhook's: it holds the %s", v.foreign),
			"set WALHOOK_STORE_URL to another database")
	case v.schemaOwner != "" && !v.ownsSchema:
		lacks(fmt.Sprintf("schema walhook in the store belongs to %s, so role %s cannot install or upgrade it", v.schemaOwner,
			v.user),
			fmt.Sprintf("attach as %s; to run the daemon as role %s: %s", v.schemaOwner, v.user, v.grantDaemon))
	case v.schemaOwner == "" && !v.mayCreate:
		lacks(fmt.Sprintf("role %s may not create the schema walhook in the store", v.user),
			catalog.PlanAdvice(v.user))
	}
	return found
}

// publicationCreator returns the attachment that may have created the existing publication. In a copied database the
// publication was copied, too.
func (v *storeView) publicationCreator(p *catalog.Preflight, mode CopyMode) *catalog.Attachment {
	switch {
	case mode == CopyFresh && v.StoreCopied && !v.SourceCopied:
		return nil // the attachment is the original's
	case v.restored && p.Publication != nil && !v.separate():
		return &catalog.Attachment{Slot: p.Publication.Slot} // the publication was restored too; a dump has no slots
	}
	return v.attachment
}

// slotRefusals refuses an existing slot that this installation did not create, or that is in use in a copy.
func slotRefusals(slot *catalog.Slot, known []string, copied bool) []catalog.Finding {
	refuse := func(what, remedy string) []catalog.Finding {
		return []catalog.Finding{{Check: "slot", Level: catalog.Fail, Found: what, Remedy: remedy}}
	}
	switch {
	case !slot.Exists:
		return nil
	case slot.IsForeign():
		return refuse(slot.DescribeForeign(), catalog.OtherSlotRemedy)
	case !slices.Contains(known, slot.Name):
		return refuse(fmt.Sprintf("slot %q exists already, and this store did not create it", slot.Name),
			"choose another WALHOOK_SLOT, or point WALHOOK_STORE_URL at the store that it belongs to")
	case copied && slot.ActivePID != nil:
		return refuse(fmt.Sprintf("slot %q is being read by process %d", slot.Name, *slot.ActivePID),
			"stop the daemon that reads it, or choose another WALHOOK_SLOT")
	}
	return nil
}

// sourceSchemaRefusal checks whether the schema and functions that belong in the application's database exist or may
// be created. It matters if the store is elsewhere.
func sourceSchemaRefusal(ctx context.Context, source *pgx.Conn, role string) ([]catalog.Finding, error) {
	foreign, err := sql.ForeignObject(ctx, source)
	if err != nil {
		return nil, err
	}
	if foreign != "" {
		return []catalog.Finding{{
			Check: "source_schema", Level: catalog.Fail,
			Found:  fmt.Sprintf("schema walhook in the application's database is not walhook's: it holds the %s", foreign),
			Remedy: "walhook needs a schema of this name there for its functions silence() and unpublish(); rename the application's",
		}}, nil
	}
	var fine bool
	err = source.QueryRow(ctx, `
		select case when n.oid is null then pg_catalog.has_database_privilege(current_database(), 'create')
		            when not pg_catalog.has_schema_privilege(n.oid, 'usage') then false
		            else pg_catalog.has_schema_privilege(n.oid, 'create')
		              or pg_catalog.to_regprocedure('walhook.silence()') is not null
		                 and pg_catalog.to_regprocedure($1) is not null end
		  from (values (1)) one left join pg_catalog.pg_namespace n on n.nspname = 'walhook'`, sql.UnpublishSignature).Scan(&fine)
	if err != nil {
		return nil, fmt.Errorf("look for schema walhook: %w", err)
	}
	if fine {
		return nil, nil
	}
	return []catalog.Finding{{
		Check: "source_schema", Level: catalog.Fail,
		Found:  "this role may not create the functions walhook.silence() and walhook.unpublish() in the application's database",
		Remedy: catalog.PlanAdvice(role), Right: true,
	}}, nil
}
