package sql

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/tern/v2/migrate"
)

//go:embed migrations/*.sql code/*.sql
var schemaFiles embed.FS

const versionTable = "walhook.schema_version"

// sourceFile is the part of the code that the application's database needs when the store is elsewhere.
const sourceFile = "code/20_source.sql"

const createSchema = "create schema if not exists walhook;\n"

// VersionError tells that the store's schema is not the one that this binary knows.
type VersionError struct {
	Have, Want int32 // Have is 0 where there is no schema
}

func (e *VersionError) Error() string {
	switch {
	case e.Have == 0:
		return "the store holds no schema walhook; run `walhook attach` first"
	case e.Have > e.Want:
		return fmt.Sprintf("the store's schema is version %d and this walhook knows versions up to %d; use the newer walhook that upgraded it", e.Have, e.Want)
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
	migrations, err := loadMigrations()
	if err != nil {
		return err
	}
	if want := int32(len(migrations)); have > want {
		return &VersionError{Have: have, Want: want}
	}
	if have == 0 {
		// IF NOT EXISTS would ask for the right to create schemas even where a DBA has made this one.
		var exists bool
		if err := conn.QueryRow(ctx, "select exists (select from pg_catalog.pg_namespace where nspname = 'walhook')").Scan(&exists); err != nil {
			return fmt.Errorf("look for schema walhook: %w", err)
		}
		if !exists {
			if _, err := conn.Exec(ctx, createSchema); err != nil {
				return fmt.Errorf("create schema walhook: %w", err)
			}
		}
	}
	migrator, err := migrate.NewMigrator(ctx, conn, versionTable)
	if err != nil {
		return fmt.Errorf("create table %s: %w", versionTable, err)
	}
	migrator.Migrations = migrations
	if have < int32(len(migrations)) {
		if err := migrator.Migrate(ctx); err != nil {
			return fmt.Errorf("upgrade the schema walhook: %w", err)
		}
	}
	code, err := codeText()
	if err != nil {
		return err
	}
	if err := migrate.LockExecTx(ctx, conn, code); err != nil {
		return fmt.Errorf("install the functions and views of schema walhook: %w", err)
	}
	if _, err := conn.Exec(ctx, EnsurePartitions.SQL, nil); err != nil {
		return fmt.Errorf("create the log's partitions: %w", err)
	}
	return nil
}

// InstallSource installs what the application's database needs when the store is elsewhere: the function walhook.silence.
func InstallSource(ctx context.Context, conn *pgx.Conn) error {
	text, err := schemaFiles.ReadFile(sourceFile)
	if err != nil {
		return fmt.Errorf("read %s: %w", sourceFile, err)
	}
	if _, err := conn.Exec(ctx, createSchema+string(text)); err != nil {
		return fmt.Errorf("install walhook.silence in the application's database: %w", err)
	}
	return nil
}

// CheckVersion returns a *VersionError unless the store's schema is exactly this binary's.
func CheckVersion(ctx context.Context, conn *pgx.Conn) error {
	have, err := Version(ctx, conn)
	if err != nil {
		return err
	}
	migrations, err := loadMigrations()
	if err != nil {
		return err
	}
	if want := int32(len(migrations)); have != want {
		return &VersionError{Have: have, Want: want}
	}
	return nil
}

// Version returns the version of the store's schema, 0 where there is none.
func Version(ctx context.Context, conn *pgx.Conn) (int32, error) {
	// Asked first, because an error would stand in the server's log.
	var exists bool
	if err := conn.QueryRow(ctx, "select pg_catalog.to_regclass($1) is not null", versionTable).Scan(&exists); err != nil {
		return 0, fmt.Errorf("look for the schema of the store: %w", err)
	}
	if !exists {
		return 0, nil
	}
	var version int32
	err := conn.QueryRow(ctx, "select version from "+versionTable).Scan(&version)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read the schema version of the store: %w", err)
	}
	return version, nil
}

// Script returns the SQL that Install runs on a store at the given version, for people to read.
func Script(have int32) (string, error) {
	migrations, err := loadMigrations()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if have == 0 {
		b.WriteString(createSchema)
		fmt.Fprintf(&b, "create table if not exists %s(version int4 not null);\ninsert into %s(version) select 0 where 0 = (select count(*) from %s);\n",
			versionTable, versionTable, versionTable)
	}
	for _, m := range migrations {
		if m.Sequence > have {
			fmt.Fprintf(&b, "\nbegin; -- %s\n%s\nupdate %s set version = %d;\ncommit;\n", m.Name, m.UpSQL, versionTable, m.Sequence)
		}
	}
	code, err := codeText()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "\nbegin; -- functions, views and grants\n%s\ncommit;\n", code)
	b.WriteString("select walhook.ensure_partitions();\n")
	return b.String(), nil
}

// SourceScript returns the SQL that InstallSource runs.
func SourceScript() (string, error) {
	text, err := schemaFiles.ReadFile(sourceFile)
	return createSchema + string(text), err
}

func loadMigrations() ([]*migrate.Migration, error) {
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
}

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
