package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
)

// Table is what the catalog says of a table.
type Table struct {
	OID         uint32
	Name        cdc.Name
	Kind        string // pg_class.relkind: r plain, p partitioned, ...
	Persistence string // pg_class.relpersistence: p permanent, u unlogged, t temporary
	Columns     map[string]uint32
	Modifiers   map[string]int32 // of the columns' types; -1: none
	Generated   map[string]bool  // of the columns
	PrimaryKey  []string
	Uniques     [][]string // columns of each valid unique index over plain columns
	Identities  []Identity // of the table itself, or of each leaf partition
	Rows        float64    // the planner's estimate
	Bytes       int64      // as measure found it; -1: not known
	RowSecurity bool       // row-level security hides rows from the connected role
	IsOwner     bool       // the connected role may do what the owner may
	Inherited   bool       // other tables inherit from it, and are no partitions

	// Adopted tells which partitions were tables of their own before, as the catalog's rows that made them partitions. Only
	// PostgreSQL 14 is asked: its walsender goes on leaving out what it has once left out.
	AttachedPartitions string
}

// Identity is the replica identity of a plain table or of a partition.
type Identity struct {
	Table   string
	Setting string   // pg_class.relreplident: d default, i index, f full, n nothing
	File    uint32   // pg_class.relfilenode: another one after TRUNCATE, and after a rewrite
	Empty   bool     // as far as the catalog knows, which TRUNCATE tells it
	Columns []string // empty where an update or delete cannot be published

	// Usable has for each column the smallest setting of REPLICA IDENTITY that covers it, such as USING INDEX name.
	Usable map[string]string
}

// Covering returns the statement that gives the table a replica identity with the column; false where no index allows one.
func (i *Identity) Covering(column string) (string, bool) {
	setting, ok := i.Usable[column]
	return fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY %s", i.Table, setting), ok
}

// columnType returns the type of a column.
func (t *Table) columnType(column string) cdc.ColumnType {
	modifier, limited := t.Modifiers[column]
	if !limited {
		modifier = -1
	}
	return cdc.ColumnType{OID: t.Columns[column], Modifier: modifier}
}

// Partitioned reports whether the table is partitioned.
func (t *Table) Partitioned() bool { return t.Kind == "p" }

// partitionTree begins a query on the table tree: a table and, where it is partitioned, all its partitions. It takes no lock on them, as
// pg_partition_tree does.
func partitionTree(oid string) string {
	return `with recursive tree (relid) as (
		select ` + oid + ` union all
		select i.inhrelid from tree t
		  join pg_catalog.pg_class p on p.oid = t.relid and p.relkind = 'p'
		  join pg_catalog.pg_inherits i on i.inhparent = t.relid and not i.inhdetachpending)`
}

// measure finds the table's size. That needs a lock, which is not waited for where the application alters the table.
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

