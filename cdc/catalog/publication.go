package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/session"
)

// The values of WALHOOK_PUBLISH.
const (
	PublishAll    = "all"
	PublishMapped = "mapped"
)

// columnListVersion is the first server version with column lists in publications.
const columnListVersion = 150000

// PublicationSpec is the publication that walhook needs.
type PublicationSpec struct {
	Name    string
	Slot    string // the slot whose daemon reads it
	publish string
	tables  []publishedTable
}

type publishedTable struct {
	info    *Table
	needed  []string // the mapped columns and those of the replica identity
	columns []string // the column list; nil: none
}

// NewPublicationSpec returns the publication that the mapping needs; assessment may be nil.
func NewPublicationSpec(name, slot, publish string, m cdc.Mapping, respondent, assessment *Table) PublicationSpec {
	spec := PublicationSpec{Name: name, Slot: slot, publish: publish}
	add := func(info *Table, mapped []string) {
		table := publishedTable{info: info, needed: slices.Clone(mapped)}
		// PostgreSQL rejects the application's updates if a column list lacks a column of the replica identity.
		for _, identity := range info.Identities {
			for _, column := range identity.Columns {
				if !slices.Contains(table.needed, column) {
					table.needed = append(table.needed, column)
				}
			}
		}
		if publish == PublishMapped {
			table.columns = table.needed
		}
		spec.tables = append(spec.tables, table)
	}
	add(respondent, m.RespondentColumns())
	if assessment != nil {
		add(assessment, m.AssessmentColumns())
	}
	return spec
}

func (t publishedTable) sql() string {
	if t.columns == nil {
		return t.info.Name.String()
	}
	return t.info.Name.String() + " (" + QuoteIdentifiers(t.columns) + ")"
}

// tableList lists the tables as CREATE and ALTER PUBLICATION take them.
func (p PublicationSpec) tableList() string {
	tables := make([]string, len(p.tables))
	for i, table := range p.tables {
		tables[i] = table.sql()
	}
	return strings.Join(tables, ", ")
}

// createSQL is the statement that creates the publication.
func (p PublicationSpec) createSQL() string {
	return fmt.Sprintf("create publication %s for table %s\n  with (%s)",
		pgx.Identifier{p.Name}.Sanitize(), p.tableList(), publicationOptions)
}

const publicationOptions = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"

// PublicationMark begins the comment of a publication that walhook created; the slot's name follows. Slot names are
// unique, so the comment distinguishes installations on one database, and publications that walhook did not create.
// walhook.unpublish relies on it too.
const PublicationMark = "walhook, for slot "

// MarkSQL is the statement that marks the publication as created for the slot.
func (p PublicationSpec) MarkSQL() string {
	return fmt.Sprintf("comment on publication %s is '%s%s'", pgx.Identifier{p.Name}.Sanitize(), PublicationMark, p.Slot)
}

// Publication is a publication that exists.
type Publication struct {
	name               string
	Owner              bool   // the connected role has the owner's rights
	Slot               string // for which walhook created it; empty: walhook did not, or an older version did
	allTables, viaRoot bool
	schemas            map[string]string // of FOR TABLES IN SCHEMA: name to oid and xmin of the row in pg_publication_namespace
	actions            [4]bool           // insert, update, delete, truncate
	tables             map[uint32][]string
	filtered           map[uint32]bool // tables with a row filter

	catalogRow string            // oid and xmin of its row in pg_publication
	tableRows  map[uint32]string // the same for the tables' rows in pg_publication_rel
}

// publishesSchemas reports whether it publishes whole schemas or all tables.
func (p *Publication) publishesSchemas() bool { return p.allTables || len(p.schemas) > 0 }

// includes reports whether the publication includes the table, explicitly or implicitly.
func (p *Publication) includes(table *Table) bool { return p.includesName(table.OID, table.Name) }

func (p *Publication) includesName(oid uint32, name cdc.Name) bool {
	_, named := p.tables[oid]
	_, schema := p.schemas[name.Schema]
	return named || schema || p.allTables
}

