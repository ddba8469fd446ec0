package setup

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
	"walhook/sql"
)

// sourceHazards checks what on the application's server could harm the stream, and how the stream could harm the
// server.
func (e *examiner) sourceHazards(ctx context.Context) {
	e.transactions(ctx)
	e.walSettings(ctx)
	e.nextStart(ctx)
	e.synchronous(ctx)
	e.failover(ctx)
	e.unpublishRight(ctx)
}

// transactions finds transactions that the creation of a slot would wait for.
func (e *examiner) transactions(ctx context.Context) {
	running, err := catalog.RunningTransactions(ctx, e.source)
	if err != nil {
		e.cannotCheck("running_transactions", err)
	} else if running == "" {
		e.note(catalog.OK, "running_transactions", "no transaction is running that a new slot would wait for", "")
	} else {
		e.note(catalog.Warn, "running_transactions",
			"transactions are running that a new slot, at attach or when a lost one is replaced, would wait for: "+running,
			"let them end, or end them: SELECT pg_terminate_backend(pid);")
	}
	rows, err := e.source.Query(ctx, `
		select format('%L since %s in %I', gid, date_trunc('second', prepared), database)
		  from pg_catalog.pg_prepared_xacts order by prepared limit 5`)
	prepared, err := catalog.CollectStrings(rows, err)
	if err != nil {
		e.cannotCheck("prepared_transactions", err)
		return
	}
	e.grade(len(prepared) > 0, catalog.Warn, "prepared_transactions", listOrNone("no transaction is prepared",
		"prepared transactions prevent a new slot from being created, and keep the slot from releasing WAL: ", prepared),
		"in the database named, COMMIT PREPARED or ROLLBACK PREPARED each one that nobody is going to finish")
}

// listOrNone lists things after some, or returns none if there are none.
func listOrNone(none, some string, things []string) string {
	if len(things) == 0 {
		return none
	}
	return some + strings.Join(things, "; ")
}

// walSettings checks what bounds the retained WAL, and what invalidates the slot.
func (e *examiner) walSettings(ctx context.Context) {
	var keep, idle string
	err := e.source.QueryRow(ctx, `
		select current_setting('max_slot_wal_keep_size'),
		       coalesce(current_setting('idle_replication_slot_timeout', true), '0')`).
		Scan(&keep, &idle)
	if err != nil {
		e.cannotCheck("slot_limit", err)
		return
	}
	switch {
	case keep != "-1":
		e.note(catalog.OK, "slot_limit", "a slot that nobody reads retains at most max_slot_wal_keep_size, "+keep, "")
	case e.cfg.MaxSlotLag > 0:
		e.note(catalog.Warn, "slot_limit", fmt.Sprintf(
			"the daemon drops the slot beyond %s, but while no daemon runs nothing keeps it from filling the server's disk with WAL",
			catalog.FormatBytes(e.cfg.MaxSlotLag)), slotLimitRemedy)
	default:
		e.note(catalog.Warn, "slot_limit",
			"max_slot_wal_keep_size is -1: while no daemon reads the slot, WAL is kept until the server's disk is full",
			slotLimitRemedy)
	}
	e.warnIf(idle != "0", "idle_slot_timeout", "no slot is invalidated for being idle",
		"idle_replication_slot_timeout is "+idle+
			": if no daemon runs for that long, the slot is invalidated, and the next daemon compares the whole table",
		"make it longer than any pause of the daemons, or 0")
}

// nextStart checks whether the server can start again with the slot: a server that has a logical slot does not start
// with another wal_level, and none starts with more slots than max_replication_slots.
//
// Only roles that may read pg_file_settings see what the configuration files hold now. To everybody, pending_restart
// reports that they have held something else since the last reload: for wal_level it is certainly less than logical.
// Nothing is known of a setting from the command line, which the next start may or may not have.
func (e *examiner) nextStart(ctx context.Context) {
	const check = "next_start"
	var reads bool
	err := e.source.QueryRow(ctx, `select pg_catalog.has_table_privilege('pg_catalog.pg_file_settings', 'select')
		and pg_catalog.has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'execute')`).Scan(&reads)
	var found []string
	if err == nil {
		query := pendingSettings
		if reads {
			query = fileSettings
		}
		rows, queryErr := e.source.Query(ctx, query)
		found, err = catalog.CollectStrings(rows, queryErr)
	}
	switch {
	case err != nil:
		e.cannotCheck(check, err)
	case len(found) == 0 && reads:
		e.note(catalog.OK, check, "the configuration files let the server start again with the slot", "")
	case len(found) > 0 && e.preflight.Slot.Exists:
		e.note(catalog.Fail, check,
			fmt.Sprintf("the server will not start again while slot %q exists: %s",
				e.cfg.Target.Slot, strings.Join(found, "; ")),
			"set it back before the server stops; to lower it for good, stop the daemons and walhook detach first "+
				"(docs/how-to/recover.md)")
	case len(found) > 0:
		e.note(catalog.Warn, check, "after the next start of the server walhook cannot work: "+strings.Join(found, "; "),
			"set it back before you attach: the server would not start again while the slot exists")
	}
}

