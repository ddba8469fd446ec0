package stream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
)

// comparison reconciles the recorded state with the table at a snapshot, and fires the events that were missed. It
// runs in a store transaction that also sets the position, so it happens exactly once or not at all. Memory is
// bounded by compareChunk.
type comparison struct {
	source, store *pgx.Conn // run ends the source's transaction at the snapshot; the caller commits the store's
	mapping       cdc.Mapping
	respondent    *catalog.Table
	assessment    *catalog.Table // nil if none is mapped
	queue         cdc.Queue
	at            pglogrepl.LSN // of the snapshot
	report        func(string)
	progress      func(rows, total int64)

	key           *cdc.StampKey
	before, types catalog.ColumnTypes // of the mapped columns, as recorded and as they are now; before may be nil
	caughtUp      bool                // the stream was consumed up to the snapshot
	replaced      bool                // the table is not the one that was attached
	restamp       bool                // some recorded stamps have another type
	unmatched     bool                // the keys of the rows cannot be matched with the recorded ones
	remap         bool                // the recorded states are of another mapping, and nothing fires

	rejected func(*RejectedRow) error // records a row that the store rejected
}

// compareChunk is how many differing responses are processed at a time.
const compareChunk = 5000

// comparisonResult counts the rows of a comparison.
type comparisonResult struct {
	rows, differing, deleted int64
	rejected                 int64 // rows that the store rejected
	events                   EventCounts
}

func (c *comparison) run(ctx context.Context) (comparisonResult, error) {
	var result comparisonResult
	c.rejected = func(r *RejectedRow) error {
		r.LSN = c.at
		result.rejected++
		c.report(r.String())
		return r.Record(ctx, c.store)
	}
	if _, err := c.store.Exec(ctx, sql.ResolveRowsSetAside.SQL); err != nil {
		return result, fmt.Errorf("resolve the incidents of rows that were set aside: %w", err)
	}
	if err := c.assessments(ctx); err != nil {
		return result, err
	}
	if err := c.prepareRetyped(ctx); err != nil {
		return result, err
	}
	if err := c.stage(ctx, &result); err != nil {
		return result, err
	}
	// Everything has been read. End the snapshot, so that DDL on the table need not wait for the store.
	if _, err := c.source.Exec(ctx, "commit"); err != nil {
		return result, fmt.Errorf("end the snapshot: %w", err)
	}
	// A response without a row was deleted, which fires nothing.
	tag, err := c.store.Exec(
		ctx,
		`delete from walhook.response_state r where not exists (select from pg_temp.walhook_snapshot s where s.response_id = r.response_id)
		and not exists (select from pg_temp.walhook_refused f where f.response_id = r.response_id)`,
	)
	if err != nil {
		return result, fmt.Errorf("forget the responses that are gone: %w", err)
	}
	result.deleted = tag.RowsAffected()
	if err := c.reconcileDifferences(ctx, &result); err != nil {
		return result, err
	}
	return result, nil
}

// prepareRetyped handles columns whose types differ from the recorded ones.
func (c *comparison) prepareRetyped(ctx context.Context) error {
	retyped := !c.remap && slices.ContainsFunc(catalog.StampRoles(c.mapping), func(role string) bool { return c.before[role] != c.types[role] })
	err := c.store.QueryRow(ctx, "select $1 or not $2 and exists (select from walhook.response_state where stamp like '?:%')", retyped, c.remap).
		Scan(&c.restamp)
	if err != nil {
		return fmt.Errorf("look up the recorded stamps: %w", err)
	}
	before, known := c.before[catalog.RoleKey]
	if known {
		known, err = rekeyStates(ctx, c.store, before, c.types[catalog.RoleKey])
		c.unmatched = !known
	}
	return err
}

