package setup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/cdc/stream"
	"walhook/session"
	"walhook/sql"
)

// ExamineConfig configures Examine.
type ExamineConfig struct {
	SourceURL, StoreURL string
	Target              catalog.Target
	Retention           time.Duration // of the log; 0: unlimited
	MaxSlotLag          int64         // bytes; 0: unlimited
}

// examiner inspects source and store, before or after attach, and collects findings. It changes nothing.
type examiner struct {
	cfg       ExamineConfig
	source    *pgx.Conn
	store     *pgx.Conn
	preflight *catalog.Preflight
	view      *storeView
	findings  []catalog.Finding
}

func (e *examiner) note(level catalog.Level, check, found, remedy string) {
	e.findings = append(e.findings, catalog.Finding{Check: check, Level: level, Found: found, Remedy: remedy})
}

// grade adds a finding of the given level if bad, and an ok one otherwise.
func (e *examiner) grade(bad bool, level catalog.Level, check, found, remedy string) {
	if !bad {
		level, remedy = catalog.OK, ""
	}
	e.note(level, check, found, remedy)
}

// warnIf adds a warning if bad, and an ok finding otherwise.
func (e *examiner) warnIf(bad bool, check, fine, wrong, remedy string) {
	found := fine
	if bad {
		found = wrong
	}
	e.grade(bad, catalog.Warn, check, found, remedy)
}

// cannotCheck adds a finding that a check failed to run.
func (e *examiner) cannotCheck(check string, err error) {
	e.note(catalog.Warn, check, fmt.Sprintf("this could not be checked: %v", err),
		remedyFor(err, "grant the role what the message names, or run doctor as a superuser"))
}

// remedyFor returns a remedy, except for errors caused by a pooler that assigns a server process per transaction.
func remedyFor(err error, otherwise string) string {
	switch cdc.SQLState(err) {
	case pgerrcode.DuplicatePreparedStatement, pgerrcode.InvalidSQLStatementName:
		return session.PoolerAdvice
	}
	return otherwise
}

// Examine checks every precondition and hazard. Failures to check are findings themselves.
func Examine(ctx context.Context, cfg ExamineConfig) []catalog.Finding {
	e := &examiner{cfg: cfg}
	e.run(ctx)
	return e.findings
}

func (e *examiner) run(ctx context.Context) {
	var err error
	if e.source, err = catalog.ConnectSource(ctx, e.cfg.SourceURL); err != nil {
		e.note(catalog.Fail, "source_connection", err.Error(), "check WALHOOK_DATABASE_URL, pg_hba.conf and the network")
		return
	}
	defer catalog.CloseQuietly(e.source)
	if e.preflight, err = catalog.InspectSource(ctx, e.source, e.cfg.Target); err != nil {
		e.note(catalog.Fail, "source_connection", err.Error(), "check WALHOOK_DATABASE_URL")
		return
	}
	e.findings = append(e.findings, e.preflight.Findings...)
	e.pooler(ctx, e.source, "the application's database", "WALHOOK_DATABASE_URL")
	e.settings(ctx, e.source, "the application's database")
	e.markerValues(ctx)
	e.sourceHazards(ctx)
	e.replicationConnection(ctx)
	if e.store, err = catalog.ConnectStore(ctx, e.cfg.StoreURL); err != nil {
		e.note(catalog.Fail, "store_connection", err.Error(), "check WALHOOK_STORE_URL (or WALHOOK_DATABASE_URL)")
		return
	}
	defer catalog.CloseQuietly(e.store)
	e.pooler(ctx, e.store, "the store", "WALHOOK_STORE_URL")
	e.settings(ctx, e.store, "the store")
	e.clocks(ctx)
	e.storeServer(ctx)
	if e.view, err = inspectStore(ctx, e.source, e.store); err != nil {
		e.note(catalog.Fail, "store_connection", err.Error(), remedyFor(err,
			"grant the role what the message names; run walhook attach with the walhook that wrote the store"))
		return
	}
	if !e.attachment(ctx) {
		return
	}
	e.slot(ctx)
	e.publication()
	e.rights(ctx)
	e.othersRights(ctx)
	e.daemons(ctx)
	e.partitions(ctx)
	e.administration(ctx)
	e.webhooks(ctx)
	e.stamps(ctx)
	e.sizes(ctx)
}

