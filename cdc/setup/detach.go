package setup

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/session"
	"walhook/sql"
)

// DetachConfig configures Detach.
type DetachConfig struct {
	SourceURL, StoreURL string
	Slot, Publication   string
	DropSchema          bool
	Note                func(string)
}

// Detach drops slot and publication and, with DropSchema, the schema. Otherwise webhooks and log are kept. It may be
// repeated.
func Detach(ctx context.Context, cfg DetachConfig) error {
	source, err := catalog.ConnectPrimary(ctx, cfg.SourceURL)
	if err != nil {
		return err
	}
	defer catalog.CloseQuietly(source)
	store, err := catalog.ConnectLocking(ctx, cfg.StoreURL)
	if err != nil {
		return err
	}
	defer catalog.CloseLocking(store)
	// Check this before anything is changed: the store may have another version, and source or store may be a copy.
	var version *sql.VersionError
	if err := catalog.CheckOriginal(ctx, source, store); err != nil && !(errors.As(err, &version) && version.Have == 0) {
		return err
	}
	if err := catalog.LockAttach(ctx, store); err != nil {
		return err
	}
	free, err := catalog.TryLock(ctx, store, catalog.ReaderLock, 0)
	if err != nil {
		return err
	}
	if !free {
		return errors.New("a daemon is running on this store; stop it first")
	}
	attachment, err := catalog.ReadAttachmentIfInstalled(ctx, store)
	if err != nil {
		return err
	}
	if attachment != nil && (attachment.Slot != cfg.Slot || attachment.Publication != cfg.Publication) {
		return fmt.Errorf(
			"slot %q and publication %q are attached, not %q and %q; set WALHOOK_SLOT and WALHOOK_PUBLICATION to what is attached",
			attachment.Slot, attachment.Publication, cfg.Slot, cfg.Publication,
		)
	}
	if cfg.DropSchema {
		if err := checkSchemaOwned(ctx, store); err != nil {
			return err
		}
	}
	var respondentOID uint32 // 0: unknown
	if attachment != nil {
		respondentOID = attachment.RespondentOID
		// Drop the publication first: only its owner may, and if this role is not the owner, nothing has been changed
		// yet.
		if err := dropPublication(ctx, source, attachment, cfg.Note); err != nil {
			return err
		}
		if err := detachSlots(ctx, cfg, source, attachment); err != nil {
			return err
		}
		if _, err := store.Exec(ctx, "delete from walhook.attachment"); err != nil {
			return fmt.Errorf("end the attachment: %w", err)
		}
	} else {
		cfg.Note("nothing is attached")
	}
	if !cfg.DropSchema {
		if attachment != nil {
			cfg.Note("detached; webhooks, settings and log stay in the schema walhook")
		}
		return nil
	}
	return dropSchemas(ctx, cfg, source, store, version == nil, respondentOID)
}

// dropSchemas drops the schema in the store, and in the application's database if the store is elsewhere. current
// reports whether the schema's version is known, so that its rows can be counted.
func dropSchemas(
	ctx context.Context, cfg DetachConfig, source, store *pgx.Conn, current bool, respondentOID uint32,
) error {
	var webhooks, pending int64
	if current {
		err := store.QueryRow(ctx, "select (select count(*) from walhook.webhook), (select count(*) from walhook.queue)").
			Scan(&webhooks, &pending)
		if err != nil {
			return fmt.Errorf("count what the schema holds: %w", err)
		}
	}
	if err := dropSchema(ctx, cfg, store, true, 0); err != nil {
		return err
	}
	inSource, err := catalog.PlaceOf(ctx, source)
	if err != nil {
		return err
	}
	inStore, err := catalog.PlaceOf(ctx, store)
	if err != nil {
		return err
	}
	if !inSource.SameDatabase(inStore) {
		if err := dropSchema(ctx, cfg, source, false, respondentOID); err != nil {
			return err
		}
	}
	if current {
		cfg.Note(fmt.Sprintf("dropped schema walhook with its log, %d webhooks and their secrets, and %d pending deliveries",
			webhooks, pending))
	}
	return nil
}

// dropPublication drops the attachment's publication if this installation created it.
func dropPublication(ctx context.Context, source *pgx.Conn, a *catalog.Attachment, note func(string)) error {
	have, err := catalog.InspectPublication(ctx, source, a.Publication)
	if err != nil || have == nil {
		return err
	}
	if !a.OwnsPublication(have, a.Slot) {
		note(fmt.Sprintf("publication %q stays: walhook did not create it", a.Publication))
		return nil
	}
	if _, err := source.Exec(ctx, "drop publication if exists "+pgx.Identifier{a.Publication}.Sanitize()); err != nil {
		return fmt.Errorf("drop publication %q: %w; nothing was changed; %s", a.Publication, err,
			detachAdvice(ctx, source, a.Publication))
	}
	note(fmt.Sprintf("dropped publication %q", a.Publication))
	return nil
}

