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

// waitNoticeInterval is how often a slow slot creation says what it waits for.
const waitNoticeInterval = 3 * time.Second

// CreatedSlot is a slot just created, with the snapshot of the very point where it begins. The snapshot lives as long as the
// replication connection stays idle.
type CreatedSlot struct {
	Consistent pglogrepl.LSN
	Snapshot   string
}

// SlotSpec is a slot to be made.
type SlotSpec struct {
	Name      string
	failover  bool // to be synchronised to standbys; from FailoverVersion on
	Temporary bool // it ends with its connection
}

// PermanentSlot is the slot that the daemon reads, on a server of this version.
func PermanentSlot(name string, version int) SlotSpec {
	return SlotSpec{Name: name, failover: version >= FailoverVersion}
}

// SQL is the command of the replication protocol that makes the slot.
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

// TemporarySlotName names a slot beside another one. Names have at most 63 bytes.
func TemporarySlotName(beside string) string {
	return fmt.Sprintf("%.40s_compare_%d", beside, os.Getpid())
}

// CreateSlot makes the slot. Creation waits for every transaction that is running; watch, an ordinary connection, is used to
// tell note which ones.
func CreateSlot(ctx context.Context, replication *pgconn.PgConn, watch *pgx.Conn, slot SlotSpec, note func(string)) (CreatedSlot, error) {
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
	if cdc.SQLState(err) == pgerrcode.DuplicateObject { // since it was looked for
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

// RunningTransactions describes the transactions that hold an id, oldest first. pg_locks shows them to any role.
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

// DropSlot drops the slot where it exists and may be walhook's: names are those of the whole server, and another database may have taken
// this one. The caller makes sure that this installation has recorded it. A walsender that has lost its client may hold it, for as long as it waits for a
// transaction: where it is ours, it is ended. A slot that it was still creating goes with it, maybe between being seen and being dropped.
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
	// OwnSlotCondition are those of the connected database that walhook may have created.
	OwnSlotCondition = "s.database = current_database() and s.slot_type = 'logical' and s.plugin = 'pgoutput'"

	dropSlotSQL = "select pg_drop_replication_slot(s.slot_name) from pg_catalog.pg_replication_slots s where s.slot_name = $1 and " + OwnSlotCondition

	// TerminateStaleWalsenderSQL ends the walsender that holds a slot when it runs as our own role under our own name.
	TerminateStaleWalsenderSQL = `select pg_terminate_backend(a.pid)
	from pg_catalog.pg_replication_slots s join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
	where s.slot_name = $1 and a.usename = current_user and a.application_name = current_setting('application_name') and ` + OwnSlotCondition
)

// quoteSlot writes a slot name for the replication grammar. Names hold only lower-case letters, digits and underscores.
func quoteSlot(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