// publishedAncestor returns a table whose changes include those of the table if the publication publishes via the
// partition root.
func (p *Publication) publishedAncestor(table *Table) (name cdc.Name, found bool) {
	for _, a := range table.Ancestors {
		if p.includesName(a.OID, a.Name) {
			return a.Name, true
		}
	}
	return name, false
}

// IncludesImplicitly reports whether the table is published as part of a schema or of all tables, and so without
// column list and row filter.
func (p *Publication) IncludesImplicitly(table *Table) bool {
	_, schema := p.schemas[table.Name.Schema]
	return schema || p.allTables
}

// CatalogRows identifies the catalog rows that publish these tables, with the transactions that wrote them. They
// change when the publication is recreated, or a table is removed and added, however quickly: changes in between were
// not streamed. They also change when PostgreSQL 14 does not stream a partition because it used to be a standalone
// table.
func (p *Publication) CatalogRows(tables ...*Table) string {
	if p == nil {
		return ""
	}
	rows := []string{p.catalogRow}
	for _, table := range tables {
		if table != nil {
			rows = append(rows, p.tableRows[table.OID]+p.schemas[table.Name.Schema])
			if table.AttachedPartitions != "" {
				rows = append(rows, table.AttachedPartitions)
			}
		}
	}
	return strings.Join(rows, " ")
}

// InspectPublication reads the publication. It returns nil if there is none.
func InspectPublication(ctx context.Context, conn *pgx.Conn, name string) (*Publication, error) {
	p := &Publication{
		name: name, schemas: map[string]string{}, tables: map[uint32][]string{}, filtered: map[uint32]bool{},
		tableRows: map[uint32]string{},
	}
	var oid uint32
	var comment string
	err := conn.QueryRow(ctx, `select oid, oid || ':' || xmin, puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate,
		pg_catalog.pg_has_role(pubowner, 'usage'), coalesce(pg_catalog.obj_description(oid, 'pg_publication'), '')
		from pg_catalog.pg_publication where pubname = $1`, name).
		Scan(&oid, &p.catalogRow, &p.allTables, &p.viaRoot, &p.actions[0], &p.actions[1], &p.actions[2], &p.actions[3],
			&p.Owner, &comment)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up publication %q: %w", name, err)
	}
	p.Slot, _ = strings.CutPrefix(comment, PublicationMark)
	if p.Slot == comment {
		p.Slot = ""
	}
	var version int
	if err := conn.QueryRow(ctx, "select current_setting('server_version_num')::int").Scan(&version); err != nil {
		return nil, fmt.Errorf("look up publication %q: %w", name, err)
	}
	columns, filter := "null::text[]", "false"
	if version >= columnListVersion {
		columns = `(select array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
		             where a.attrelid = r.prrelid and a.attnum = any(r.prattrs))`
		filter = "r.prqual is not null"
		if err := p.inspectSchemas(ctx, conn, oid); err != nil {
			return nil, fmt.Errorf("look up the schemas of publication %q: %w", name, err)
		}
	}
	rows, err := conn.Query(ctx,
		"select r.prrelid, r.oid || ':' || r.xmin, "+filter+", "+columns+" from pg_catalog.pg_publication_rel r where r.prpubid = $1",
		oid)
	if err != nil {
		return nil, fmt.Errorf("look up the tables of publication %q: %w", name, err)
	}
	var (
		table    uint32
		row      string
		filtered bool
		list     []string
	)
	_, err = pgx.ForEachRow(rows, []any{&table, &row, &filtered, &list}, func() error {
		p.tables[table], p.tableRows[table], p.filtered[table] = slices.Clone(list), row, filtered
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up the tables of publication %q: %w", name, err)
	}
	return p, nil
}

