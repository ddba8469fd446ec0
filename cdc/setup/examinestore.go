package setup

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// rights checks the daemon's rights in the store.
func (e *examiner) rights(ctx context.Context) {
	lacking, err := sql.LackingRights(ctx, e.store)
	if err != nil {
		e.cannotCheck("store_rights", err)
		return
	}
	e.grade(len(lacking) > 0, catalog.Fail, "store_rights",
		listOrNone(fmt.Sprintf("role %s has the rights in the store that a daemon needs", e.view.user),
			fmt.Sprintf("role %s lacks ", e.view.user), lacking),
		fmt.Sprintf("%s If that does not help, walhook attach as %s restores the grants",
			e.view.grantDaemon, e.view.schemaOwner))
	e.grade(len(e.view.missingGroups) > 0, catalog.Warn, "group_roles",
		listOrNone("the group roles for administrators, viewers and daemons exist",
			fmt.Sprintf("group roles are missing, so %s can give nobody rights in the schema walhook: ", e.view.schemaOwner),
			e.view.missingGroups),
		sql.GroupsRemedy(e.view.missingGroups, e.view.schemaOwner))
	e.grade(!e.view.temporary, catalog.Fail, "temporary_right",
		fmt.Sprintf("role %s may%s create temporary tables in the store, which a comparison needs", e.view.user,
			map[bool]string{true: "", false: " not"}[e.view.temporary]),
		fmt.Sprintf("GRANT TEMPORARY ON DATABASE %s TO %s;", pgx.Identifier{e.store.Config().Database}.Sanitize(),
			pgx.Identifier{e.view.user}.Sanitize()))
}

// daemons checks the reports of the daemons.
func (e *examiner) daemons(ctx context.Context) {
	reports, err := readDaemonReports(ctx, e.store)
	if err != nil {
		e.cannotCheck("daemons", err)
		return
	}
	unready := map[catalog.Level][]string{}
	for _, r := range reports {
		level, trouble := r.judge()
		unready[level] = append(unready[level], trouble)
	}
	const remedy = "fix what the text names; the daemon's log has more"
	switch stuck, starting := unready[catalog.Fail], unready[catalog.Warn]; {
	case len(stuck) > 0:
		e.note(catalog.Fail, "daemons", "daemons that do not work: "+strings.Join(stuck, ", "), remedy)
	case len(starting) > 0:
		e.note(catalog.Warn, "daemons", "daemons that are not ready yet: "+strings.Join(starting, ", "),
			"look again in a few seconds")
	default:
		e.note(catalog.OK, "daemons", "no daemon reports that it is not ready", "")
	}
}

// partitions checks that the log can get its next partition. What would prevent that, such as a missing right or an
// event trigger, is reported long before the last partition ends.
func (e *examiner) partitions(ctx context.Context) {
	var ahead *time.Duration
	var refusal *string
	tx, err := e.store.Begin(ctx)
	if err != nil {
		e.cannotCheck("log_partitions", err)
		return
	}
	err = tx.QueryRow(ctx, "select walhook.log_covered_until() - now(), walhook.partition_refusal()").
		Scan(&ahead, &refusal)
	// Roll back: a commit might wait for a standby.
	if err = errors.Join(err, tx.Rollback(ctx)); err != nil {
		e.cannotCheck("log_partitions", err)
		return
	}
	reach := "the log has no partition for now"
	if ahead != nil {
		reach = fmt.Sprintf("the log has partitions for the next %s", formatAhead(*ahead))
	}
	if refusal != nil {
		e.note(catalog.Fail, "log_partitions", reach+", and can get no other: "+*refusal, fmt.Sprintf(
			"let %s create, alter and drop tables in the schema walhook: no event trigger may refuse it, "+
				"and GRANT CREATE, USAGE ON SCHEMA walhook TO %[1]s",
			pgx.Identifier{e.view.schemaOwner}.Sanitize()))
		return
	}
	e.grade(ahead == nil, catalog.Warn, "log_partitions", reach, "start walhook run, which creates them")
}

