package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/condition"
)

// Table describes a table.
type Table struct {
	OID          uint32
	Name         cdc.Name
	Kind         string // pg_class.relkind: r plain, p partitioned, ...
	Persistence  string // pg_class.relpersistence: p permanent, u unlogged, t temporary
	Columns      map[string]uint32
	Modifiers    map[string]int32 // of the columns' types; -1: none
	Types        map[string]condition.Type
	Generated    map[string]bool // generated columns
	PrimaryKey   []string
	Uniques      [][]string // columns of each valid unique index over plain columns that is not deferrable
	ImmediateSQL string     // statement that replaces a deferrable primary key; empty: there is none
	Identities   []Identity // of the table itself, or of each leaf partition
	Rows         float64    // the planner's estimate
	Bytes        int64      // set by measure; -1: unknown
	RowSecurity  bool       // row-level security hides rows from the connected role
	IsOwner      bool       // the connected role has the owner's rights
	Inherited    bool       // other tables that are not partitions inherit from it
	Ancestors    []Ancestor // the tables that it is a partition of, the nearest first

	// AttachedPartitions lists partitions that used to be standalone tables, with the xmin of the catalog rows that
	// attached them. Only PostgreSQL 14 needs it: its walsender keeps omitting relations that it has once omitted.
	AttachedPartitions string
}

// Ancestor is a partitioned table that another one is a partition of.
type Ancestor struct {
	OID  uint32
	Name cdc.Name
}

// Identity is the replica identity of a plain table or of a partition.
type Identity struct {
	Table   string
	Setting string   // pg_class.relreplident: d default, i index, f full, n nothing
	Logged  bool     // its changes are in the WAL
	File    uint32   // pg_class.relfilenode: changes with TRUNCATE and with a rewrite
	Empty   bool     // according to the catalog, which TRUNCATE updates
	Columns []string // empty if an update or delete cannot be published

	// Usable maps each column to the smallest REPLICA IDENTITY setting that covers it, such as USING INDEX name.
	Usable map[string]string
}

// Covering returns the statement that sets a replica identity with the column; ok is false if no index allows one.
func (i *Identity) Covering(column string) (statement string, ok bool) {
	setting, ok := i.Usable[column]
	return fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY %s", i.Table, setting), ok
}

// LogSQL is the statement that gets the changes of an unlogged table into the WAL.
func (i *Identity) LogSQL() string { return fmt.Sprintf("ALTER TABLE %s SET LOGGED;", i.Table) }

// columnType returns a column's type.
func (t *Table) columnType(column string) cdc.ColumnType {
	modifier, limited := t.Modifiers[column]
	if !limited {
		modifier = -1
	}
	return cdc.ColumnType{OID: t.Columns[column], Modifier: modifier}
}

// Partitioned reports whether the table is partitioned.
func (t *Table) Partitioned() bool { return t.Kind == "p" }

// partitionTree begins a query on a table and, if it is partitioned, all its partitions. Unlike pg_partition_tree it
// does not lock them.
func partitionTree(oid string) string {
	return `with recursive tree (relid) as (
		select ` + oid + ` union all
		select i.inhrelid from tree t
		  join pg_catalog.pg_class p on p.oid = t.relid and p.relkind = 'p'
		  join pg_catalog.pg_inherits i on i.inhparent = t.relid and not i.inhdetachpending)`
}

// measure reads the table's size, which needs a lock. It gives up if another session has locked the table.
func (t *Table) measure(ctx context.Context, conn *pgx.Conn) error {
	work := &pgx.Batch{}
	work.Queue("select pg_catalog.set_config('lock_timeout', '500ms', true)")
	work.Queue(partitionTree("$1::oid")+" select coalesce(sum(pg_catalog.pg_table_size(relid)), 0)::bigint from tree", t.OID).
		QueryRow(func(row pgx.Row) error { return row.Scan(&t.Bytes) })
	err := conn.SendBatch(ctx, work).Close()
	if cdc.SQLState(err) == pgerrcode.LockNotAvailable {
		t.Bytes, err = -1, nil
	}
	if err != nil {
		return fmt.Errorf("measure table %s: %w", t.Name.Display(), err)
	}
	return nil
}

