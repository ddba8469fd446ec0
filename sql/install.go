package sql

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/tern/v2/migrate"
)

//go:embed migrations/*.sql code/*.sql source/*.sql
var schemaFiles embed.FS

const versionTable = "walhook.schema_version"

// responseIndexesFile is the part of the code that attach runs once more, after it has written all states.
const responseIndexesFile = "code/56_response_indexes.sql"

// What the application's database needs: silenceFile is part of the code of a store in the same database.
const (
	silenceFile   = "code/20_silence.sql"
	unpublishFile = "source/unpublish.sql"
	dropFile      = "source/drop_schema.sql"
)

// identifyVersion lets the version be updated where a publication is FOR ALL TABLES: its table has no key.
const identifyVersion = "alter table " + versionTable + " replica identity full"

const (
	// commentVersion keeps the version where a dump of the schema alone keeps it, without the rows of any table.
	commentVersion = "comment on table " + versionTable + " is '" + versionComment + "%d'"
	versionComment = "Internal: the version of this schema; as it was installed: "

	// restoreVersion puts the version back, and creates the table of a new store.
	restoreVersion = "create table if not exists " + versionTable + "(version int4 not null);\n" +
		"insert into " + versionTable + "(version) select %d where not exists (select from " + versionTable + ")"
)

const createSchema = "create schema if not exists walhook;\n"

// GroupRoles are those that people and daemons get their rights by.
var GroupRoles = []string{"walhook_admin", "walhook_viewer", "walhook_daemon"}

// GroupRoleMark is the comment on group roles that walhook created. Others are an administrator's, and not dropped.
const GroupRoleMark = "walhook: created by attach"

// VersionError reports that the store's schema is not the one that this binary knows.
type VersionError struct {
	Have, Want int32 // Have is 0 where there is no schema
}

func (e *VersionError) Error() string {
	switch {
	case e.Have == 0:
		return "the store holds no schema walhook; run `walhook attach` first"
	case e.Have > e.Want:
		return fmt.Sprintf(
			"the store's schema is version %d and this walhook knows versions up to %d; use the newer walhook that upgraded it",
			e.Have, e.Want)
	default:
		return fmt.Sprintf("the store's schema is version %d and this walhook needs %d; run `walhook attach` to upgrade it", e.Have, e.Want)
	}
}

// Install brings the store's schema to this binary's version and reinstalls functions, views and grants. It may be repeated.
// errors.As finds a *VersionError when the schema is newer than the binary.
func Install(ctx context.Context, conn *pgx.Conn) error {
	have, err := Version(ctx, conn)
	if err != nil {
		return err
	}
	if err := CheckNotNewer(have); err != nil {
		return err
	}
	if err := noDaemonOf(ctx, conn, have); err != nil {
		return err
	}
	if have == 0 {
		if err := ensureSchema(ctx, conn); err != nil {
			return err
		}
		if _, err := checkOwners(ctx, conn); err != nil { // another role may have been faster
			return err
		}
	}
	steps, err := installSteps(have)
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := migrate.LockExecTx(ctx, conn, step.sql); err != nil {
			return fmt.Errorf("install %s in the schema walhook: %w", step.name, err)
		}
	}
	if _, err := conn.Exec(ctx, EnsurePartitions.SQL, nil); err != nil {
		return fmt.Errorf("create the log's partitions: %w", err)
	}
	return registerRows(ctx, conn)
}

// ensureSchema makes the schema where it is missing. IF NOT EXISTS would ask for the right to create schemas even where a DBA
// has made this one.
func ensureSchema(ctx context.Context, conn *pgx.Conn) error {
	var exists bool
	if err := conn.QueryRow(ctx, "select exists (select from pg_catalog.pg_namespace where nspname = 'walhook')").Scan(&exists); err != nil {
		return fmt.Errorf("look for schema walhook: %w", err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, createSchema); err != nil {
		return fmt.Errorf("create schema walhook: %w", err)
	}
	return nil
}

// InstallSource installs what the application's database needs: the functions walhook.silence and walhook.unpublish, as far as
// they are not there. A DBA may have made them, and then owns them.
func InstallSource(ctx context.Context, conn *pgx.Conn, publication string) error {
	if err := ensureSchema(ctx, conn); err != nil {
		return err
	}
	for signature, script := range map[string]func() (string, error){
		"walhook.silence()": SilenceScript,
		UnpublishSignature:  func() (string, error) { return UnpublishScript(publication) },
	} {
		var ours bool // or nobody's yet
		err := conn.QueryRow(ctx, `select coalesce((select pg_catalog.pg_has_role(p.proowner, 'usage') from pg_catalog.pg_proc p
			where p.oid = pg_catalog.to_regprocedure($1)), true)`, signature).Scan(&ours)
		if err != nil {
			return fmt.Errorf("look for %s: %w", signature, err)
		}
		if !ours {
			continue
		}
		text, err := script()
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, text); err != nil {
			return fmt.Errorf("install %s in the application's database: %w", signature, err)
		}
	}
	return nil
}