const (
	pendingSettings = `select 'wal_level is logical now and will be lower'
		  from pg_catalog.pg_settings s where s.name = 'wal_level' and s.setting = 'logical' and s.pending_restart`

	fileSettings = `
		select format('%s is %s now and will be %s', s.name, s.setting, n.setting)
		  from pg_catalog.pg_settings s
		 cross join lateral (
		       select coalesce((select f.setting from pg_catalog.pg_file_settings f
		                         where f.name = s.name order by f.seqno desc limit 1), s.boot_val)) n (setting)
		 where s.source <> 'command line'
		   and case s.name when 'wal_level' then s.setting = 'logical' and lower(n.setting) <> 'logical'
		                   when 'max_replication_slots' then n.setting ~ '^[0-9]{1,9}$'
		                    and n.setting::int < (select count(*) from pg_catalog.pg_replication_slots r
		                                           where not r.temporary) end
		 order by s.name desc`
)

const slotLimitRemedy = "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf(); " +
	"choose what the disk can spare. A slot that is lost to this limit loses no event that the rows still show"

// synchronous checks whether commits of the application wait for the daemon.
func (e *examiner) synchronous(ctx context.Context) {
	finding, err := catalog.InspectSynchronous(ctx, e.source)
	if err != nil {
		e.cannotCheck("synchronous_standby_names", err)
		return
	}
	e.findings = append(e.findings, finding)
}

// failover checks whether the slot would exist after a failover.
func (e *examiner) failover(ctx context.Context) {
	const check = "failover"
	var standbys int
	// Without the right to read statistics, a role sees walsenders but not their state.
	err := e.source.QueryRow(ctx, `
		select count(*) from pg_catalog.pg_stat_replication r
		 where coalesce(r.state, 'streaming') in ('streaming', 'catchup')
		   and not exists (select from pg_catalog.pg_replication_slots s
		                    where s.active_pid = r.pid and s.slot_type = 'logical')`).
		Scan(&standbys)
	if err != nil {
		e.cannotCheck(check, err)
		return
	}
	const compares = "; after a failover the daemon creates a new slot and compares the whole table"
	if e.preflight.Version < catalog.FailoverVersion {
		e.warnIf(standbys > 0, check,
			"no standby streams from this server", "a standby does not get the slot before PostgreSQL 17"+compares,
			"nothing needs to be done; from 17 on slots can be synchronised")
		return
	}
	var synchronised bool
	var waits string
	err = e.source.QueryRow(ctx, `
		select coalesce((select failover from pg_catalog.pg_replication_slots where slot_name = $1), true),
		       current_setting('synchronized_standby_slots')`, e.cfg.Target.Slot).
		Scan(&synchronised, &waits)
	switch {
	case err != nil:
		e.cannotCheck(check, err)
	case !synchronised:
		e.note(catalog.Warn, check,
			fmt.Sprintf("slot %q was created without failover, so no standby gets it%s", e.cfg.Target.Slot, compares),
			fmt.Sprintf(
				"with the daemons stopped, over a replication connection: ALTER_REPLICATION_SLOT %s (FAILOVER true)",
				e.cfg.Target.Slot,
			))
	case standbys > 0 && waits == "":
		e.note(catalog.Warn, check,
			"a standby streams and synchronized_standby_slots is empty: "+
				"the daemon may be ahead of the standby that takes over"+compares,
			"on the standby: sync_replication_slots = on, hot_standby_feedback = on, primary_slot_name and a dbname in "+
				"primary_conninfo; here: synchronized_standby_slots = 'the standby''s slot'")
	default:
		e.note(catalog.OK, check, "the slot can be synchronised to a standby", "")
	}
}