// InspectTable reads a table from the catalog. It returns nil if no table has that name. It does not wait for locks
// on the table.
func InspectTable(ctx context.Context, conn *pgx.Conn, name cdc.Name) (*Table, error) {
	t := &Table{
		Name: name, Columns: map[string]uint32{}, Modifiers: map[string]int32{}, Generated: map[string]bool{},
		Types: map[string]condition.Type{},
	}
	err := conn.QueryRow(ctx, `
		select c.oid, c.relkind::text, c.relpersistence::text, pg_catalog.row_security_active(c.oid),
		       pg_catalog.pg_has_role(c.relowner, 'usage'),
		       (`+partitionTree("c.oid")+`
		        select coalesce(sum(greatest(l.reltuples, 0)), 0) from pg_catalog.pg_class l join tree on tree.relid = l.oid),
		       c.relkind <> 'p' and exists (select from pg_catalog.pg_inherits i where i.inhparent = c.oid)
		  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		 where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p', 'v', 'm', 'f')`, name.Schema, name.Table).
		Scan(&t.OID, &t.Kind, &t.Persistence, &t.RowSecurity, &t.IsOwner, &t.Rows, &t.Inherited)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up table %s: %w", name.Display(), err)
	}

	if err := t.readColumns(ctx, conn); err != nil {
		return nil, err
	}
	if err := t.readIndexes(ctx, conn); err != nil {
		return nil, err
	}
	if err := t.readAttachedPartitions(ctx, conn); err != nil {
		return nil, err
	}
	if err := t.readAncestors(ctx, conn); err != nil {
		return nil, err
	}
	return t, t.readIdentities(ctx, conn)
}

// readColumns reads the columns. Domains are resolved to their base type, as in the stream.
func (t *Table) readColumns(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		select a.attname::text, b.oid, a.atttypmod, a.attgenerated <> '',
		       pg_catalog.format_type(a.atttypid, a.atttypmod), b.typtype::text,
		       array(select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = b.oid order by e.enumsortorder),
		       coalesce(c.oid, 0), coalesce(c.collname::text, ''), coalesce(c.collisdeterministic, true),
		       coalesce(pg_catalog.getdatabaseencoding() in ('UTF8', 'LATIN1', 'SQL_ASCII') and case c.collprovider
		         when 'b' then true
		         when 'c' then c.collcollate in ('C', 'POSIX')
		         when 'd' then (select l.provider = 'b' or l.provider = 'c' and d.datcollate in ('C', 'POSIX')
		                          from pg_catalog.pg_database d,
		                               lateral (select coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') as provider) l
		                         where d.datname = pg_catalog.current_database())
		       end, false)
		  from pg_catalog.pg_attribute a
		  join pg_catalog.pg_type b on b.oid = (
		         with recursive t as (
		           select oid, typbasetype from pg_catalog.pg_type where oid = a.atttypid
		           union all
		           select b.oid, b.typbasetype from t join pg_catalog.pg_type b on b.oid = t.typbasetype)
		         select oid from t where typbasetype = 0)
		  left join pg_catalog.pg_collation c on c.oid = a.attcollation
		 where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped`, t.OID)
	if err != nil {
		return fmt.Errorf("look up the columns of %s: %w", t.Name.Display(), err)
	}
	var (
		column, kind string
		modifier     int32
		generated    bool
		of           condition.Type
		collation    condition.Collation
	)
	_, err = pgx.ForEachRow(rows, []any{
		&column, &of.OID, &modifier, &generated, &of.Name, &kind, &of.Labels,
		&collation.OID, &collation.Name, &collation.Deterministic, &collation.Bytewise,
	}, func() error {
		of := of
		of.Kind = kind[0]
		if collation.OID != 0 {
			collation := collation
			of.Collation = &collation
		}
		t.Columns[column], t.Modifiers[column], t.Generated[column], t.Types[column] = of.OID, modifier, generated, of
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up the columns of %s: %w", t.Name.Display(), err)
	}
	return nil
}

// readAttachedPartitions recognises a partition that was created as such by a system column, whose catalog row is as
// old as the table.
func (t *Table) readAttachedPartitions(ctx context.Context, conn *pgx.Conn) error {
	if t.Kind != "p" {
		return nil
	}
	err := conn.QueryRow(ctx, partitionTree("$1::oid")+`
		select coalesce(string_agg(i.inhrelid || ':' || i.xmin, ' ' order by i.inhrelid), '')
		  from tree p
		  join pg_catalog.pg_inherits i on i.inhrelid = p.relid
		  join pg_catalog.pg_attribute a on a.attrelid = p.relid and a.attname = 'tableoid' and a.attnum < 0
		 where current_setting('server_version_num')::int < 150000 and a.xmin <> i.xmin`, t.OID).Scan(&t.AttachedPartitions)
	if err != nil {
		return fmt.Errorf("look up the partitions of %s: %w", t.Name.Display(), err)
	}
	return nil
}

func (t *Table) readAncestors(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		with recursive ancestor (oid, level) as (
		  select i.inhparent, 1 from pg_catalog.pg_inherits i where i.inhrelid = $1
		  union all
		  select i.inhparent, a.level + 1 from ancestor a join pg_catalog.pg_inherits i on i.inhrelid = a.oid)
		select a.oid, n.nspname::text, c.relname::text
		  from ancestor a
		  join pg_catalog.pg_class c on c.oid = a.oid and c.relkind = 'p'
		  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		 order by a.level`, t.OID)
	if err == nil {
		t.Ancestors, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Ancestor, err error) {
			return a, row.Scan(&a.OID, &a.Name.Schema, &a.Name.Table)
		})
	}
	if err != nil {
		return fmt.Errorf("look up what %s is a partition of: %w", t.Name.Display(), err)
	}
	return nil
}

