package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/session"
	"walhook/sql"
)

// Place is the location of a database.
type Place struct {
	System   string // the server's system identifier
	Database string
	OID      uint32 // of the database; 0: unknown
	Address  string // for messages
}

func (p Place) String() string { return fmt.Sprintf("database %q of server %s", p.Database, p.System) }

// SameDatabase reports whether both are the same database, even if it was renamed.
func (p Place) SameDatabase(other Place) bool { return p.System == other.System && p.OID == other.OID }

// withoutAddress returns the place in its recorded form.
func (p Place) withoutAddress() Place {
	p.Address = ""
	return p
}

// PlaceOf returns the location of the connected database.
func PlaceOf(ctx context.Context, conn *pgx.Conn) (Place, error) {
	here, _, err := Locate(ctx, conn, Place{})
	return here, err
}

// Locate returns the location of the connected database, and whether it is the recorded one: the same database,
// possibly renamed, or one of the same name that replaced it, as after a restore in place. Anything else is a copy.
func Locate(ctx context.Context, conn *pgx.Conn, recorded Place) (here Place, same bool, err error) {
	here.Address = session.Address(&conn.Config().Config)
	var recordedExists bool
	err = conn.QueryRow(ctx, `
		select s.system_identifier::text, d.datname::text, d.oid, exists (select from pg_catalog.pg_database r where r.oid = $1)
		  from pg_catalog.pg_control_system() s, pg_catalog.pg_database d where d.datname = current_database()`, recorded.OID).
		Scan(&here.System, &here.Database, &here.OID, &recordedExists)
	if err != nil {
		return here, false, fmt.Errorf("identify the server at %s: %w", here.Address, err)
	}
	same = here.SameDatabase(recorded) ||
		here.System == recorded.System && here.Database == recorded.Database && (recorded.OID == 0 || !recordedExists)
	return here, same, nil
}

// CopyError reports that the source or the store is a copy of the attached one.
type CopyError struct{ Detail string }

func (e *CopyError) Error() string { return e.Detail + "; " + CopyRemedy }

// CopyRemedy tells people how to continue in a copy.
const CopyRemedy = "if this is the original now, run `walhook attach --adopt`: state, webhooks and pending deliveries " +
	"continue, and what was missed is fired; to start from scratch here, run `walhook attach --fresh`: " +
	"pending deliveries are dropped and webhooks are kept disabled (docs/how-to/copies.md)"

// Provenance compares where source and store are with where the store recorded them.
type Provenance struct {
	Source, Store             Place
	AttachedTo, installedIn   Place // zero: not recorded
	SourceCopied, StoreCopied bool
}

// InspectProvenance compares both databases with the recorded locations; a is nil if nothing is attached.
func InspectProvenance(ctx context.Context, source, store *pgx.Conn, a *Attachment) (id Provenance, err error) {
	if a != nil {
		id.AttachedTo = a.Place()
	}
	if id.installedIn, err = readInstallation(ctx, store); err != nil {
		return id, err
	}
	if id.Source, id.SourceCopied, err = isCopy(ctx, source, id.AttachedTo); err != nil {
		return id, err
	}
	id.Store, id.StoreCopied, err = isCopy(ctx, store, id.installedIn)
	return id, err
}

func isCopy(ctx context.Context, conn *pgx.Conn, recorded Place) (here Place, copied bool, err error) {
	here, same, err := Locate(ctx, conn, recorded)
	return here, !same && recorded.System != "", err
}

// Err returns a *CopyError if the source or the store is a copy.
func (id Provenance) Err() error {
	var found []string
	if id.SourceCopied {
		found = append(found,
			fmt.Sprintf("walhook is attached to %s, and the application's database here is %s", id.AttachedTo, id.Source))
	}
	if id.StoreCopied {
		found = append(found, fmt.Sprintf("the store was installed in %s, and this one is %s", id.installedIn, id.Store))
	}
	if len(found) == 0 {
		return nil
	}
	if id.SourceCopied && !id.StoreCopied && !id.Source.SameDatabase(id.Store) {
		found = append(found, "a copy beside the original needs a store of its own (WALHOOK_STORE_URL)")
	}
	return &CopyError{"this is a copy: " + strings.Join(found, "; ")}
}

// Original returns the location of the copy's original.
func (id Provenance) Original() Place {
	if id.SourceCopied {
		return id.AttachedTo
	}
	return id.installedIn
}

// CheckOriginal returns a *CopyError unless source and store are the attached ones, or else a *sql.VersionError unless
// the store's schema is this binary's. It takes no lock and changes nothing.
func CheckOriginal(ctx context.Context, source, store *pgx.Conn) error {
	_, _, err := inspectOriginal(ctx, source, store)
	return err
}