// unpublishRight checks whether the daemon could remove a table from the publication to protect writes.
func (e *examiner) unpublishRight(ctx context.Context) {
	if e.preflight.Publication == nil {
		return
	}
	var may bool
	err := e.source.QueryRow(ctx, `
		select coalesce((select pg_catalog.pg_has_role(p.pubowner, 'usage')
		                   from pg_catalog.pg_publication p where p.pubname = $1), false)
		    or exists (select from pg_catalog.pg_proc f join pg_catalog.pg_publication p on p.pubname = $1
		                where f.oid = pg_catalog.to_regprocedure($2) and pg_catalog.has_function_privilege(f.oid, 'execute')
		                  and pg_catalog.pg_has_role(f.proowner, p.pubowner, 'usage')
		                  and pg_catalog.obj_description(p.oid, 'pg_publication') like $3 || '%')`,
		e.cfg.Target.Publication, sql.UnpublishSignature, catalog.PublicationMark).Scan(&may)
	if err != nil {
		e.cannotCheck("unpublish_right", err)
		return
	}
	e.warnIf(!may, "unpublish_right",
		"if a table loses its replica identity, the daemon can take it out of the publication",
		"if a table loses its replica identity, the application's updates fail until somebody else takes it out of "+
			"the publication",
		fmt.Sprintf("as the publication's owner: GRANT EXECUTE ON FUNCTION walhook.unpublish(name, regclass) TO %s; "+
			"the function, which walhook plan prints, must belong to that owner, and walhook must have created the publication",
			pgx.Identifier{e.preflight.User}.Sanitize()))
}

// maxSkew is the tolerated clock skew.
const maxSkew = 2 * time.Second

// clocks compares the clocks of this host, source and store. Signatures contain this host's time; leases use the
// store's.
func (e *examiner) clocks(ctx context.Context) {
	for _, c := range []struct {
		conn *pgx.Conn
		name string
	}{{e.source, "the application's server"}, {e.store, "the store's server"}} {
		before := time.Now()
		var theirs time.Time
		if err := c.conn.QueryRow(ctx, "select pg_catalog.clock_timestamp()").Scan(&theirs); err != nil {
			e.cannotCheck("clock", err)
			continue
		}
		took := time.Since(before)
		skew := theirs.Sub(before.Add(took / 2))
		e.grade(skew.Abs() > maxSkew+took/2, catalog.Warn, "clock",
			fmt.Sprintf("the clock of %s differs from this host's by %s", c.name, skew.Round(time.Millisecond)),
			"synchronise the clocks (NTP): receivers refuse signatures that are minutes off, "+
				"and times in the log are the servers'")
	}
}

// pooler detects a connection pooler: PostgreSQL sends each session the id of its server process, while a pooler, which may
// switch server processes, sends another number.
func (e *examiner) pooler(ctx context.Context, conn *pgx.Conn, what, variable string) {
	var pid uint32
	// Use the simple protocol, because a pooler may assign a server process with the prepared statements of others.
	if err := conn.QueryRow(ctx, "select pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
		e.cannotCheck("pooler", err)
		return
	}
	e.warnIf(pid != conn.PgConn().PID(), "pooler",
		"no connection pooler is in front of "+what,
		"a connection pooler such as PgBouncer is in front of "+what+
			": with pool_mode = transaction it breaks session locks, LISTEN and prepared statements",
		"let "+variable+" name the PostgreSQL server itself; for a store, pool_mode = session suffices")
}

// storeServer checks the durability settings of the store's server.
func (e *examiner) storeServer(ctx context.Context) {
	var fsync, pages string
	err := e.store.QueryRow(ctx, "select current_setting('fsync'), current_setting('full_page_writes')").
		Scan(&fsync, &pages)
	if err != nil {
		e.cannotCheck("store_durability", err)
		return
	}
	e.grade(fsync == "off" || pages == "off", catalog.Warn, "store_durability",
		fmt.Sprintf("the store has fsync = %s, full_page_writes = %s", fsync, pages),
		"switch both on for the store: the slot does not send again what the store acknowledged and then lost in a crash "+
			"of its machine, and only a comparison finds it")
}
