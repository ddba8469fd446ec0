package catalog

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc"
)

// FailoverVersion is the first server version whose logical slots can be synchronised to a standby.
const FailoverVersion = 170000

// waitNoticeInterval is how often CreateSlot reports the transactions that it waits for.
const waitNoticeInterval = 3 * time.Second

// CreatedSlot is a new slot and the snapshot of its start. The snapshot exists until the replication connection runs
// its next command.
type CreatedSlot struct {
	Consistent pglogrepl.LSN
	Snapshot   string
}

// SlotSpec describes a slot to create.
type SlotSpec struct {
	Name      string
	failover  bool // synchronised to standbys; requires FailoverVersion
	Temporary bool // dropped with its connection
}

// PermanentSlot is the slot that the daemon reads, on a server of this version.
func PermanentSlot(name string, version int) SlotSpec {
	return SlotSpec{Name: name, failover: version >= FailoverVersion}
}

// SQL is the replication command that creates the slot.
func (s SlotSpec) SQL() string {
	temporary, options := "", "EXPORT_SNAPSHOT"
	if s.Temporary {
		temporary = "TEMPORARY "
	}
	if s.failover {
		options = "(SNAPSHOT 'export', FAILOVER true)"
	}
	return fmt.Sprintf("CREATE_REPLICATION_SLOT %s %sLOGICAL pgoutput %s", quoteSlot(s.Name), temporary, options)
}

// TemporarySlotName derives the name of a temporary slot from another slot's name. Slot names have at most 63 bytes.
func TemporarySlotName(beside string) string {
	return fmt.Sprintf("%.40s_compare_%d", beside, os.Getpid())
}

// CreateSlot creates the slot, which waits for every running transaction. It queries those on watch, an ordinary
// connection, and passes them to note.
func CreateSlot(
	ctx context.Context, replication *pgconn.PgConn, watch *pgx.Conn, slot SlotSpec, note func(string),
) (CreatedSlot, error) {
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-done:
				return
			case <-time.After(waitNoticeInterval):
			}
			if blockers, err := RunningTransactions(ctx, watch); err == nil && blockers != "" {
				note("creating the slot waits for transactions that are running: " + blockers)
			}
		}
	}()
	result, err := pglogrepl.ParseCreateReplicationSlot(replication.Exec(ctx, slot.SQL()))
	close(done)
	<-watched
	if cdc.SQLState(err) == pgerrcode.DuplicateObject { // created since the check
		if there, lookErr := InspectSlot(ctx, watch, slot.Name); lookErr == nil && there.IsForeign() {
			err = fmt.Errorf("%w; %s", err, there.DescribeForeign())
		}
		return CreatedSlot{}, fmt.Errorf("create slot %q: %w; %s", slot.Name, err, OtherSlotRemedy)
	}
	if err != nil {
		return CreatedSlot{}, fmt.Errorf("create slot %q: %w", slot.Name, err)
	}
	consistent, err := pglogrepl.ParseLSN(result.ConsistentPoint)
	if err != nil {
		return CreatedSlot{}, fmt.Errorf("create slot %q: %w", slot.Name, err)
	}
	return CreatedSlot{Consistent: consistent, Snapshot: result.SnapshotName}, nil
}