// administration checks switch, queue, endpoints and incidents.
func (e *examiner) administration(ctx context.Context) {
	var enabled bool
	if err := e.store.QueryRow(ctx, "select enabled from walhook.settings").Scan(&enabled); err != nil {
		e.cannotCheck("settings", err)
		return
	}
	e.warnIf(!enabled, "settings",
		"webhooks are switched on", "webhooks are switched off: nothing is queued and nothing is sent",
		"UPDATE walhook.settings SET enabled = true;")
	queue, err := readQueueDepth(ctx, e.store)
	if err != nil {
		e.cannotCheck("queue", err)
	} else {
		e.grade(queue.oldestSeconds > 3600, catalog.Warn, "queue",
			fmt.Sprintf("%s deliveries are pending, the oldest of those for webhooks that are enabled for %s",
				queue, time.Duration(queue.oldestSeconds)*time.Second),
			"SELECT * FROM walhook.pending ORDER BY delivery_id LIMIT 50;")
	}
	rows, err := e.store.Query(ctx, `
		select format('%s, %s since %s: %s', walhook.display_url(url),
		              case failures when 1 then '1 failure' else failures || ' failures in a row' end,
		              date_trunc('second', failing_since), last_error)
		  from walhook.endpoint e
		 where failures > 0 and exists (select from walhook.webhook w where w.endpoint_id = e.id and w.enabled)
		 order by failures desc limit 5`)
	endpoints, err := catalog.CollectStrings(rows, err)
	if err != nil {
		e.cannotCheck("endpoints", err)
	} else {
		e.grade(len(endpoints) > 0, catalog.Warn, "endpoints",
			listOrNone("every endpoint answered its last attempt", "endpoints fail at the moment: ", endpoints),
			"SELECT * FROM walhook.endpoint_health WHERE failures > 0;")
	}
	var stopped bool
	err = e.store.QueryRow(ctx,
		"select exists (select from walhook.incident where resolved_at is null and kind = any($1))",
		[]string{cdc.DeliveriesStopped, cdc.LogUpkeep}).Scan(&stopped)
	if err != nil {
		e.cannotCheck("incidents", err)
		return
	}
	rows, err = e.store.Query(ctx, `
		select format('%s since %s: %s', kind, date_trunc('second', at), detail)
		  from walhook.incident where resolved_at is null order by at desc limit 5`)
	incidents, err := catalog.CollectStrings(rows, err)
	if err != nil {
		e.cannotCheck("incidents", err)
		return
	}
	level := catalog.Warn
	if stopped {
		level = catalog.Fail
	}
	e.grade(len(incidents) > 0, level, "incidents",
		listOrNone("no incident is open", "open incidents: ", incidents),
		"SELECT * FROM walhook.incident WHERE resolved_at IS NULL; the detail says what to do")
}

// webhooks finds webhooks that can never match.
func (e *examiner) webhooks(ctx context.Context) {
	var all, disabled int64
	err := e.store.QueryRow(ctx, "select count(*), count(*) filter (where not enabled) from walhook.webhook").
		Scan(&all, &disabled)
	if err != nil {
		e.cannotCheck("webhooks", err)
		return
	}
	text := fmt.Sprintf("webhooks: %d, disabled ones: %d", all, disabled)
	if all == 0 {
		text = "there are no webhooks yet"
	}
	e.grade(all == 0, catalog.Warn, "webhooks", text,
		"INSERT INTO walhook.webhook (url, event_type) VALUES ('https://...', 'response.completed');")
	m := e.cfg.Target.Mapping
	_, _, repeats := catalog.StampHazard(m, e.preflight.Respondent)
	for _, c := range []struct {
		applies                          bool
		check, where, none, some, remedy string
	}{
		{
			applies: true,
			check:   "webhooks_disabled",
			where:   "not w.enabled",
			none:    "no webhook is disabled",
			some:    "disabled, and match nothing new: webhooks ",
			remedy:  "UPDATE walhook.webhook SET enabled = true WHERE id = ...; disabled_reason says why",
		},
		{
			applies: m.HasAssessmentTable(),
			check:   "webhooks_unknown_assessment",
			where: "w.assessment_id is not null " +
				"and not exists (select from walhook.assessment a where a.assessment_id = w.assessment_id)",
			none:   "every assessment that a webhook names exists",
			some:   "their assessment is not in " + m.AssessmentTable.Display() + ": webhooks ",
			remedy: "correct or delete them",
		},
		{
			applies: m.HasAssessmentTable(),
			check:   "webhooks_without_external_id",
			where: "w.assessment_id is null " +
				"and not exists (select from walhook.assessment a where a.external_id is not null)",
			none: "every webhook without assessment_id has an assessment that it can match",
			some: "without assessment_id they match only assessments that have an external id, " +
				"and no assessment has one: webhooks ",
			remedy: "give assessments an external id, or set the webhook's assessment_id",
		},
		{
			applies: true,
			check:   "webhooks_impossible_id",
			where: "(walhook.column_id('assessment', w.assessment_id) is distinct from w.assessment_id " +
				"or walhook.organization_id(w.organization_id) is distinct from w.organization_id)",
			none: "every assessment and organization that a webhook names can be an id of its column",
			some: "the assessment or organization that they name cannot be an id of its column, " +
				"so they match nothing: webhooks ",
			remedy: "set assessment_id and organization_id to ids as the table has them",
		},
		{
			applies: m.Organization == "" && m.AssessmentOrganization == "",
			check:   "webhooks_organization",
			where:   "w.organization_id is not null",
			none:    "no webhook names an organization, and no organization column is mapped",
			some:    "they name an organization, but no organization column is mapped, so they match nothing: webhooks ",
			remedy: "set WALHOOK_RESPONDENT_ORGANIZATION or WALHOOK_ASSESSMENT_ORGANIZATION (walhook attach --remap), " +
				"or set organization_id to NULL",
		},
		{
			applies: m.Organization == "" && m.AssessmentOrganization != "",
			check:   "webhooks_unknown_organization",
			where: "w.organization_id is not null " +
				"and not exists (select from walhook.assessment a where a.organization_id = w.organization_id)",
			none:   "every organization that a webhook names has an assessment",
			some:   "no assessment is of their organization, so they match nothing: webhooks ",
			remedy: "correct or delete them",
		},
		{
			applies: !repeats,
			check:   "webhooks_changed",
			where:   "w.event_type = 'response.changed'",
			none:    "no webhook is for response.changed, which this finish stamp cannot detect",
			some: "they are for response.changed, which cannot be detected as long as the finished marker stays set: " +
				"webhooks ",
			remedy: "set WALHOOK_FINISH_STAMP to a column that changes with each finish (walhook attach --remap)",
		},
	} {
		if !c.applies {
			continue
		}
		rows, err := e.store.Query(ctx, `
			select case n when 21 then format('and %s more', total - 20) else id::text end
			  from (select w.id, row_number() over (order by w.id) as n, count(*) over () as total
			          from walhook.webhook w
			         where (w.enabled or $1) and `+c.where+`) found
			 where n <= 21 order by n`, c.check == "webhooks_disabled")
		ids, err := catalog.CollectStrings(rows, err)
		if err != nil {
			e.cannotCheck(c.check, err)
			continue
		}
		e.grade(len(ids) > 0, catalog.Warn, c.check, listOrNone(c.none, c.some, ids), c.remedy)
	}
}