// replicationConnection opens one. If the daemon uses the last WAL sender, that is no failure.
func (e *examiner) replicationConnection(ctx context.Context) {
	const check = "replication_connection"
	replication, err := stream.ConnectReplication(ctx, e.cfg.SourceURL)
	switch {
	case err == nil:
		catalog.CloseQuietly(replication)
		e.note(catalog.OK, check, "a replication connection can be opened", "")
	case cdc.SQLState(err) == pgerrcode.TooManyConnections && e.preflight.Slot.IsRead():
		e.note(catalog.Warn, check,
			"the daemon's replication connection is the last one that the server allows: "+err.Error(),
			"to be able to open another one beside it, "+replicationRemedy(err, e.preflight.User))
	default:
		e.note(catalog.Fail, check, err.Error(), replicationRemedy(err, e.preflight.User))
	}
}

// replicationRemedy is what lets the role open a replication connection.
func replicationRemedy(err error, user string) string {
	switch cdc.SQLState(err) {
	case pgerrcode.InsufficientPrivilege:
		return fmt.Sprintf("as a superuser: ALTER ROLE %s REPLICATION;", pgx.Identifier{user}.Sanitize())
	case pgerrcode.TooManyConnections:
		return "raise max_wal_senders and restart the server"
	}
	return "allow the role in pg_hba.conf, and connect to the server itself"
}

// attachment reports whether there is an attachment to examine.
func (e *examiner) attachment(ctx context.Context) bool {
	switch {
	case e.view.untrusted != nil:
		e.attachRefusals(ctx)
		return false
	case e.view.denied:
		e.note(catalog.Fail, "store_rights",
			fmt.Sprintf("role %s may not read the schema walhook, which belongs to %s", e.view.user, e.view.schemaOwner),
			e.view.grantDaemon)
		return false
	case e.view.Err() != nil:
		e.attachRefusals(ctx)
		return false
	case e.view.newer != nil:
		e.note(catalog.Fail, "store_version", e.view.newer.Error(),
			"use the newer walhook, or restore the store from before its upgrade")
		return false
	case e.view.attachment == nil:
		e.attachRefusals(ctx)
		if e.view.foreign == "" {
			e.othersRights(ctx) // in what a detach left
		}
		e.note(catalog.Warn, "attachment", "nothing is attached yet", "walhook plan, then walhook attach")
		return false
	}
	if err := sql.CheckVersion(ctx, e.store); err != nil {
		e.note(catalog.Fail, "store_version", err.Error(),
			"stop the daemons, run walhook attach of this version, start them (docs/how-to/upgrade.md)")
		return false
	}
	e.note(catalog.OK, "store_version",
		fmt.Sprintf("the store's schema is version %d, which this walhook needs", e.view.version), "")
	a := e.view.attachment
	if !a.Complete() {
		e.attachRefusals(ctx)
		e.note(catalog.Fail, "attachment", "an attach was interrupted",
			"run walhook attach again; it starts over by itself")
		return false
	}
	if found, remedy := a.CompareTarget(e.cfg.Target); found != "" {
		e.note(catalog.Fail, "mapping", found, remedy)
		return false
	}
	e.note(catalog.OK, "attachment", fmt.Sprintf("attached since %s", a.AttachedAt.UTC().Format(time.RFC3339)), "")
	e.adviseRename()
	return true
}

// attachRefusals adds what an attach would refuse besides what the preflight found.
func (e *examiner) attachRefusals(ctx context.Context) {
	refusals, err := e.view.refusals(ctx, e.source, e.cfg.Target, e.preflight, "")
	if err != nil {
		e.cannotCheck("source_schema", err)
	}
	e.findings = append(e.findings, refusals...)
}