// RunningTransactions describes the transactions that have an id, oldest first. pg_locks shows them to every role.
func RunningTransactions(ctx context.Context, conn *pgx.Conn) (string, error) {
	rows, err := conn.Query(ctx, `
		select coalesce(l.pid, 0), coalesce(extract(epoch from now() - a.xact_start), -1)::int
		  from pg_catalog.pg_locks l left join pg_catalog.pg_stat_activity a on a.pid = l.pid
		 where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted and l.pid is distinct from pg_backend_pid()
		 order by a.xact_start nulls last limit 5`)
	if err != nil {
		return "", fmt.Errorf("look up running transactions: %w", err)
	}
	var texts []string
	var pid, age int
	_, err = pgx.ForEachRow(rows, []any{&pid, &age}, func() error {
		switch {
		case pid == 0:
			texts = append(texts, "a prepared transaction (see pg_prepared_xacts)")
		case age < 0:
			texts = append(texts, fmt.Sprintf("pid %d", pid))
		default:
			texts = append(texts, fmt.Sprintf("pid %d, running for %s", pid, time.Duration(age)*time.Second))
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("look up running transactions: %w", err)
	}
	return strings.Join(texts, "; "), nil
}

// DropSlot drops the slot if it exists and may be walhook's: slot names are shared by the server, and another
// database may use this one. The caller makes sure that this installation has recorded the slot. A walsender that has
// lost its client may hold the slot for as long as it waits for a transaction; DropSlot terminates it if it is
// walhook's. The slot that such a walsender was creating vanishes with it, possibly between lookup and drop.
func DropSlot(ctx context.Context, source *pgx.Conn, name string) error {
	deadline := time.Now().Add(DialTimeout)
	for {
		if _, err := source.Exec(ctx, TerminateStaleWalsenderSQL, name); err != nil {
			return fmt.Errorf("end the walsender that a dead connection left on slot %q: %w", name, err)
		}
		_, err := source.Exec(ctx, dropSlotSQL, name)
		if err == nil || cdc.SQLState(err) == pgerrcode.UndefinedObject {
			return nil
		}
		if cdc.SQLState(err) != pgerrcode.ObjectInUse || time.Now().After(deadline) {
			return fmt.Errorf("drop slot %q: %w", name, err)
		}
		select {
		case <-time.After(LockRetryInterval / 2):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const (
	// OwnSlotCondition matches the slots of the connected database that walhook may have created.
	OwnSlotCondition = "s.database = current_database() and s.slot_type = 'logical' and s.plugin = 'pgoutput'"

	dropSlotSQL = "select pg_drop_replication_slot(s.slot_name) from pg_catalog.pg_replication_slots s " +
		"where s.slot_name = $1 and " + OwnSlotCondition

	// TerminateStaleWalsenderSQL terminates the walsender that holds a slot if it runs as our role and application
	// name.
	TerminateStaleWalsenderSQL = `select pg_terminate_backend(a.pid)
	from pg_catalog.pg_replication_slots s join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
	where s.slot_name = $1 and a.usename = current_user and a.application_name = current_setting('application_name') and ` + OwnSlotCondition
)

// quoteSlot quotes a slot name for the replication grammar. Names contain only lower-case letters, digits and
// underscores.
func quoteSlot(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Slot is a row of pg_replication_slots.
type Slot struct {
	Name      string
	Exists    bool
	Plugin    string
	Type      string
	Database  string // empty for a physical slot
	Local     bool   // the slot belongs to the connected database
	ActivePID *int32
	Confirmed pglogrepl.LSN
	WALStatus string        // reserved, extended, unreserved or lost
	Retained  int64         // bytes of WAL that the slot retains
	SafeBytes *int64        // bytes that may be written before the slot is in danger; nil: unlimited
	WALEnd    pglogrepl.LSN // of the server
}

// InspectSlot returns the slot of that name. Exists is false if there is none.
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
		select s.slot_name is not null, s.plugin::text, s.slot_type, s.database::text, s.database = current_database(),
		       s.active_pid, s.confirmed_flush_lsn,
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

// IsRead reports whether a daemon reads the slot.
func (s *Slot) IsRead() bool { return s.Exists && !s.IsForeign() && s.ActivePID != nil }

// IsForeign reports whether the slot exists but cannot be walhook's: it is not a pgoutput slot of this database. Slot
// names are shared by the whole server.
func (s *Slot) IsForeign() bool {
	return s.Exists && (s.Type != "logical" || s.Plugin != "pgoutput" || !s.Local)
}

// DescribeForeign says why a slot is foreign.
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

// OtherSlotRemedy does not suggest to drop the slot: somebody may depend on it.
const OtherSlotRemedy = "slot names are shared by all databases of a server: choose another WALHOOK_SLOT"

// CheckPosition returns a *GapError unless the slot continues at the stored position or earlier. before and after are
// the stored positions read before and after the slot was inspected: a running daemon advances both.
func (s *Slot) CheckPosition(before, after cdc.Position) error {
	switch {
	case s.IsForeign():
		return &cdc.GapError{Kind: cdc.SlotForeign, Detail: s.DescribeForeign()}
	case s.WALStatus == "lost":
		return &cdc.GapError{Kind: cdc.SlotLost, Detail: s.DescribeLost()}
	case s.WALEnd < before.LSN:
		return &cdc.GapError{
			Kind: cdc.ServerRestored,
			Detail: fmt.Sprintf(
				"the server's WAL ends at %s, before the stored position %s: it was restored to an earlier point",
				s.WALEnd, before.LSN,
			),
		}
	case s.Confirmed > after.LSN:
		return &cdc.GapError{
			Kind: cdc.SlotForeign,
			Detail: fmt.Sprintf(
				"slot %q is at %s, ahead of the stored position %s: it is another slot of the same name, or somebody else has read it",
				s.Name, s.Confirmed, after.LSN,
			),
		}
	}
	return nil
}

// DescribeLost says that the slot was invalidated.
func (s *Slot) DescribeLost() string {
	return fmt.Sprintf("slot %q was invalidated: the server has removed WAL that it still needed", s.Name)
}