// InspectTable reads a table from the catalog, nil where there is none of that name. It waits for no lock on the table.
func InspectTable(ctx context.Context, conn *pgx.Conn, name cdc.Name) (*Table, error) {
	t := &Table{Name: name, Columns: map[string]uint32{}, Modifiers: map[string]int32{}, Generated: map[string]bool{}}
	err := conn.QueryRow(ctx, `
		select c.oid, c.relkind::text, c.relpersistence::text, pg_catalog.row_security_active(c.oid), pg_catalog.pg_has_role(c.relowner, 'usage'),
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

	// A domain's values are judged by the type beneath it, as they are in the stream.
	rows, err := conn.Query(ctx, `
		select a.attname::text,
		       (with recursive t as (
		          select oid, typbasetype from pg_catalog.pg_type where oid = a.atttypid
		          union all
		          select b.oid, b.typbasetype from t join pg_catalog.pg_type b on b.oid = t.typbasetype)
		        select oid from t where typbasetype = 0), a.atttypmod, a.attgenerated <> ''
		  from pg_catalog.pg_attribute a
		 where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped`, t.OID)
	if err != nil {
		return nil, fmt.Errorf("look up the columns of %s: %w", name.Display(), err)
	}
	var column string
	var typeOID uint32
	var modifier int32
	var generated bool
	_, err = pgx.ForEachRow(rows, []any{&column, &typeOID, &modifier, &generated}, func() error {
		t.Columns[column], t.Modifiers[column], t.Generated[column] = typeOID, modifier, generated
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up the columns of %s: %w", name.Display(), err)
	}
	if err := t.readIndexes(ctx, conn); err != nil {
		return nil, err
	}
	if err := t.readAttachedPartitions(ctx, conn); err != nil {
		return nil, err
	}
	return t, t.readIdentities(ctx, conn)
}

// readAttachedPartitions tells partitions that were made as such from others by a system column, whose row is as old as the table.
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

func (t *Table) readIndexes(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `
		select i.indisprimary, array(select a.attname::text from pg_catalog.pg_attribute a
		                              where a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1]))
		  from pg_catalog.pg_index i
		 where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null`, t.OID)
	if err != nil {
		return fmt.Errorf("look up the indexes of %s: %w", t.Name.Display(), err)
	}
	var primary bool
	var columns []string
	_, err = pgx.ForEachRow(rows, []any{&primary, &columns}, func() error {
		t.Uniques = append(t.Uniques, slices.Clone(columns))
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

// readIdentities reads the replica identity where it counts: PostgreSQL checks that of the partition a row lies in.
func (t *Table) readIdentities(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, partitionTree("$1::oid")+`
		select c.oid::regclass::text, c.relreplident::text, c.relfilenode, c.relpages = 0,
		       case c.relreplident
		         when 'f' then array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
		         else array(select a.attname::text
		                      from pg_catalog.pg_index i
		                      join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])
		                     where i.indrelid = c.oid and i.indisvalid
		                       and (c.relreplident = 'd' and i.indisprimary and i.indimmediate or c.relreplident = 'i' and i.indisreplident))
		       end,
		       coalesce((select jsonb_object_agg(u.attname, u.setting)
		          from (select distinct on (a.attname) a.attname,
		                       case when i.indisprimary then 'DEFAULT' else 'USING INDEX ' || quote_ident(x.relname) end as setting
		                  from pg_catalog.pg_index i
		                  join pg_catalog.pg_class x on x.oid = i.indexrelid
		                  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1])
		                 where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
		                   and not exists (select from pg_catalog.pg_attribute n
		                                    where n.attrelid = i.indrelid and n.attnum = any(i.indkey[0:i.indnkeyatts - 1]) and not n.attnotnull)
		                 order by a.attname, i.indisprimary desc, i.indnkeyatts, x.relname) u), '{}')
		  from pg_catalog.pg_class c
		 where c.oid in (select relid from tree) and c.relkind <> 'p'
		 order by 1`, t.OID)
	if err != nil {
		return fmt.Errorf("look up the replica identity of %s: %w", t.Name.Display(), err)
	}
	var identity Identity
	_, err = pgx.ForEachRow(rows, []any{&identity.Table, &identity.Setting, &identity.File, &identity.Empty, &identity.Columns, &identity.Usable}, func() error {
		t.Identities = append(t.Identities, identity)
		identity = Identity{}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look up the replica identity of %s: %w", t.Name.Display(), err)
	}
	return nil
}

// Slot is what pg_replication_slots says of our slot.
type Slot struct {
	Name      string
	Exists    bool
	Plugin    string
	Type      string
	Database  string // that it belongs to; empty: to none, as it is a physical one
	Local     bool   // that is the connected database
	ActivePID *int32
	Confirmed pglogrepl.LSN
	WALStatus string        // reserved, extended, unreserved or lost
	Retained  int64         // bytes of WAL that the slot keeps
	SafeBytes *int64        // bytes that may still be written before the slot is in danger; nil: no limit
	WALEnd    pglogrepl.LSN // of the server
}

// InspectSlot returns the slot of that name; where there is none, Exists is false.
func InspectSlot(ctx context.Context, conn *pgx.Conn, name string) (*Slot, error) {
	s := &Slot{Name: name}
	var (
		plugin, kind, status *string
		database             *string
		here                 *bool
		confirmed            *pglogrepl.LSN
		retained             *int64
	)
	err := conn.QueryRow(ctx, `
		select s.slot_name is not null, s.plugin::text, s.slot_type, s.database::text, s.database = current_database(), s.active_pid, s.confirmed_flush_lsn,
		       s.wal_status, (w.lsn - s.restart_lsn)::bigint, s.safe_wal_size, w.lsn
		  from (select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as lsn) w
		  left join pg_catalog.pg_replication_slots s on s.slot_name = $1`, name).
		Scan(&s.Exists, &plugin, &kind, &database, &here, &s.ActivePID, &confirmed, &status, &retained, &s.SafeBytes, &s.WALEnd)
	if err != nil {
		return nil, fmt.Errorf("look up slot %q: %w", name, err)
	}
	for _, v := range []struct {
		from *string
		to   *string
	}{{plugin, &s.Plugin}, {kind, &s.Type}, {status, &s.WALStatus}, {database, &s.Database}} {
		if v.from != nil {
			*v.to = *v.from
		}
	}
	if here != nil {
		s.Local = *here
	}
	if confirmed != nil {
		s.Confirmed = *confirmed
	}
	if retained != nil {
		s.Retained = *retained
	}
	return s, nil
}

// IsForeign reports whether the slot is there and none of this database that walhook could have made. Names of slots are those of the
// whole server.
func (s *Slot) IsForeign() bool {
	return s.Exists && (s.Type != "logical" || s.Plugin != "pgoutput" || !s.Local)
}

// DescribeForeign says what a foreign slot is.
func (s *Slot) DescribeForeign() string {
	switch {
	case s.Type != "logical":
		return fmt.Sprintf("slot %q is a physical one", s.Name)
	case !s.Local:
		return fmt.Sprintf("slot %q belongs to database %q of this server", s.Name, s.Database)
	default:
		return fmt.Sprintf("slot %q is one of the plugin %s", s.Name, s.Plugin)
	}
}

// OtherSlotRemedy never says to drop a slot: somebody may depend on it.
const OtherSlotRemedy = "slot names are shared by all databases of a server: choose another WALHOOK_SLOT"

// CheckPosition returns a *GapError unless the slot goes on exactly where the store ends, or before. The stored position stood at before and after
// when it was read before and after the slot: a daemon that runs moves both.
func (s *Slot) CheckPosition(before, after cdc.Position) error {
	switch {
	case s.IsForeign():
		return &cdc.GapError{Kind: cdc.SlotForeign, Detail: s.DescribeForeign()}
	case s.WALStatus == "lost":
		return &cdc.GapError{Kind: cdc.SlotLost, Detail: s.DescribeLost()}
	case s.WALEnd < before.LSN:
		return &cdc.GapError{Kind: cdc.ServerRestored, Detail: fmt.Sprintf("the server's WAL ends at %s, before the stored position %s: it was restored to an earlier point", s.WALEnd, before.LSN)}
	case s.Confirmed > after.LSN:
		return &cdc.GapError{Kind: cdc.SlotForeign, Detail: fmt.Sprintf("slot %q stands at %s, ahead of the stored position %s: it is another slot under the same name, or somebody else has read it", s.Name, s.Confirmed, after.LSN)}
	}
	return nil
}

// DescribeLost says that the slot was invalidated.
func (s *Slot) DescribeLost() string {
	return fmt.Sprintf("slot %q was invalidated: the server has removed WAL that it still needed", s.Name)
}

// CollectStrings returns the one column of all rows.
func CollectStrings(rows pgx.Rows, err error) ([]string, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