// adviseRename replaces the remedies for missing tables and columns, which apply before an attach: now the mapping
// has to stay.
func (e *examiner) adviseRename() {
	for i, f := range e.findings {
		if f.NotFound {
			e.findings[i].Remedy = "give it back its name; or stop the daemons, " + e.detachAdvice() +
				", change the variable, walhook attach (what happens in between fires nothing)"
		}
	}
}

// slot compares the slot with the stored position, and checks how much WAL it retains.
func (e *examiner) slot(ctx context.Context) {
	position, _, err := catalog.ReadPosition(ctx, e.store)
	if err != nil {
		e.cannotCheck("slot", err)
		return
	}
	if e.preflight.Slot, err = catalog.InspectSlot(ctx, e.source, e.cfg.Target.Slot); err != nil {
		e.cannotCheck("slot", err)
		return
	}
	after, _, err := catalog.ReadPosition(ctx, e.store)
	if err != nil {
		e.cannotCheck("slot", err)
		return
	}
	const remedy = "walhook run or walhook reconcile creates a new slot and fires what was missed"
	if !e.preflight.Slot.Exists {
		e.note(catalog.Fail, "slot", fmt.Sprintf("slot %q does not exist", e.cfg.Target.Slot), remedy)
		return
	}
	if e.preflight.Slot.IsForeign() {
		e.note(catalog.Fail, "slot", e.preflight.Slot.DescribeForeign(), catalog.OtherSlotRemedy)
		return
	}
	if err := e.preflight.Slot.CheckPosition(position, after); err != nil {
		e.note(catalog.Fail, "slot", err.Error(), remedy)
		return
	}
	const stuck = "start walhook run, or see its log for why it makes no progress"
	lag := fmt.Sprintf("slot %q retains %s of WAL", e.cfg.Target.Slot, catalog.FormatBytes(e.preflight.Slot.Retained))
	var maxWAL int64
	err = e.source.QueryRow(ctx, "select pg_size_bytes(current_setting('max_wal_size'))").Scan(&maxWAL)
	if err != nil {
		e.cannotCheck("slot", err)
		return
	}
	danger := stream.SlotDanger(e.preflight.Slot, e.cfg.MaxSlotLag)
	switch {
	case e.preflight.Slot.WALStatus == "unreserved":
		e.note(catalog.Fail, "slot", danger, stuck)
	case danger != "":
		e.note(catalog.Warn, "slot", danger, stuck)
	case e.preflight.Slot.Retained > maxWAL:
		e.note(catalog.Warn, "slot",
			fmt.Sprintf("%s, more than max_wal_size (%s), which the server keeps in any case", lag,
				catalog.FormatBytes(maxWAL)),
			stuck)
	default:
		e.note(catalog.OK, "slot", lag, "")
	}
	e.warnIf(e.preflight.Slot.ActivePID == nil, "daemon",
		"the slot is being read", "nobody reads the slot, so the server keeps WAL for it",
		"start walhook run, or "+e.detachAdvice())
}

// publication turns the preflight's findings on the publication into failures, now that the stream depends on it.
func (e *examiner) publication() {
	drift := e.preflight.PublicationSpec.Drift(e.preflight.Publication)
	if e.preflight.Respondent == nil || len(drift) == 0 {
		return
	}
	e.findings = slices.DeleteFunc(e.findings, func(f catalog.Finding) bool { return f.Check == "publication" })
	e.note(catalog.Fail, "publication", strings.Join(drift, "; "),
		"walhook run or walhook reconcile repairs it if run as its owner; or let the owner run: "+strings.Join(
			e.preflight.PublicationSpec.RepairSQL(e.preflight.Publication), "; ",
		)+";")
}

// detachAdvice returns the command, and the role that must run it: a publication that a DBA's script created belongs to
// the DBA.
func (e *examiner) detachAdvice() string {
	if p := e.preflight.Publication; p != nil && !p.Owner {
		return fmt.Sprintf("walhook detach as the owner of publication %q", e.cfg.Target.Publication)
	}
	return "walhook detach"
}
