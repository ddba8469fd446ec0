package dispatch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"walhook/cdc"
	"walhook/dispatch/post"
	"walhook/dispatch/schedule"
	"walhook/sql"
)

// recordWith returns record for results that come with the failures of endpoints.
func (s *Scheduler) recordWith(endpoints []schedule.EndpointFailures) recordFunc {
	return func(ctx context.Context, to destination, part []schedule.Result) (recorded, waiting []schedule.Result, err error) {
		return s.record(ctx, to, part, endpoints)
	}
}

// record records a batch of results, and the failures of endpoints. It is idempotent. It returns the results that have
// to wait because another transaction has locked their rows.
func (s *Scheduler) record(
	ctx context.Context, to destination, results []schedule.Result, endpoints []schedule.EndpointFailures,
) (recorded, waiting []schedule.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	recorded, waiting, err = s.disable(ctx, results)
	if err != nil {
		return nil, nil, err
	}
	batch := &pgx.Batch{}
	s.queueResults(batch, to, recorded)
	s.queueEndpoints(batch, endpoints)
	if batch.Len() > 0 {
		err = s.pool.SendBatch(ctx, batch).Close()
	}
	if isLocked(err) {
		var locked []schedule.Result
		recorded, locked, err = s.recordUnlocked(ctx, to, recorded, endpoints)
		waiting = append(waiting, locked...)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("record %d results: %w", len(results), err)
	}
	return recorded, waiting, nil
}

// recordLocked records results that were deferred because of a lock. It does not wait for locks.
func (s *Scheduler) recordLocked(
	ctx context.Context, to destination, results []schedule.Result,
) (recorded, waiting []schedule.Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	recorded, waiting, err = s.disable(ctx, results)
	if err != nil || len(recorded) == 0 {
		return nil, waiting, err
	}
	recorded, locked, err := s.recordUnlocked(ctx, to, recorded, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("record %d results that waited: %w", len(results), err)
	}
	return recorded, append(waiting, locked...), nil
}

// recordUnlocked records the results whose rows nobody has locked, and returns the others as well.
func (s *Scheduler) recordUnlocked(
	ctx context.Context, to destination, results []schedule.Result, endpoints []schedule.EndpointFailures,
) (recorded, locked []schedule.Result, err error) {
	ids := make([]int64, len(results))
	for i := range results {
		ids[i] = results[i].Delivery.ID
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql.LockDeliveries.SQL, ids)
		if err != nil {
			return err
		}
		waits, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return err
		}
		recorded, locked = partition(results, func(r *schedule.Result) bool { return !slices.Contains(waits, r.Delivery.ID) })
		batch := &pgx.Batch{}
		s.queueResults(batch, to, recorded)
		s.queueEndpoints(batch, endpoints)
		return tx.SendBatch(ctx, batch).Close()
	})
	return recorded, locked, err
}

func partition(results []schedule.Result, by func(*schedule.Result) bool) (matching, others []schedule.Result) {
	for i := range results {
		if r := &results[i]; by(r) {
			matching = append(matching, *r)
		} else {
			others = append(others, *r)
		}
	}
	return matching, others
}

// isLocked reports whether a statement failed because it had to wait for a lock for too long.
func isLocked(err error) bool {
	return cdc.SQLState(err) == pgerrcode.LockNotAvailable
}

// queueResults adds the statements that record results to a batch.
func (s *Scheduler) queueResults(batch *pgx.Batch, to destination, results []schedule.Result) {
	var ended, retries sql.Rows[resultRow]
	now := time.Now()
	for i := range results {
		r := &results[i]
		row := row(r, s.age(now.Sub(r.At)))
		if r.Final {
			ended = append(ended, row)
		} else {
			retries = append(retries, row)
		}
	}
	if len(ended) > 0 {
		batch.Queue(to.ended.SQL, ended)
	}
	if n := len(retries); n > 0 {
		batch.Queue(to.retries.SQL, retries).Exec(func(tag pgconn.CommandTag) error {
			missing := tag.RowsAffected() < int64(n)
			for i := range results {
				results[i].Missing = missing && !results[i].Final
			}
			return nil
		})
	}
	s.queueVerdicts(batch, results)
}