// detachSlots drops the recorded slots that belong to this database.
func detachSlots(ctx context.Context, cfg DetachConfig, source *pgx.Conn, a *catalog.Attachment) error {
	for _, name := range []string{a.Slot, a.NextSlot} {
		slot, err := catalog.InspectSlot(ctx, source, name)
		if err != nil {
			return err
		}
		if slot.IsForeign() {
			cfg.Note(slot.DescribeForeign() + ", and is left alone")
		}
		if !slot.Exists || slot.IsForeign() {
			continue
		}
		if err := catalog.DropSlot(ctx, source, name); err != nil {
			return err
		}
		cfg.Note(fmt.Sprintf("dropped slot %q", name))
	}
	return nil
}

// detachAdvice says who may drop the publication.
func detachAdvice(ctx context.Context, source *pgx.Conn, publication string) string {
	var owner string
	if err := source.QueryRow(ctx,
		"select pg_catalog.pg_get_userbyid(pubowner) from pg_catalog.pg_publication where pubname = $1", publication).
		Scan(&owner); err != nil {
		owner = "the publication's owner"
	}
	return fmt.Sprintf("detach as %s or, if a script of walhook plan created it, have its undo run (docs/how-to/roles.md)",
		owner)
}

// checkSchemaOwned returns an error if schema walhook belongs to another role, or is not walhook's.
func checkSchemaOwned(ctx context.Context, conn *pgx.Conn) error {
	foreign, err := sql.ForeignObject(ctx, conn)
	if err == nil && foreign != "" {
		err = fmt.Errorf("schema walhook in the store is not walhook's: it holds the %s; nothing was changed", foreign)
	}
	if err != nil {
		return err
	}
	owner, owned, err := schemaOwner(ctx, conn)
	if err == nil && !owned {
		err = fmt.Errorf("schema walhook belongs to %s; detach as that role, or without --drop-schema; nothing was changed", owner)
	}
	return err
}

// schemaOwner returns the owner of schema walhook, and whether the connected role has the owner's rights. owned is
// true if there is no schema.
func schemaOwner(ctx context.Context, conn *pgx.Conn) (owner string, owned bool, err error) {
	err = conn.QueryRow(ctx, `
		select pg_catalog.pg_get_userbyid(n.nspowner), pg_catalog.pg_has_role(n.nspowner, 'usage')
		  from pg_catalog.pg_namespace n where n.nspname = 'walhook'`).
		Scan(&owner, &owned)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", true, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("look for schema walhook: %w", err)
	}
	return owner, owned, nil
}

// dropSchema drops this installation's objects in schema walhook of a database, and the group roles unless another
// database of the server needs them. ours is whether the database holds the installation's store.
func dropSchema(ctx context.Context, cfg DetachConfig, conn *pgx.Conn, ours bool, respondentOID uint32) error {
	_, owned, err := schemaOwner(ctx, conn)
	if err != nil {
		return err
	}
	if !ours && owned {
		var untrusted *sql.OwnerError
		if err := sql.CheckSourceOwners(ctx, conn, respondentOID); errors.As(err, &untrusted) {
			owned = false // walhook did not create it
		} else if err != nil {
			return err
		}
	}
	if owned {
		script, err := sql.DropScript(cfg.Slot, ours)
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, script); err != nil {
			return fmt.Errorf("drop schema walhook: %w", err)
		}
	}
	var stays bool
	if err := conn.QueryRow(ctx, "select pg_catalog.to_regnamespace('walhook') is not null").Scan(&stays); err != nil {
		return fmt.Errorf("look for schema walhook: %w", err)
	}
	if stays {
		cfg.Note(fmt.Sprintf("schema walhook in %s stays, with what others use", session.Address(&conn.Config().Config)))
	}
	return dropGroupRoles(ctx, cfg, conn)
}

// dropGroupRoles drops the group roles that walhook created, unless they are in use elsewhere. Those that an
// administrator created stay.
func dropGroupRoles(ctx context.Context, cfg DetachConfig, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		select r.rolname::text, coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid') = $2, false)
		  from pg_catalog.pg_roles r where r.rolname = any($1) order by 1`, sql.GroupRoles, sql.GroupRoleMark)
	if err != nil {
		return fmt.Errorf("look up the group roles: %w", err)
	}
	type group struct {
		Name    string
		Created bool
	}
	groups, err := pgx.CollectRows(rows, pgx.RowToStructByPos[group])
	if err != nil {
		return fmt.Errorf("look up the group roles: %w", err)
	}
	for _, g := range groups {
		if !g.Created {
			cfg.Note(fmt.Sprintf("role %s stays: walhook did not create it", g.Name))
			continue
		}
		_, err := conn.Exec(ctx, "drop role if exists "+g.Name)
		switch cdc.SQLState(err) {
		case "2BP01", "42501": // dependent_objects_still_exist, insufficient_privilege: in use elsewhere
		default:
			if err != nil {
				return fmt.Errorf("drop role %s: %w", g.Name, err)
			}
		}
	}
	return nil
}