const (
	// deadRowsLimit is the number of dead rows above which a table is reported.
	deadRowsLimit = 50000

	// largeLog is the size in bytes above which a log without a retention is reported.
	largeLog = 100 << 20
)

// sizes checks the store's disk usage. PostgreSQL does not report how much of the disk is free.
func (e *examiner) sizes(ctx context.Context) {
	rows, err := e.store.Query(ctx, `
		select c.relname::text, pg_catalog.pg_total_relation_size(c.oid),
		       -- A crash loses the statistics. The catalog still has the count of the last VACUUM or ANALYZE.
		       case when coalesce(s.last_vacuum, s.last_autovacuum, s.last_analyze, s.last_autoanalyze) is null
		            then greatest(s.n_live_tup, c.reltuples::bigint, 0) else s.n_live_tup end, coalesce(s.n_dead_tup, 0)
		  from pg_catalog.pg_class c
		  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
		  left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
		 where n.nspname = 'walhook' and c.relname in ('queue', 'response_state', 'endpoint', 'position', 'daemon')
		 order by 1`)
	if err != nil {
		e.cannotCheck("bloat", err)
		return
	}
	var (
		name             string
		size, live, dead int64
	)
	_, err = pgx.ForEachRow(rows, []any{&name, &size, &live, &dead}, func() error {
		if bloated := dead > deadRowsLimit && dead > live; bloated || name == "queue" || name == "response_state" {
			e.grade(bloated, catalog.Warn, "bloat",
				fmt.Sprintf("walhook.%s takes %s, with about %d rows and %d dead ones",
					name, catalog.FormatBytes(size), live, dead),
				fmt.Sprintf("end what holds VACUUM back (old transactions, slots with an xmin, prepared transactions), "+
					"then VACUUM walhook.%s;", name))
		}
		return nil
	})
	if err != nil {
		e.cannotCheck("bloat", err)
	}
	e.log(ctx)
}

// log compares the log's oldest entry with its retention.
func (e *examiner) log(ctx context.Context) {
	var size int64
	var overdue *time.Time
	err := e.store.QueryRow(ctx, `
		select coalesce(sum(pg_catalog.pg_total_relation_size(t.relid)), 0)::bigint,
		       (select min(l.finished_at) from walhook.log l
		         where $1::interval > interval '0' and l.finished_at < now() - 2 * $1::interval - interval '1 hour')
		  from (select relid from pg_catalog.pg_partition_tree('walhook.log')
		         union all
		        select relid from pg_catalog.pg_partition_tree('walhook.attempt')) t
		 where pg_catalog.pg_table_size(t.relid) >= 0`, e.cfg.Retention).Scan(&size, &overdue)
	if err != nil {
		e.cannotCheck("retention", err)
		return
	}
	text := fmt.Sprintf("log and attempts take %s and are kept for %s", catalog.FormatBytes(size), e.cfg.Retention)
	switch {
	case e.cfg.Retention == 0:
		e.grade(size > largeLog, catalog.Warn, "retention",
			fmt.Sprintf("log and attempts take %s and are kept for ever", catalog.FormatBytes(size)),
			"set WALHOOK_RETENTION, for example to 90d")
	case overdue != nil:
		e.note(catalog.Warn, "retention", text+", but the oldest entry is from "+overdue.UTC().Format(time.RFC3339),
			"SELECT * FROM walhook.incident WHERE kind = 'retention'; while a daemon runs, it drops old partitions")
	default:
		e.note(catalog.OK, "retention", text, "")
	}
}