// stage copies the snapshot into a temporary table.
func (c *comparison) stage(ctx context.Context, result *comparisonResult) error {
	_, err := c.store.PgConn().Exec(ctx, `create temporary table walhook_snapshot (
		  response_id text collate "C", assessment_id text collate "C", organization_id text collate "C", stamp text collate "C",
		  flags smallint, stamp_values text
		) on commit drop;
		create temporary table walhook_refused (response_id text collate "C") on commit drop`).ReadAll()
	if err != nil {
		return fmt.Errorf("stage the snapshot: %w", err)
	}
	total := int64(c.respondent.Rows)
	result.rows, err = catalog.CopyRows(
		ctx, c.source, c.store, c.mapping.Respondent, c.mapping.RespondentColumns(), "pg_temp.walhook_snapshot",
		catalog.SnapshotConverter(c.mapping, c.respondent, c.key, c.restamp),
		func(n int64) { c.progress(n, total) },
		func(row []byte, cause error) error { return c.rejectStaged(ctx, KeyOf(row), cause) },
	)
	if err != nil {
		return err
	}
	if _, err := c.store.Exec(ctx, "analyze pg_temp.walhook_snapshot"); err != nil {
		return fmt.Errorf("stage the snapshot: %w", err)
	}
	return nil
}

// reconcileDifferences classifies every response whose row differs from its recorded state, in the order of the
// table.
func (c *comparison) reconcileDifferences(ctx context.Context, result *comparisonResult) error {
	c.report("comparing the table with the recorded state")
	differs := fmt.Sprintf("(r.flags & %[1]d) <> (s.flags & %[1]d) or s.flags & %[2]d <> 0 and s.stamp is not null and s.stamp is distinct from r.stamp",
		cdc.RowFlags, cdc.FlagFinishedNow)
	if !c.caughtUp { // they may have been finished and reopened: see cdc.Missed
		differs += fmt.Sprintf(" or s.flags & %d = 0 and s.stamp is distinct from r.stamp", cdc.FlagFinishedNow)
	}
	if c.remap {
		differs = "s.flags <> r.flags or s.stamp is distinct from r.stamp"
	}
	_, err := c.store.Exec(ctx, fmt.Sprintf(`declare walhook_differences no scroll cursor for
		select s.response_id, s.assessment_id, s.organization_id, s.stamp, s.flags, s.stamp_values,
		       r.response_id is not null, r.assessment_id, r.organization_id, r.stamp, coalesce(r.flags, 0), r.first_id
		  from pg_temp.walhook_snapshot s left join walhook.response_state r on r.response_id = s.response_id
		 where r.response_id is null or %s
		    or s.assessment_id is distinct from r.assessment_id or s.organization_id is distinct from r.organization_id`, differs))
	if err != nil {
		return fmt.Errorf("compare the table with the recorded state: %w", err)
	}
	var ordinal int64
	at := time.Now()
	for {
		found, err := c.fetch(ctx)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return nil
		}
		for i := range found {
			ordinal++
			found[i].ordinal = ordinal
		}
		result.differing += int64(len(found))
		if err := c.fire(ctx, found, at, result); err != nil {
			return err
		}
	}
}

// fire records the state of differing rows and fires the events that they missed. If the store rejects some, it
// bisects them to find the rejected rows, whose state stays as it was.
func (c *comparison) fire(ctx context.Context, found []difference, now time.Time, result *comparisonResult) error {
	work := &pgx.Batch{}
	var events []cdc.Event
	var fires EventCounts
	var rows sql.Rows[stateRow]
	for _, d := range found {
		var next cdc.State
		var fired cdc.EventSet
		if c.remap {
			next = cdc.Remapped(d.recorded, d.row)
		} else if next, fired = cdc.Missed(d.recorded, d.row); d.recorded == nil && c.unmatched {
			fired = 0
		}
		var created pglogrepl.LSN
		if d.recorded == nil && c.replaced || d.recorded != nil && d.recorded.Excluded && !next.Excluded && !c.remap {
			created = c.at // it replaces what was recorded under its id
		}
		rows = append(rows, newStateRow(d.row.ID, &next, created, eventHistory{}.add(fired, false, now)))
		for _, event := range fired.Types() {
			events = append(events, cdc.Event{
				Type: event, ResponseID: d.row.ID,
				AssessmentID: next.AssessmentID, OrganizationID: next.OrganizationID, FirstID: next.FirstID,
				LSN: c.at, Ordinal: d.ordinal, CommitAt: now, Recovered: true,
			})
			fires[event]++
		}
	}
	if len(events) > 0 {
		c.queue.Add(work, events)
	}
	work.Queue(sql.WriteStates.SQL, rows)
	err := catalog.InSavepoint(ctx, c.store, func() error { return c.store.SendBatch(ctx, work).Close() })
	switch {
	case err == nil:
		for i, n := range fires {
			result.events[i] += n
		}
		return nil
	case !cdc.IsRejected(err):
		return fmt.Errorf("fire what was missed: %w", err)
	}
	c.queue.Discarded() // deliveries queued before are loaded from the store
	c.queue.Began()
	if len(found) == 1 {
		return c.rejected(&RejectedRow{Table: c.mapping.Respondent, Key: found[0].row.ID, Cause: err})
	}
	half := len(found) / 2
	if err := c.fire(ctx, found[:half], now, result); err != nil {
		return err
	}
	return c.fire(ctx, found[half:], now, result)
}