func (t *Table) readIndexes(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		select i.indisprimary, case when not i.indimmediate then coalesce((
		         select format('ALTER TABLE %s DROP CONSTRAINT %I, ADD %s;', i.indrelid::regclass, k.conname,
		                       regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' DEFERRABLE.*', ''))
		           from pg_catalog.pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u')), '') else '' end,
		       i.indimmediate, array(select a.attname::text from pg_catalog.pg_attribute a
		                              where a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1]))
		  from pg_catalog.pg_index i
		 where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null`, t.OID)
	if err != nil {
		return fmt.Errorf("look up the indexes of %s: %w", t.Name.Display(), err)
	}
	var primary, immediate bool
	var replace string
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&primary, &replace, &immediate, &columns}, func() error {
		switch {
		case immediate:
			t.Uniques = append(t.Uniques, slices.Clone(columns))
		case primary:
			t.ImmediateSQL = replace
		}
		if primary {
			t.PrimaryKey = slices.Clone(columns)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up the indexes of %s: %w", t.Name.Display(), err)
	}
	return nil
}

// identityColumns are the columns of the replica identity of c, a row of pg_class.
const identityColumns = `case c.relreplident
		         when 'f' then array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
		         else array(select a.attname::text
		                      from pg_catalog.pg_index i
		                      join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])
		                     where i.indrelid = c.oid and i.indisvalid
		                       and (c.relreplident = 'd' and i.indisprimary and i.indimmediate or c.relreplident = 'i' and i.indisreplident))
		       end`

// readIdentities reads the replica identities that PostgreSQL checks: that of the table, or of each leaf partition.
func (t *Table) readIdentities(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, partitionTree("$1::oid")+`
		select c.oid::regclass::text, c.relreplident::text, c.relpersistence = 'p', c.relfilenode, c.relpages = 0,
		       `+identityColumns+`,
		       coalesce((select jsonb_object_agg(u.attname, u.setting)
		          from (select distinct on (a.attname) a.attname,
		                       case when i.indisprimary then 'DEFAULT'
		                            else 'USING INDEX ' || quote_ident(x.relname) end as setting
		                  from pg_catalog.pg_index i
		                  join pg_catalog.pg_class x on x.oid = i.indexrelid
		                  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])
		                 where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
		                   and i.indpred is null and i.indexprs is null
		                   and not exists (select from pg_catalog.pg_attribute n
		                                    where n.attrelid = i.indrelid and not n.attnotnull
		                                      and n.attnum = any(i.indkey[0:i.indnkeyatts - 1]))
		                 order by a.attname, i.indisprimary desc, i.indnkeyatts, x.relname) u), '{}')
		  from pg_catalog.pg_class c
		 where c.oid in (select relid from tree) and c.relkind <> 'p'
		 order by 1`, t.OID)
	if err != nil {
		return fmt.Errorf("look up the replica identity of %s: %w", t.Name.Display(), err)
	}
	var identity Identity
	_, err = pgx.ForEachRow(
		rows,
		[]any{
			&identity.Table, &identity.Setting, &identity.Logged, &identity.File, &identity.Empty, &identity.Columns,
			&identity.Usable,
		},
		func() error {
			t.Identities = append(t.Identities, identity)
			identity = Identity{}
			return nil
		},
	)
	if err != nil {
		return fmt.Errorf("look up the replica identity of %s: %w", t.Name.Display(), err)
	}
	return nil
}