// disable disables webhooks before their results are recorded: those whose endpoint answered 410, and those that have
// failed for too long. If another transaction has locked a webhook that answered 410, its results have to wait. Others
// are disabled after their next failure.
func (s *Scheduler) disable(ctx context.Context, results []schedule.Result) (rest, waiting []schedule.Result, err error) {
	if err := s.supersede(ctx, results); err != nil {
		return nil, nil, err
	}
	var gone, failing webhookArgs
	for i := range results {
		if r := &results[i]; r.Outcome.Kind == post.Gone {
			gone.add(r.Delivery.WebhookID, r.Activation)
		}
	}
	for _, v := range s.schedule.Verdicts(results) {
		if v.Failing && !v.Succeeded {
			failing.add(v.WebhookID, v.Activation)
		}
	}
	enabled := gone.ids
	batch := &pgx.Batch{}
	if len(gone.ids) > 0 {
		batch.Queue(sql.DisableGone.SQL, gone.ids, gone.activations).Query(s.logDisabled)
		batch.Queue(sql.StillEnabled.SQL, gone.ids, gone.activations).Query(func(rows pgx.Rows) (err error) {
			enabled, err = pgx.CollectRows(rows, pgx.RowTo[int64])
			return err
		})
	}
	if len(failing.ids) > 0 && s.cfg.DisableAfter > 0 {
		args := sql.DisableTroubled.Bind(sql.Args{"webhook_ids": failing.ids, "disable_after": s.cfg.DisableAfter})
		batch.Queue(sql.DisableTroubled.SQL, args...).Query(s.logDisabled)
	}
	if batch.Len() == 0 {
		return results, nil, nil
	}
	if err := s.pool.SendBatch(ctx, batch).Close(); isLocked(err) {
		enabled = gone.ids
	} else if err != nil {
		return nil, nil, fmt.Errorf("disable webhooks: %w", err)
	}
	rest, waiting = partition(results, func(r *schedule.Result) bool {
		return r.Outcome.Kind != post.Gone || !slices.Contains(enabled, r.Delivery.WebhookID)
	})
	return rest, waiting, nil
}

// supersede keeps deliveries pending that were answered with 410, if their webhook has got another URL since or was enabled
// again.
func (s *Scheduler) supersede(ctx context.Context, results []schedule.Result) error {
	gone := map[int64]*schedule.Result{}
	var deliveries, webhooks, activations []int64
	for i := range results {
		if r := &results[i]; r.Outcome.Kind == post.Gone && r.Delivery.Attempts+1 < s.cfg.MaxAttempts {
			gone[r.Delivery.ID] = r
			deliveries = append(deliveries, r.Delivery.ID)
			webhooks = append(webhooks, r.Delivery.WebhookID)
			activations = append(activations, r.Activation)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	rows, err := s.pool.Query(ctx, sql.Superseded.SQL, sql.Superseded.Bind(sql.Args{
		"delivery_ids": deliveries, "webhook_ids": webhooks, "activations": activations,
	})...)
	if err != nil {
		return fmt.Errorf("find webhooks with another activation: %w", err)
	}
	var id int64
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error {
		gone[id].Final = false
		return nil
	}); err != nil {
		return fmt.Errorf("find webhooks with another activation: %w", err)
	}
	return nil
}

// queueVerdicts records which webhooks are in trouble. A success clears earlier failures before a later failure is
// marked.
func (s *Scheduler) queueVerdicts(batch *pgx.Batch, results []schedule.Result) {
	var succeeded, failing webhookArgs
	for _, v := range s.schedule.Verdicts(results) {
		if v.Succeeded {
			succeeded.add(v.WebhookID, v.Activation)
		}
		if v.Failing {
			failing.add(v.WebhookID, v.Activation)
		}
	}
	if len(succeeded.ids) > 0 {
		batch.Queue(sql.ClearTrouble.SQL, succeeded.ids, succeeded.activations)
	}
	if len(failing.ids) > 0 {
		batch.Queue(sql.MarkTrouble.SQL, failing.ids, failing.activations)
	}
}

// webhookArgs are activations of webhooks, as parameters of statements.
type webhookArgs struct{ ids, activations []int64 }

func (a *webhookArgs) add(id, activation int64) {
	a.ids, a.activations = append(a.ids, id), append(a.activations, activation)
}

func (s *Scheduler) logDisabled(rows pgx.Rows) error {
	var detail string
	_, err := pgx.ForEachRow(rows, []any{&detail}, func() error {
		s.cfg.Log.Warn("a webhook was disabled", "detail", detail)
		s.schedule.RequestRefresh()
		return nil
	})
	return err
}

// deleteGone deletes webhooks whose receiver answered 410, if an API key created them. Their results have been recorded
// by then, since what is pending for a deleted webhook ends as failed.
func (s *Scheduler) deleteGone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	rows, err := s.pool.Query(ctx, sql.DeleteGone.SQL)
	if err != nil {
		return fmt.Errorf("delete webhooks whose receiver is gone: %w", err)
	}
	details, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, detail := range details {
		s.cfg.Log.Warn("a webhook was deleted", "detail", detail)
	}
	if err != nil {
		return fmt.Errorf("delete webhooks whose receiver is gone: %w", err)
	}
	return nil
}