// rejectStaged sets a row aside that could not be staged. Its recorded state, if any, stays as it is.
func (c *comparison) rejectStaged(ctx context.Context, id string, cause error) error {
	err := catalog.InSavepoint(ctx, c.store, func() error {
		_, err := c.store.Exec(ctx, "insert into pg_temp.walhook_refused values ($1)", id)
		return err
	})
	if err != nil && !cdc.IsRejected(err) { // an id that cannot be stored has no state
		return fmt.Errorf("stage the snapshot: %w", err)
	}
	return c.rejected(&RejectedRow{Table: c.mapping.Respondent, Key: id, Cause: cause})
}

// difference is a row and its recorded state, nil if there is none.
type difference struct {
	row      cdc.Row
	recorded *cdc.State
	ordinal  int64 // among all that differ

	regressed bool // a marker is not set any more
}

func (c *comparison) fetch(ctx context.Context) ([]difference, error) {
	rows, err := c.store.Query(ctx, fmt.Sprintf("fetch %d from walhook_differences", compareChunk))
	if err != nil {
		return nil, fmt.Errorf("compare the table with the recorded state: %w", err)
	}
	defer rows.Close()
	var found []difference
	stampRoles := catalog.StampRoles(c.mapping)
	for rows.Next() {
		var (
			id                                      string
			assessment, organization, stamp, values *string
			flags, recordedFlags                    int16
			recorded                                bool
			recordedAssessment, recordedOrg, before *string
			first                                   *string
		)
		if err := rows.Scan(
			&id, &assessment, &organization, &stamp, &flags, &values,
			&recorded, &recordedAssessment, &recordedOrg, &before, &recordedFlags, &first,
		); err != nil {
			return nil, fmt.Errorf("compare the table with the recorded state: %w", err)
		}
		d := difference{row: cdc.Row{
			ID: id, Assessment: textOf(assessment), Organization: textOf(organization),
		}}
		d.row.SetFlags(flags)
		d.regressed = recordedFlags&^flags&(cdc.FlagStartedNow|cdc.FlagFinishedNow) != 0
		if stamp != nil {
			d.row.SetStoredStamp(*stamp, len(stampRoles))
		}
		if values != nil {
			var known []*string
			if err := json.Unmarshal([]byte(*values), &known); err != nil {
				return nil, fmt.Errorf("compare the table with the recorded state: %w", err)
			}
			for i := range d.row.Stamps {
				if known[i] != nil {
					d.row.Stamps[i].Value = cdc.StampValue{Text: *known[i], Type: c.types[stampRoles[i]], Key: c.key}
				}
			}
		}
		if recorded {
			d.recorded = newState(recordedAssessment, recordedOrg, before, recordedFlags, first)
		}
		if d.recorded != nil && c.replaced && c.isDifferentResponse(d) {
			d.recorded = nil
		}
		if d.recorded != nil && !c.remap && c.caughtUp && d.row.Finished == cdc.MarkUnset {
			d.row.Stamps = make([]cdc.Stamp, len(stampRoles))
			for i := range d.row.Stamps {
				d.row.Stamps[i].Stored.Unchanged = true // the recorded one is that of the last finish
			}
		}
		if d.recorded != nil && !c.remap {
			d.recorded.ReplaceRetypedStamps(&d.row, c.caughtUp) // caught up: the stream has applied all changes
		}
		found = append(found, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("compare the table with the recorded state: %w", err)
	}
	return found, nil
}

// isDifferentResponse reports whether a row of a replaced table is another response with the same id: it has made
// less progress, or belongs to another assessment. A row with more progress may be a copy that has changed since.
func (c *comparison) isDifferentResponse(d difference) bool {
	return d.regressed ||
		c.before[catalog.RoleAssessment] == c.types[catalog.RoleAssessment] &&
			!cdc.EqualText(d.recorded.AssessmentID, d.row.Assessment.Pointer())
}

func textOf(value *string) cdc.Text {
	if value == nil {
		return cdc.Text{Null: true}
	}
	return cdc.Text{Value: *value}
}

// assessments replaces the recorded assessments by the current ones, and copies webhooks to assessments that were copied in
// the meantime.
func (c *comparison) assessments(ctx context.Context) error {
	if c.assessment == nil {
		if !c.remap {
			return nil
		}
		if _, err := c.store.Exec(ctx, "delete from walhook.assessment"); err != nil {
			return fmt.Errorf("forget the assessments: %w", err)
		}
		return nil
	}
	_, err := c.store.Exec(
		ctx,
		`create temporary table walhook_assessments
		(assessment_id text collate "C", external_id text, organization_id text collate "C", name text, copied_from text) on commit drop`,
	)
	if err != nil {
		return fmt.Errorf("stage the assessments: %w", err)
	}
	columns := c.mapping.AssessmentColumns()
	_, err = catalog.CopyRows(
		ctx, c.source, c.store, c.mapping.AssessmentTable, columns,
		"pg_temp.walhook_assessments",
		catalog.AssessmentConverter(c.mapping, c.assessment, c.store.PgConn().ParameterStatus("server_encoding"), true), func(int64) {},
		func(row []byte, cause error) error { return c.rejectAssessment(ctx, row, cause) },
	)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		sql    string
		copies bool
	}{
		{`select walhook.inherit_webhooks(s.copied_from, s.assessment_id) from pg_temp.walhook_assessments s
		  where s.copied_from <> '' and not exists (select from walhook.assessment a where a.assessment_id = s.assessment_id)`, true},
		{"delete from walhook.assessment", false},
		{"insert into walhook.assessment " + catalog.AssessmentColumns + `
		  select s.assessment_id, s.external_id, s.organization_id, s.name from pg_temp.walhook_assessments s where true`, false},
	} {
		if step.copies && c.remap {
			continue // copies that were made before fire nothing either
		}
		err := catalog.InSavepoint(ctx, c.store, func() error {
			_, err := c.store.Exec(ctx, step.sql)
			return err
		})
		if cdc.IsRejected(err) {
			err = c.applyToEachAssessment(ctx, step.sql, step.copies)
		}
		if err != nil {
			return fmt.Errorf("take the assessments over: %w", err)
		}
	}
	return nil
}