func (p *Publication) inspectSchemas(ctx context.Context, conn *pgx.Conn, oid uint32) error {
	rows, err := conn.Query(ctx, `select n.nspname, p.oid || ':' || p.xmin
		from pg_catalog.pg_publication_namespace p join pg_catalog.pg_namespace n on n.oid = p.pnnspid where p.pnpubid = $1`, oid)
	if err != nil {
		return err
	}
	var schema, row string
	_, err = pgx.ForEachRow(rows, []any{&schema, &row}, func() error {
		p.schemas[schema] = row
		return nil
	})
	return err
}

// Drift describes how the publication differs from the spec. It returns nil if it does not.
func (p PublicationSpec) Drift(have *Publication) []string {
	if have == nil {
		return []string{fmt.Sprintf("publication %q does not exist", p.Name)}
	}
	var drift []string
	for i, action := range []string{"insert", "update", "delete", "truncate"} {
		if !have.actions[i] {
			drift = append(drift, fmt.Sprintf("publication %q does not publish %s", p.Name, action))
		}
	}
	if have.viaRoot {
		for _, table := range p.tables {
			if ancestor, found := have.publishedAncestor(table.info); found {
				drift = append(drift, fmt.Sprintf(
					"publication %q publishes changes of %s as those of %s, since it publishes via the partition root",
					p.Name, table.info.Name.Display(), ancestor.Display()))
			}
		}
	} else {
		for _, table := range p.tables {
			if table.info.Partitioned() {
				drift = append(drift, fmt.Sprintf("publication %q does not publish via the partition root", p.Name))
				break
			}
		}
	}
	for _, table := range p.tables {
		if have.IncludesImplicitly(table.info) {
			continue
		}
		columns := have.tables[table.info.OID]
		switch {
		case !have.includes(table.info):
			drift = append(drift, fmt.Sprintf("publication %q lacks table %s", p.Name, table.info.Name.Display()))
		case columns != nil && !covers(columns, table):
			drift = append(drift,
				fmt.Sprintf("the column list of %s in publication %q lacks mapped columns", table.info.Name.Display(), p.Name))
		}
		if have.filtered[table.info.OID] {
			drift = append(drift,
				fmt.Sprintf("a row filter in publication %q hides rows of %s", p.Name, table.info.Name.Display()))
		}
	}
	return drift
}

// excess describes what the publication publishes beyond the mapped columns although WALHOOK_PUBLISH is mapped.
func (p PublicationSpec) excess(have *Publication) []string {
	var found []string
	for _, table := range p.tables {
		columns := have.tables[table.info.OID]
		switch {
		case p.publish != PublishMapped || !have.includes(table.info):
		case have.IncludesImplicitly(table.info) || columns == nil:
			found = append(found, fmt.Sprintf("publication %q publishes every column of %s", p.Name, table.info.Name.Display()))
		case slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(table.needed, c) }):
			found = append(found,
				fmt.Sprintf("publication %q publishes more than the mapped columns of %s", p.Name, table.info.Name.Display()))
		}
	}
	return found
}

// Refusals returns the reasons not to use the existing publication. recorded is the attachment that may have created
// it, or nil.
func (p PublicationSpec) Refusals(have *Publication, recorded *Attachment) []Finding {
	refuse := func(what, remedy string) []Finding {
		return []Finding{{Check: "publication", Level: Fail, Found: what, Remedy: remedy}}
	}
	const another = "set WALHOOK_PUBLICATION to another name, under which walhook creates its own"
	switch {
	case have == nil || recorded.OwnsPublication(have, p.Slot):
	case have.Slot != "":
		return refuse(fmt.Sprintf("publication %q belongs to another walhook, which reads slot %q", p.Name, have.Slot), another)
	case recorded.Complete():
		// It was accepted as it was, and may have been changed since to protect the application's writes.
	case len(p.Drift(have)) > 0:
		return refuse(fmt.Sprintf("publication %q exists, and walhook did not create it: %s", p.Name,
			strings.Join(p.Drift(have), "; ")),
			another)
	case len(p.excess(have)) > 0:
		return refuse(fmt.Sprintf("WALHOOK_PUBLISH is mapped, and walhook did not create this publication: %s",
			strings.Join(p.excess(have), "; ")),
			another)
	}
	return nil
}