// noDaemonOf returns an error while daemons work with the schema of an older version: an upgrade would change it under them.
func noDaemonOf(ctx context.Context, conn *pgx.Conn, have int32) error {
	migrations, err := loadMigrations()
	if err != nil || have == 0 || have == int32(len(migrations)) {
		return err
	}
	// Dead ones have missed heartbeats, and their session's lock is gone.
	rows, err := conn.Query(ctx, `select d.name from walhook.daemon d
		where d.expires_at >= now() and (d.heartbeat_at >= now() - interval '4 seconds' or exists (
			select from pg_catalog.pg_locks l where l.locktype = 'advisory' and l.objsubid = 2 and l.granted and l.objid = d.id::oid
			   and l.database = (select c.oid from pg_catalog.pg_database c where c.datname = current_database())))
		order by d.id`)
	if err != nil {
		return fmt.Errorf("look for daemons on this store: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look for daemons on this store: %w", err)
	}
	if len(names) > 0 {
		return fmt.Errorf("the schema is not upgraded while daemons work with version %d of it: stop %s first (one that was killed counts for a "+
			"few seconds)", have, strings.Join(names, ", "))
	}
	return nil
}

// CheckVersion returns a *VersionError unless the store's schema is exactly this binary's.
func CheckVersion(ctx context.Context, conn *pgx.Conn) error {
	have, err := Version(ctx, conn)
	if err != nil {
		return err
	}
	return CheckInstalled(have)
}

// InstalledVersion is an expression for the version of a schema that is completely installed, 0 if there is none. It needs no right in the
// schema: it reads the comment. CheckInstalled judges it.
const InstalledVersion = `coalesce((select coalesce(substring(pg_catalog.obj_description(c.oid, 'pg_class') from '^` + versionComment + `([0-9]{1,4})')::int4, 1)
	from pg_catalog.pg_class c where c.relnamespace = pg_catalog.to_regnamespace('walhook') and c.relname = 'schema_version'), 0)`

// CheckInstalled returns a *VersionError unless this is exactly this binary's version.
func CheckInstalled(have int32) error {
	migrations, err := loadMigrations()
	if err != nil {
		return err
	}
	if want := int32(len(migrations)); have != want {
		return &VersionError{Have: have, Want: want}
	}
	return nil
}

// CheckNotNewer returns a *VersionError where a schema of this version was written by a newer binary.
func CheckNotNewer(have int32) error {
	migrations, err := loadMigrations()
	if err != nil {
		return err
	}
	if want := int32(len(migrations)); have > want {
		return &VersionError{Have: have, Want: want}
	}
	return nil
}

// Version returns the version of the store's schema, 0 if there is none. It returns an *OwnerError if the schema must not
// be read, and is called before anything else reads it. If a dump brought the schema without the rows of its tables, that
// is the version in the comment.
func Version(ctx context.Context, conn *pgx.Conn) (int32, error) {
	installed, err := checkOwners(ctx, conn)
	if err != nil || !installed {
		return 0, err
	}
	var version int32
	err = conn.QueryRow(ctx, "select version from "+versionTable).Scan(&version)
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code == "42501" { // insufficient_privilege
		return 0, fmt.Errorf("read the schema version of the store: %w; to let this role use the store: %s",
			err, ownRightsRemedy(ctx, conn))
	}
	if errors.Is(err, pgx.ErrNoRows) {
		err = conn.QueryRow(ctx, `
			select coalesce(substring(pg_catalog.obj_description(pg_catalog.to_regclass($1), 'pg_class')
			                          from $2 || '([0-9]{1,4})')::int4, 0)`,
			versionTable, "^"+versionComment).Scan(&version)
	}
	if err != nil {
		return 0, fmt.Errorf("read the schema version of the store: %w", err)
	}
	return version, nil
}

// installStep is a part of Install that is a transaction of its own.
type installStep struct{ name, sql string }

// installSteps are those on a store at the given version whose schema exists. tern's own migrator would reset the settings of the session
// after each migration.
func installSteps(have int32) ([]installStep, error) {
	migrations, err := loadMigrations()
	if err != nil {
		return nil, err
	}
	var steps []installStep
	restore := fmt.Sprintf(restoreVersion, have) + ";\n"
	if have < int32(len(migrations)) {
		restore += identifyVersion + ";\n"
	}
	steps = append(steps, installStep{versionTable, restore})
	for _, m := range migrations {
		if m.Sequence > have {
			steps = append(steps, installStep{m.Name, fmt.Sprintf("%s\nupdate %s set version = %d;", m.UpSQL, versionTable, m.Sequence)})
		}
	}
	code, err := codeText()
	code += fmt.Sprintf(commentVersion, len(migrations)) + ";" // once it is complete
	return append(steps, installStep{"functions, views and grants", code}), err
}