// age limits the age of a result when it is recorded after an outage, because the partition for anything older than the
// retention may have been dropped.
func (s *Scheduler) age(age time.Duration) time.Duration {
	if s.cfg.Retention > 0 {
		return min(age, s.cfg.Retention)
	}
	return age
}

// queueEndpoints adds the statement that records the failures of endpoints, for administrators and the next owner.
func (s *Scheduler) queueEndpoints(batch *pgx.Batch, endpoints []schedule.EndpointFailures) {
	if len(endpoints) == 0 {
		return
	}
	ids := make([]int64, len(endpoints))
	failures := make([]int32, len(endpoints))
	pauses := make([]int64, len(endpoints))
	errors := make([]string, len(endpoints))
	for i, e := range endpoints {
		ids[i], failures[i], errors[i] = e.EndpointID, int32(e.Failures), e.LastError
		pauses[i] = max(time.Until(e.NotBefore).Milliseconds(), 0)
	}
	batch.Queue(sql.RecordEndpoint.SQL, sql.RecordEndpoint.Bind(sql.Args{
		"endpoint_ids": ids, "failures": failures, "pauses": pauses, "errors": errors,
	})...)
}

// resultRow is a result as walhook.result_in has it. Times are in milliseconds.
type resultRow struct {
	DeliveryID int64  `sql:"delivery_id"`
	Attempts   int32  `sql:"attempts"` // made before
	Succeeded  bool   `sql:"succeeded"`
	HTTPStatus int32  `sql:"http_status"`
	Error      string `sql:"error"`
	Age        int32  `sql:"age"` // of the answer
	Duration   int32  `sql:"duration"`
	Delay      int64  `sql:"delay"` // until the next attempt
	Logged     bool   `sql:"logged"`
}

func row(r *schedule.Result, age time.Duration) resultRow {
	succeeded := r.Outcome.Kind == post.Success
	return resultRow{
		DeliveryID: r.Delivery.ID,
		Attempts:   int32(r.Delivery.Attempts),
		Succeeded:  succeeded,
		HTTPStatus: int32(r.Outcome.HTTPStatus),
		Error:      r.Outcome.Error,
		Age:        milliseconds(age),
		Duration:   milliseconds(r.Outcome.Duration),
		Delay:      r.Delay.Milliseconds(),
		Logged:     !succeeded || r.Delivery.Hook.Logged,
	}
}

func milliseconds(d time.Duration) int32 { return int32(min(max(d.Milliseconds(), 0), 1<<31-1)) }