// OwnsPublication reports whether this installation created the publication, and so may alter and drop it.
func (a *Attachment) OwnsPublication(have *Publication, slot string) bool {
	switch {
	case have.Slot == slot:
		return true
	case a == nil:
		return false
	case have.Slot != "":
		return have.Slot == a.Slot || have.Slot == a.NextSlot
	}
	// An older version did not mark it, and dropped any publication of that name.
	return a.Publication == have.name && (a.PublicationCreated == nil || *a.PublicationCreated) &&
		!have.publishesSchemas()
}

func covers(columns []string, table publishedTable) bool {
	return !slices.ContainsFunc(table.needed, func(c string) bool { return !slices.Contains(columns, c) })
}

// RepairSQL returns the statements that create the publication or alter it to match the spec.
func (p PublicationSpec) RepairSQL(have *Publication) []string {
	if have == nil {
		return []string{p.createSQL(), p.MarkSQL()}
	}
	quoted := pgx.Identifier{p.Name}.Sanitize()
	options := publicationOptions
	if slices.ContainsFunc(p.tables, func(t publishedTable) bool {
		_, found := have.publishedAncestor(t.info)
		return found && have.publishesSchemas() // otherwise the ancestor is taken out
	}) {
		options = strings.Replace(options, "root = true", "root = false", 1)
	}
	statements := []string{fmt.Sprintf("alter publication %s set (%s)", quoted, options)}
	switch {
	case have.allTables:
	case len(have.schemas) > 0:
		// SET TABLE would remove the schemas.
		for _, table := range p.tables {
			if have.IncludesImplicitly(table.info) {
				continue
			}
			if have.includes(table.info) {
				statements = append(statements, fmt.Sprintf("alter publication %s drop table %s", quoted, table.info.Name))
			}
			statements = append(statements, fmt.Sprintf("alter publication %s add table %s", quoted, table.sql()))
		}
	default:
		statements = append(statements, fmt.Sprintf("alter publication %s set table %s", quoted, p.tableList()))
	}
	return statements
}

// CheckWritesSQL returns a statement that fails if PostgreSQL would reject updates of a table once it is published. It
// locks nothing.
func (p PublicationSpec) CheckWritesSQL() string {
	var b strings.Builder
	b.WriteString("do $walhook$\ndeclare\n  found record;\nbegin\n")
	for _, table := range p.tables {
		list := "null::text[]"
		if table.columns != nil {
			quoted := make([]string, len(table.columns))
			for i, column := range table.columns {
				quoted[i] = session.QuoteLiteral(column)
			}
			list = "array[" + strings.Join(quoted, ", ") + "]"
		}
		fmt.Fprintf(&b, `  for found in
    %s
    select c.oid::regclass as name, c.relreplident = 'f' as is_full, %s as columns, %s as published
      from pg_catalog.pg_class c where c.oid in (select relid from tree) and c.relkind <> 'p'
  loop
    if cardinality(found.columns) = 0 then
      raise exception 'table %% has no replica identity: published, it would refuse the application''s updates and deletes', found.name;
    elsif found.published is not null and (found.is_full or not found.columns <@ found.published) then
      raise exception 'table %% has a replica identity that its column list lacks: published, it would refuse the application''s updates and deletes', found.name;
    end if;
  end loop;
`, partitionTree(session.QuoteLiteral(table.info.Name.String())+"::regclass::oid"), identityColumns, list)
	}
	b.WriteString("end $walhook$;")
	return b.String()
}

// QuotePublication quotes a publication name for the option publication_names, a list of identifiers in a literal.
func QuotePublication(name string) string {
	return strings.ReplaceAll(pgx.Identifier{name}.Sanitize(), "'", "''")
}