// LacksRows reports whether the schema is there without the row that has its version.
func LacksRows(ctx context.Context, conn *pgx.Conn) (lacks bool, err error) {
	if err = conn.QueryRow(ctx, "select not exists (select from "+versionTable+")").Scan(&lacks); err != nil {
		return false, fmt.Errorf("read the schema version of the store: %w", err)
	}
	return lacks, nil
}

// Script returns the SQL that Install runs on a store at the given version whose schema exists, for people to read and run.
func Script(have int32) (string, error) {
	steps, err := installSteps(have)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, step := range steps {
		fmt.Fprintf(&b, "\nbegin; -- %s\n%s\ncommit;\n", step.name, step.sql)
	}
	b.WriteString("select walhook.ensure_partitions();\n")
	return strings.TrimLeft(b.String(), "\n"), nil
}

// ResponseIndexesScript returns the SQL of IndexResponses.
func ResponseIndexesScript() (string, error) { return sourceText(responseIndexesFile) }

// IndexResponses builds the indexes over the newest responses that are missing.
func IndexResponses(ctx context.Context, store *pgx.Conn) error {
	text, err := ResponseIndexesScript()
	if err != nil {
		return err
	}
	if _, err := store.PgConn().Exec(ctx, text).ReadAll(); err != nil {
		return fmt.Errorf("build the indexes over the newest responses: %w", err)
	}
	return nil
}

// SilenceScript returns the SQL of walhook.silence, which belongs in the application's database.
func SilenceScript() (string, error) { return sourceText(silenceFile) }

// UnpublishSignature is that of walhook.unpublish.
const UnpublishSignature = "walhook.unpublish(name,regclass)"

// UnpublishScript returns the SQL of walhook.unpublish, which belongs in the application's database and to the owner of the
// publication. An earlier version's function for that publication goes.
func UnpublishScript(publication string) (string, error) {
	text, err := sourceText(unpublishFile)
	literal := "'" + strings.ReplaceAll(publication, "'", "''") + "'"
	return strings.ReplaceAll(text, ":publication_literal", "'"+strings.ReplaceAll(literal, "'", "''")+"'"), err
}

// DropScript returns the SQL that drops what the installation of that slot has in schema walhook of a database, and nothing that another
// installation needs. ours is whether the database holds the installation's store.
func DropScript(slot string, ours bool) (string, error) {
	text, err := sourceText(dropFile)
	return strings.NewReplacer(":slot", "'"+strings.ReplaceAll(slot, "'", "''")+"'", ":ours", fmt.Sprint(ours)).Replace(text), err
}

// ForeignObject returns something in schema walhook that walhook did not create, "" if there is nothing of the kind. In a
// store everything counts as walhook's. It needs no right in the schema.
func ForeignObject(ctx context.Context, conn *pgx.Conn) (string, error) {
	var object string
	err := conn.QueryRow(ctx, `
		select o.name from (
		  select 'relation ' || c.relname from pg_catalog.pg_class c
		   where c.relnamespace = pg_catalog.to_regnamespace('walhook') and c.relkind not in ('i', 'I', 't') and c.relname <> 'schema_version'
		  union all
		  select 'function ' || p.proname from pg_catalog.pg_proc p
		   where p.pronamespace = pg_catalog.to_regnamespace('walhook') and p.proname not in ('silence', 'unpublish')) o (name)
		 where not exists (select from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = 'respondent_oid'
		                    where c.relnamespace = pg_catalog.to_regnamespace('walhook') and c.relname = 'attachment')
		 order by 1 limit 1`).Scan(&object)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look at schema walhook: %w", err)
	}
	return object, nil
}

func sourceText(name string) (string, error) {
	text, err := schemaFiles.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return string(text), nil
}

var loadMigrations = sync.OnceValues(func() ([]*migrate.Migration, error) {
	dir, err := fs.Sub(schemaFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("open the embedded migrations: %w", err)
	}
	migrator, err := migrate.NewMigrator(context.Background(), nil, versionTable)
	if err != nil {
		return nil, fmt.Errorf("open the embedded migrations: %w", err)
	}
	if err := migrator.LoadMigrations(dir); err != nil {
		return nil, fmt.Errorf("read the embedded migrations: %w", err)
	}
	return migrator.Migrations, nil
})

func codeText() (string, error) {
	entries, err := schemaFiles.ReadDir("code")
	if err != nil {
		return "", fmt.Errorf("read the embedded code: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		text, err := schemaFiles.ReadFile("code/" + name)
		if err != nil {
			return "", fmt.Errorf("read the embedded code: %w", err)
		}
		b.Write(text)
		b.WriteByte('\n')
	}
	return b.String(), nil
}