// rejectAssessment stages an assessment without its original, for which the store can have no webhooks if it cannot
// represent the id, and sets aside one that the store rejects even so.
func (c *comparison) rejectAssessment(ctx context.Context, row []byte, cause error) error {
	var kept [4]*string // as AssessmentColumns has them
	for i, field := range bytes.SplitN(row, []byte{'\t'}, len(kept)+1)[:len(kept)] {
		value := catalog.CopyField(field)
		kept[i] = value.Pointer()
	}
	id := *kept[0]
	err := catalog.InSavepoint(ctx, c.store, func() error {
		_, err := c.store.Exec(ctx, "insert into pg_temp.walhook_assessments values ($1, $2, $3, $4)", kept[0], kept[1], kept[2], kept[3])
		return err
	})
	switch {
	case cdc.IsRejected(err):
		return c.rejected(&RejectedRow{Table: c.mapping.AssessmentTable, Key: id, Cause: cause})
	case err != nil:
		return fmt.Errorf("stage the assessments: %w", err)
	}
	return nil
}

// applyToEachAssessment runs a step, which ends in a condition on s, for one assessment at a time, and sets aside
// those that the store rejects.
func (c *comparison) applyToEachAssessment(ctx context.Context, step string, copies bool) error {
	rows, err := c.store.Query(ctx, `
		select assessment_id, case when $1 then coalesce(copied_from, '') else '' end from pg_temp.walhook_assessments`, copies)
	if err != nil {
		return err
	}
	type assessment struct{ ID, Original string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[assessment])
	if err != nil {
		return err
	}
	for _, a := range all {
		err := catalog.InSavepoint(ctx, c.store, func() error {
			_, err := c.store.Exec(ctx, step+" and s.assessment_id = $1", a.ID)
			return err
		})
		if cdc.IsRejected(err) {
			err = c.rejected(&RejectedRow{Table: c.mapping.AssessmentTable, Key: a.ID, original: a.Original, Cause: err})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
