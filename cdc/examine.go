package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// Examine looks at the store, and at what exists after an attach: the slot, its lag, and the hazards around it.
func Examine(ctx context.Context, source *pgx.Conn, storeURL string, target Target, p *Preflight) []Finding {
	var findings []Finding
	note := func(level Level, check, found, remedy string) {
		findings = append(findings, Finding{check, level, found, remedy})
	}
	if running, err := runningTransactions(ctx, source); err == nil && running != "" {
		note(Warn, "running_transactions", "transactions are running that a new slot would wait for: "+running, "let them end before attach, or end them")
	}
	var names string
	if err := source.QueryRow(ctx, "select current_setting('synchronous_standby_names')").Scan(&names); err == nil && names == "*" {
		note(Warn, "synchronous_standby_names", "synchronous_standby_names is *, which takes the daemon for a standby that commits wait for",
			"name the standbys, or give walhook's connection an application_name that the setting leaves out")
	}
	store, err := ConnectStore(ctx, storeURL)
	if err != nil {
		note(Fail, "store_connection", err.Error(), "check WALHOOK_STORE_URL (or WALHOOK_DATABASE_URL)")
		return findings
	}
	defer closeQuietly(store)
	attachment, err := existingAttachment(ctx, store)
	switch {
	case err != nil:
		note(Fail, "store", err.Error(), "run walhook attach with the walhook that wrote the store")
		return findings
	case attachment == nil:
		if p.Slot.Exists {
			f := foreignSlot(target.Slot)
			findings = append(findings, f)
		}
		note(Warn, "attachment", "nothing is attached yet", "walhook plan, then walhook attach")
		return findings
	}
	if err := sql.CheckVersion(ctx, store); err != nil {
		note(Fail, "store_version", err.Error(), "")
		return findings
	}
	if !attachment.Complete {
		note(Fail, "attachment", "an attach was interrupted", "run walhook attach again; it starts over by itself")
		return findings
	}
	if err := attachment.Matches(target.Slot, target.Publication, target.Mapping); err != nil {
		note(Fail, "mapping", err.Error(), "")
	} else {
		note(OK, "attachment", fmt.Sprintf("attached since %s", attachment.AttachedAt.UTC().Format(time.RFC3339)), "")
	}
	position, _, err := readPosition(ctx, store)
	if err != nil {
		note(Fail, "position", err.Error(), "")
		return findings
	}
	if err := p.Slot.continues(position); err != nil {
		note(Fail, "slot", err.Error(), "walhook run or walhook reconcile makes a new slot and fires what was missed")
		return findings
	}
	lag := fmt.Sprintf("slot %q holds back %s of WAL", target.Slot, bytesText(p.Slot.Retained))
	switch {
	case p.Slot.WALStatus == "unreserved":
		note(Fail, "slot", lag+", more than max_slot_wal_keep_size allows: the next checkpoint may invalidate it", "start walhook run, or find out in its log why it does not get on")
	case p.Slot.SafeBytes != nil && *p.Slot.SafeBytes < p.Slot.Retained:
		note(Warn, "slot", fmt.Sprintf("%s; after another %s it is invalidated", lag, bytesText(*p.Slot.SafeBytes)), "start walhook run, or find out in its log why it does not get on")
	default:
		note(OK, "slot", lag, "")
	}
	if p.Slot.ActivePID == nil {
		note(Warn, "daemon", "nobody reads the slot, so the server keeps WAL for it", "start walhook run, or walhook detach")
	}
	return append(findings, examineStore(ctx, store)...)
}

// examineStore looks at what administrators should know.
func examineStore(ctx context.Context, store *pgx.Conn) []Finding {
	var (
		enabled                             bool
		webhooks, disabled, troubled, queue int64
		oldest                              float64
	)
	err := store.QueryRow(ctx, `
		select (select enabled from walhook.settings), (select count(*) from walhook.webhook), (select count(*) from walhook.webhook where not enabled),
		       (select count(*) from walhook.endpoint where failures > 0),
		       (select count(*) from walhook.queue), (select coalesce(extract(epoch from now() - min(committed_at)), 0)::float8 from walhook.queue)`).
		Scan(&enabled, &webhooks, &disabled, &troubled, &queue, &oldest)
	if err != nil {
		return []Finding{{"store", Fail, fmt.Sprintf("look at the store: %v", err), "GRANT walhook_daemon TO this role"}}
	}
	var findings []Finding
	note := func(bad bool, check, found, remedy string) {
		level := OK
		if bad {
			level = Warn
		}
		findings = append(findings, Finding{check, level, found, remedy})
	}
	note(!enabled, "settings", map[bool]string{true: "webhooks are switched on", false: "webhooks are switched off: nothing is queued and nothing is sent"}[enabled],
		"UPDATE walhook.settings SET enabled = true;")
	note(webhooks == 0, "webhooks", fmt.Sprintf("%d webhooks, %d of them disabled", webhooks, disabled),
		"INSERT INTO walhook.webhook (url, event_type) VALUES ('https://...', 'response.completed');")
	note(troubled > 0, "endpoints", fmt.Sprintf("%d endpoints fail at the moment", troubled), "SELECT * FROM walhook.delivery_log WHERE status = 'pending' AND attempts > 0;")
	note(queue > 0 && oldest > 3600, "queue", fmt.Sprintf("%d deliveries are pending, the oldest for %s", queue, (time.Duration(oldest)*time.Second).String()), "see endpoints above")
	return findings
}