// inspectOriginal returns the attachment and where its databases are, or the errors of CheckOriginal. A copy is a copy
// whatever the version of its schema: whoever upgraded it as the original would be misled.
func inspectOriginal(ctx context.Context, source, store *pgx.Conn) (a *Attachment, id Provenance, err error) {
	if a, err = ReadAttachmentIfInstalled(ctx, store); err == nil {
		if id, err = InspectProvenance(ctx, source, store, a); err == nil {
			err = id.Err()
		}
	}
	if copied := (*CopyError)(nil); errors.As(err, &copied) {
		return a, id, err
	}
	return a, id, cmp.Or(sql.CheckVersion(ctx, store), err) // another version may be why it could not be read
}

// readInstallation returns where the store was installed, or the zero Place if an older version did not record it.
func readInstallation(ctx context.Context, store *pgx.Conn) (p Place, err error) {
	if version, err := sql.Version(ctx, store); err != nil || version == 0 {
		return p, err
	}
	var exists bool
	if err := store.QueryRow(ctx, "select pg_catalog.to_regclass('walhook.installation') is not null").Scan(&exists); err != nil ||
		!exists {
		return p, err
	}
	err = store.QueryRow(ctx, sql.ReadInstallation.SQL).Scan(&p.System, &p.Database, &p.OID)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return p, fmt.Errorf("read where the store was installed: %w", err)
	}
	return p, nil
}

// Original is the attachment that a daemon works on, and the databases in which it found it. A nil Original checks
// nothing.
type Original struct {
	Attachment    *Attachment
	Source, Store Place
	Moved         bool // the databases were renamed or restored in place since they were recorded
}

// OpenOriginal reads the attachment. It returns a *CopyError if source or store is a copy, a *sql.VersionError, or a
// *FatalError if the configuration differs from the attached one, or a *MappingError if it does not fit the tables.
func OpenOriginal(ctx context.Context, sourceURL, storeURL string, target Target) (*Original, error) {
	store, err := ConnectStore(ctx, storeURL)
	if err != nil {
		return nil, err
	}
	defer CloseQuietly(store)
	source, err := ConnectSource(ctx, sourceURL)
	if err != nil {
		return nil, cmp.Or(sql.CheckVersion(ctx, store), err)
	}
	defer CloseQuietly(source)
	a, id, err := inspectOriginal(ctx, source, store)
	if err != nil {
		return nil, err
	}
	if err := a.Check(target); err != nil {
		return nil, cmp.Or(attachUnderWay(ctx, store, target), CheckMapping(ctx, source, target), err)
	}
	moved := id.AttachedTo != id.Source.withoutAddress() || id.installedIn != id.Store.withoutAddress()
	return &Original{Attachment: a, Source: id.Source, Store: id.Store, Moved: moved}, nil
}

// attachUnderWay returns an error if an attach is in progress, or the attachment fits by now: no attach was interrupted.
func attachUnderWay(ctx context.Context, store *pgx.Conn, target Target) error {
	attaching, err := LockSessions(ctx, store, AttachLock, true)
	if err != nil {
		return err
	}
	a, err := ReadAttachmentIfInstalled(ctx, store)
	switch {
	case err != nil:
		return err
	case a.Check(target) == nil:
		return errors.New("an attach has just completed")
	case len(attaching) > 0:
		return errors.New("an attach is in progress")
	}
	return nil
}

// CheckSource returns a *CopyError unless the connection leads to the same application database as before.
func (o *Original) CheckSource(ctx context.Context, conn *pgx.Conn) error {
	if o == nil {
		return nil
	}
	return checkPlace(ctx, conn, "the application's database", o.Source)
}

// CheckStore is CheckSource for the store.
func (o *Original) CheckStore(ctx context.Context, conn *pgx.Conn) error {
	if o == nil {
		return nil
	}
	return checkPlace(ctx, conn, "the store", o.Store)
}

func checkPlace(ctx context.Context, conn *pgx.Conn, what string, found Place) error {
	here, err := PlaceOf(ctx, conn)
	if err == nil && !here.SameDatabase(found) {
		err = &CopyError{fmt.Sprintf("%s was %s and is %s", what, found, here)}
	}
	return err
}

// ConnectSource connects to the application's database and checks that it is still the same one.
func (o *Original) ConnectSource(ctx context.Context, url string) (*pgx.Conn, error) {
	conn, err := ConnectPrimary(ctx, url)
	if err != nil {
		return nil, err
	}
	if err := o.CheckSource(ctx, conn); err != nil {
		CloseQuietly(conn)
		return nil, err
	}
	return conn, nil
}

// RecordPlaces records the current locations of source and store, which may have been renamed or restored in place.
func RecordPlaces(ctx context.Context, store *pgx.Conn, source, here Place) error {
	_, err := store.Exec(ctx, sql.RecordSourcePlace.SQL, sql.RecordSourcePlace.Bind(source.Args())...)
	if err == nil {
		_, err = store.Exec(ctx, sql.RecordStorePlace.SQL, sql.RecordStorePlace.Bind(here.Args())...)
	}
	if err != nil {
		return fmt.Errorf("record where source and store are: %w", err)
	}
	return nil
}

// Args returns the arguments of the queries that record a place.
func (p Place) Args() sql.Args {
	return sql.Args{"system_identifier": p.System, "database": p.Database, "database_oid": int64(p.OID)}
}