// RepairPublication creates or repairs the publication, and marks it if this installation created it.
func RepairPublication(ctx context.Context, source *pgx.Conn, p *Preflight, recorded *Attachment) error {
	var statements []string
	if len(p.PublicationSpec.Drift(p.Publication)) > 0 {
		statements = p.PublicationSpec.RepairSQL(p.Publication)
	}
	if have := p.Publication; have != nil && have.Owner && have.Slot != p.PublicationSpec.Slot &&
		recorded.OwnsPublication(have, p.PublicationSpec.Slot) {
		statements = append(statements, p.PublicationSpec.MarkSQL())
	}
	for _, statement := range statements {
		if _, err := source.Exec(ctx, statement); err != nil {
			return fmt.Errorf("make publication %q (%s): %w", p.PublicationSpec.Name, statement, err)
		}
	}
	return nil
}

// ExtendSQL returns the statements that make the publication publish what the spec needs, besides what it publishes
// already. The catalog rows of tables that it publishes as needed stay.
func (p PublicationSpec) ExtendSQL(have *Publication) []string {
	alter := "alter publication " + pgx.Identifier{p.Name}.Sanitize()
	var statements []string
	for _, table := range p.tables {
		columns := have.tables[table.info.OID]
		switch {
		case !have.includes(table.info):
			statements = append(statements, alter+" add table "+table.sql())
		case columns != nil && !covers(columns, table):
			isListed := func(column string) bool { return slices.Contains(columns, column) }
			missing := slices.DeleteFunc(slices.Clone(table.needed), isListed)
			table.columns = append(slices.Clone(columns), missing...)
			statements = append(statements, alter+" drop table "+table.info.Name.String(), alter+" add table "+table.sql())
		}
	}
	return statements
}

// TrimSQL returns the statements that end what the publication publishes beyond the spec. Only a publication that
// walhook created may be trimmed.
func (p PublicationSpec) TrimSQL(have *Publication) []string {
	beyond := slices.ContainsFunc(slices.Collect(maps.Keys(have.tables)), func(oid uint32) bool {
		return !slices.ContainsFunc(p.tables, func(t publishedTable) bool { return t.info.OID == oid })
	})
	if have.publishesSchemas() || !beyond && len(p.excess(have)) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("alter publication %s set table %s", pgx.Identifier{p.Name}.Sanitize(), p.tableList())}
}

// WriteRefusal says why PostgreSQL rejects updates of the table while the publication includes it, or would if it
// included it without a column list; "" if it does not. The rules are those of CheckCmdReplicaIdentity.
func (t *Table) WriteRefusal(have *Publication) string {
	var list []string
	if have != nil {
		list = have.tables[t.OID]
	}
	for _, identity := range t.Identities {
		switch {
		case identity.Setting == "n":
			return fmt.Sprintf("has REPLICA IDENTITY NOTHING (ALTER TABLE %s REPLICA IDENTITY DEFAULT)", identity.Table)
		case len(identity.Columns) == 0 && t.ImmediateSQL != "":
			return fmt.Sprintf("has a deferrable primary key, which is no replica identity (%s)", strings.TrimSuffix(t.ImmediateSQL, ";"))
		case len(identity.Columns) == 0:
			return fmt.Sprintf("has lost the primary key or index that was its replica identity (give %s a primary key)",
				identity.Table)
		case list == nil:
		case identity.Setting == "f":
			return fmt.Sprintf(
				"has REPLICA IDENTITY FULL, which cannot be combined with a column list (ALTER TABLE %s REPLICA IDENTITY DEFAULT)",
				identity.Table,
			)
		default:
			for _, column := range identity.Columns {
				if !slices.Contains(list, column) {
					return fmt.Sprintf(
						"has a replica identity with the column %s, which the publication's column list lacks",
						column,
					)
				}
			}
		}
	}
	return ""
}

// Publishes reports whether the publication publishes updates or deletes of the table.
func (p *Publication) Publishes(t *Table) bool {
	if p == nil || !p.actions[1] && !p.actions[2] {
		return false
	}
	return p.includes(t)
}
