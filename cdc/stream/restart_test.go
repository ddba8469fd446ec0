package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/sql"
	"walhook/testenv"
)

// For any WAL, batch boundaries, server reports and kills of the daemon, even before it has recovered from the
// previous one: each event is queued exactly once, in commit order, and the stored position always matches what was
// queued. Reader, writer and store are the production code; the test plays the server.
func TestEveryChangeIsTakenOnce(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), queuedTable)
	store, err := catalog.ConnectStore(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer catalog.CloseQuietly(store)
	if err := sql.Install(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	side := testenv.Connect(t, url)
	rapid.Check(t, func(t *rapid.T) {
		p := &play{T: t, store: store, side: side, history: drawHistory(t)}
		p.reset()
		for range rapid.IntRange(0, 4).Draw(t, "sessions") {
			p.begin(false)
			for range rapid.IntRange(0, 30).Draw(t, "steps") {
				if !p.over && !p.broken {
					p.step()
				}
			}
			if !p.broken && p.reader.endLSN != 0 && rapid.Bool().Draw(t, "to its end") {
				p.toEnd()
			}
			switch {
			case p.broken:
				_ = p.writer.flush(context.Background()) // it would write nothing of what was refused
				p.verify()
			case p.over:
				p.atEnd()
			case rapid.IntRange(0, 3).Draw(t, "stopped") == 3:
				p.stop()
			default:
				p.crash()
			}
		}
		p.finish()
	})
}

// queuedTable contains what is queued, in order, with the assessment as seen by a statement of the same transaction.
const queuedTable = `create table queued (
	n bigint generated always as identity, lsn pg_lsn, ordinal bigint, event text, response_id text check (response_id <> '4'), assessment_id text, external_id text)`

// refusedID is the key of rows whose events the store rejects.
const refusedID = "4"

const firstLSN = pglogrepl.LSN(0x100)

// walChange is a row change, as sent and as the model applies it.
type walChange struct {
	sent     wire
	counts   bool       // it is of a mapped table
	change   cdc.Change // Kind 0: nothing follows from it
	silenced bool
	ordinal  int64
}

// walTx is a transaction of the WAL.
type walTx struct {
	commit, end pglogrepl.LSN
	changes     []walChange
}

// history is what was written on the source.
type history struct {
	partitioned bool
	empty       bool // transactions without changes of ours are sent too, as PostgreSQL 14 does
	txs         []walTx
}

func drawHistory(t *rapid.T) history {
	h := history{partitioned: rapid.Bool().Draw(t, "partitioned"), empty: rapid.Bool().Draw(t, "empty")}
	at, assessments := firstLSN, map[string]bool{}
	for n := range rapid.IntRange(1, 6).Draw(t, "transactions") {
		commit := at + pglogrepl.LSN(8*rapid.IntRange(0, 2).Draw(t, "gap"))
		tx := walTx{commit: commit, end: commit + 8}
		at = tx.end
		silenced, ordinal := false, int64(0)
		for range rapid.IntRange(0, 6).Draw(t, "changes") {
			silenced = silenced || rapid.IntRange(0, 11).Draw(t, "silence") == 11
			for _, c := range drawChanges(t, n, assessments) {
				c.silenced = silenced
				if c.counts {
					ordinal++
				}
				c.ordinal = ordinal
				tx.changes = append(tx.changes, c)
			}
		}
		h.txs = append(h.txs, tx)
	}
	return h
}

// drawChanges draws a change, or the two of a row that moves to another partition.
func drawChanges(t *rapid.T, tx int, assessments map[string]bool) []walChange {
	id := rapid.SampledFrom([]string{"1", "2", "3", "1", "2", "3", refusedID})
	assessment := rapid.SampledFrom([]string{"10", "20"})
	row := func(id string) (values []any, row cdc.Row) {
		a, started, finished := assessment.Draw(t, "assessment"), rapid.Bool().Draw(t, "started"), rapid.Bool().Draw(t, "finished")
		values = []any{id, "somebody", a, nil, nil, "open", nil}
		row = cdc.Row{ID: id, Assessment: text(a), Organization: null}
		if rapid.IntRange(0, 3).Draw(t, "excluded") == 3 {
			values[1], row.Excluded = "nobody", cdc.MarkSet
		}
		if started {
			values[4], row.Started = "2026-01-01 00:00:00+00", cdc.MarkSet
		}
		if finished {
			values[5], row.Finished = "done", cdc.MarkSet
		}
		if stamp := rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "stamp"); stamp != "" {
			values[6] = stamp
			row = withStamp(row, stamp)
		}
		return values, row
	}
	insert := func(key string) walChange {
		values, row := row(key)
		return walChange{counts: true, sent: insertMessage(respondentOID, values...), change: cdc.Change{Kind: cdc.Insert, Table: cdc.Respondent, New: row}}
	}
	remove := func(key string) walChange {
		return walChange{
			counts: true,
			sent:   deleteMessage(respondentOID, 'K', key, nil, nil, nil, nil, nil, nil),
			change: cdc.Change{Kind: cdc.Delete, Table: cdc.Respondent, New: cdc.Row{ID: key}},
		}
	}
	switch key := id.Draw(t, "id"); rapid.SampledFrom([]string{
		"insert", "insert", "update", "update", "update", "update", "update", "rename", "delete", "move", "move", "truncate", "keyless", "assessment", "assessment", "assessment", "other",
	}).Draw(t, "kind") {
	case "insert":
		return []walChange{insert(key)}
	case "move":
		return []walChange{remove(key), insert(key)}
	case "rename":
		if to := id.Draw(t, "to"); to != key {
			values, row := row(to)
			old := []any{key, nil, nil, nil, nil, nil, nil}
			return []walChange{{counts: true, sent: updateFromMessage(respondentOID, 'K', old, values...), change: cdc.Change{Kind: cdc.Update, Table: cdc.Respondent, New: row, KeyChanged: true, OldID: key}}}
		}
		fallthrough
	case "delete":
		return []walChange{remove(key)}
	case "truncate":
		return []walChange{{counts: true, sent: truncateMessage(otherOID, respondentOID), change: cdc.Change{Kind: cdc.Truncate, Table: cdc.Respondent}}}
	case "keyless":
		return []walChange{{counts: true, sent: deleteMessage(respondentOID, 'K', nil, nil, nil, nil, nil, nil, nil)}}
	case "assessment":
		return []walChange{drawAssessment(t, fmt.Sprintf("external %d", tx), assessments)}
	case "other":
		return []walChange{{sent: insertMessage(otherOID, key)}}
	default:
		values, row := row(key)
		return []walChange{{counts: true, sent: updateMessage(respondentOID, values...), change: cdc.Change{Kind: cdc.Update, Table: cdc.Respondent, New: row}}}
	}
}

// drawAssessment draws a change of the assessment table, given the existing assessments.
func drawAssessment(t *rapid.T, external string, there map[string]bool) walChange {
	assessment := rapid.SampledFrom([]string{"10", "20", "30"})
	id := assessment.Draw(t, "assessment")
	value, text := any(external), text(external)
	switch rapid.IntRange(0, 3).Draw(t, "external id") {
	case 0:
		value, text = nil, null
	case 1:
		value, text = notSent, cdc.Text{Unchanged: true}
	}
	c := walChange{counts: true, change: cdc.Change{Kind: cdc.Update, Table: cdc.Assessment, New: cdc.Row{ID: id, ExternalID: text}}}
	switch rapid.SampledFrom([]string{"insert", "insert", "update", "rename", "delete", "truncate"}).Draw(t, "what") {
	case "insert":
		if text.Unchanged {
			value, c.change.New.ExternalID = nil, null
		}
		c.sent, c.change.Kind = insertMessage(assessmentOID, id, value, "title", nil), cdc.Insert
		there[id] = true
	case "rename":
		if to := assessment.Draw(t, "to"); there[id] && !there[to] {
			c.sent = updateFromMessage(assessmentOID, 'K', []any{id, nil, nil, nil}, to, value, "title", nil)
			c.change.KeyChanged, c.change.OldID, c.change.New.ID = true, id, to
			delete(there, id)
			there[to] = true
			return c
		}
		fallthrough
	case "update":
		c.sent = updateMessage(assessmentOID, id, value, "title", nil)
		there[id] = there[id] || !text.Unchanged
	case "delete":
		c.sent, c.change.Kind = deleteMessage(assessmentOID, 'K', id, nil, nil, nil), cdc.Delete
		delete(there, id)
	case "truncate":
		c.sent, c.change = truncateMessage(assessmentOID), cdc.Change{Kind: cdc.Truncate, Table: cdc.Assessment}
		clear(there)
	}
	return c
}

// effective returns the changes of a mapped table. In a partitioned table, a delete and an insert of the same key
// with no other change of ours between them are a move.
func (h *history) effective(tx walTx) []walChange {
	var changes []walChange
	for _, c := range tx.changes {
		if !c.counts {
			continue
		}
		if n := len(changes) - 1; h.partitioned && n >= 0 && changes[n].silenced == c.silenced && changes[n].change.Kind == cdc.Delete &&
			c.change.Kind == cdc.Insert && c.change.Table == cdc.Respondent && c.change.New.ID == changes[n].change.New.ID {
			c.change.Kind = cdc.Update
			changes[n] = c
			continue
		}
		changes = append(changes, c)
	}
	return changes
}

// queuedEvent is a row of queuedTable.
type queuedEvent struct {
	LSN                                   string
	Ordinal                               int64
	Event, Response, Assessment, External string
}

// recordedState is a row of walhook.response_state.
type recordedState struct {
	cdc.State

	Created string // commit LSN of the insert, whatever key the row had then
	Fate    int16
}

// expected returns the events of all changes up to a position, in order, and the states that they leave.
func (h *history) expected(to cdc.Position) ([]queuedEvent, map[string]recordedState) {
	var events []queuedEvent
	states, external := map[string]*cdc.State{}, map[string]string{}
	created, fates := map[string]string{}, map[string]eventHistory{}
	for _, tx := range h.txs {
		limit := int64(0)
		switch {
		case tx.commit < to.LSN:
			limit = 1 << 30
		case tx.commit == to.Partial:
			limit = to.PartialChanges
		}
		for _, c := range h.effective(tx) {
			if c.ordinal > limit {
				break
			}
			switch change := c.change; {
			case change.Kind == 0:
			case change.Table == cdc.Assessment && change.Kind == cdc.Truncate:
				clear(external)
			case change.Table == cdc.Assessment && change.Kind == cdc.Delete:
				delete(external, change.New.ID)
			case change.Table == cdc.Assessment:
				if change.KeyChanged {
					external[change.New.ID] = external[change.OldID]
					delete(external, change.OldID)
				}
				if !change.New.ExternalID.Unchanged {
					external[change.New.ID] = change.New.ExternalID.Value
				}
			case change.Kind == cdc.Truncate:
				clear(states)
				clear(created)
			default:
				old := change.PriorID()
				next, fired := cdc.Classify(states[old], change)
				if change.New.ID == refusedID && fired != 0 && !c.silenced {
					continue // it is set aside
				}
				if fired.Has(cdc.Created) {
					created[change.New.ID], fates[change.New.ID] = tx.commit.String(), eventHistory{}
				} else if change.KeyChanged {
					created[change.New.ID], fates[change.New.ID] = created[old], fates[old]
				}
				if change.KeyChanged && states[old] != nil && next.FirstID == nil {
					next.FirstID = &old
				}
				fates[change.New.ID] = fates[change.New.ID].add(fired, c.silenced, time.Time{})
				delete(states, old)
				if next != nil {
					states[change.New.ID] = next
				}
				for _, event := range fired.Types() {
					if !c.silenced {
						events = append(events, queuedEvent{
							tx.commit.String(), c.ordinal, event.String(), change.New.ID, *next.AssessmentID, external[*next.AssessmentID],
						})
					}
				}
			}
		}
	}
	left := map[string]recordedState{}
	for id, state := range states {
		if state.Excluded { // nobody reads the rest
			left[id] = recordedState{State: *state}
			continue
		}
		left[id] = recordedState{State: *state, Created: created[id], Fate: fates[id].fired | fates[id].silenced<<(cdc.EventTypeLimit-1)}
	}
	return events, left
}

// sent is a message, and how far the server may have read when it sends it.
type sent struct {
	message wire
	read    pglogrepl.LSN
}

// from returns the messages of the transactions that commit at or after a position.
func (h *history) from(start pglogrepl.LSN) []sent {
	var messages []sent
	for _, tx := range h.txs {
		if tx.commit < start {
			continue
		}
		if !h.empty && !slices.ContainsFunc(tx.changes, func(c walChange) bool { return c.counts || c.silenced }) {
			continue
		}
		add := func(m wire) { messages = append(messages, sent{m, tx.commit}) }
		add(beginMessage(tx.commit, time.Unix(1e9, 0), uint32(tx.commit)))
		add(respondentRelation)
		add(assessmentRelation)
		silenced := false
		for _, c := range tx.changes {
			if c.silenced && !silenced {
				silenced = true
				add(logicalMessage(1, "walhook", "silence"))
			}
			add(c.sent)
		}
		add(commitMessage(tx.commit, tx.end))
	}
	return messages
}

// end returns the end of the WAL.
func (h *history) end() pglogrepl.LSN { return h.txs[len(h.txs)-1].end + 0x40 }

// play sends a history to daemons that are killed.
type play struct {
	*rapid.T
	store *pgx.Conn
	side  *pgx.Conn // to it as well
	history

	begun  map[pglogrepl.LSN]uint64 // where the store's WAL ended when the commit of everything up to a position began
	reader *reader
	writer *writer
	former *writer // of a daemon that was killed for good, or only seemed to be
	ahead  []sent  // what the server has still to send
	read   pglogrepl.LSN
	acked  pglogrepl.LSN // by any daemon so far
	over   bool          // the session has reached its end point
	broken bool          // the store has refused what it was given
}

func (p *play) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// reset empties the store.
func (p *play) reset() {
	p.must(p.store.PgConn().Exec(context.Background(), `truncate public.queued restart identity;
		truncate walhook.response_state, walhook.assessment;
		delete from walhook.position;
		insert into walhook.position (turn, lsn) values (1, '0/100')`).Close())
	p.acked = firstLSN
}

// begin starts a daemon at the stored position.
func (p *play) begin(endless bool) {
	from, turn, err := acquireFence(context.Background(), p.store)
	p.must(err)
	mapping := testMapping
	mapping.Where = cdc.Marker{Column: "name", Values: []string{"somebody"}}
	cfg := Config{Mapping: mapping, Status: &Status{}, Log: slog.New(slog.DiscardHandler), Queue: cdc.Queue{
		Began: func() {}, Add: addQueued, Committed: func(context.Context) {}, Discarded: func() {},
	}}
	p.reader = newReader(cfg, &catalog.Attachment{RespondentOID: respondentOID, AssessmentOID: assessmentOID, StampKey: *testKey}, from, partitionedIf(p.partitioned)...)
	p.writer = newWriter(cfg, p.store, p.reader, turn)
	cfg.Status.recordPosition(from)
	switch {
	case p.broken:
		p.writer.isolateLeft = isolateItems
	case rapid.IntRange(0, 3).Draw(p.T, "careful") == 3:
		p.writer.isolateLeft = rapid.IntRange(1, 6).Draw(p.T, "careful items")
	}
	p.over, p.broken, p.begun = false, false, map[pglogrepl.LSN]uint64{}
	// The server may have received fewer acknowledgements than were sent, and so may start further back.
	heard := pglogrepl.LSN(rapid.Uint64Range(uint64(p.acked), uint64(from.LSN)).Draw(p.T, "heard"))
	p.ahead, p.read = p.from(heard), heard-0x20
	if !endless && rapid.IntRange(0, 3).Draw(p.T, "until") == 3 {
		// It is where a snapshot was taken after all that is consumed had been committed.
		p.reader.endLSN = pglogrepl.LSN(rapid.Uint64Range(uint64(max(from.LSN, from.Partial+1)), uint64(p.end())).Draw(p.T, "until"))
		for _, tx := range p.txs {
			if tx.commit < p.reader.endLSN && p.reader.endLSN < tx.end {
				p.reader.endLSN = tx.end // it lies within no record
			}
		}
	}
	if p.former != nil {
		// The previous daemon is still alive and writes its batch.
		_ = p.commit(p.former)
		p.former = nil
	}
}

// addQueued inserts events into queuedTable.
func addQueued(batch *pgx.Batch, events []cdc.Event) {
	for _, e := range events {
		batch.Queue(`insert into public.queued (lsn, ordinal, event, response_id, assessment_id, external_id)
			values ($1::text::pg_lsn, $2, $3, $4, $5::text, coalesce((select a.external_id from walhook.assessment a where a.assessment_id = $5::text), ''))`,
			e.LSN.String(), e.Ordinal, e.Type.String(), e.ResponseID, e.AssessmentID)
	}
}

// step performs a random action.
func (p *play) step() {
	switch rapid.SampledFrom([]string{"send", "send", "report", "gather", "gather", "proceed", "proceed", "commit", "later"}).Draw(p.T, "step") {
	case "send":
		p.send(rapid.IntRange(1, 8).Draw(p.T, "messages"))
	case "report":
		p.report(pglogrepl.LSN(rapid.Uint64Range(uint64(p.read), uint64(p.limit())).Draw(p.T, "read")), rapid.Bool().Draw(p.T, "reply"))
	case "gather":
		p.gather()
	case "proceed":
		p.proceed()
	case "commit":
		if p.writer.commitDone != nil {
			p.goes(p.writer.finishCommit(<-p.writer.commitDone))
		}
	case "later": // progress is worth writing
		if p.writer.commitDone == nil {
			p.writer.lastWrite, p.writer.lastCheck = time.Time{}, time.Time{}
		}
	}
	if p.writer.commitDone != nil {
		return // what is stored belongs to the commit until it has ended
	}
	if durable := pglogrepl.LSN(p.reader.durable.Load()); durable > p.writer.stored.LSN || durable < p.acked {
		p.Fatalf("%s is acknowledged after %s, and the store has %s", durable, p.acked, p.writer.stored)
	}
	p.acked = pglogrepl.LSN(p.reader.durable.Load())
	if begun, known := p.begun[p.acked]; known && p.storeWAL("flush") <= begun {
		p.Fatalf("%s is acknowledged, and its commit is not on the store's disk", p.acked)
	}
}

// limit returns how far the server may have read before it sends the next message.
func (p *play) limit() pglogrepl.LSN {
	if len(p.ahead) > 0 {
		return max(p.read, p.ahead[0].read)
	}
	return p.end()
}

func (p *play) send(n int) {
	for ; n > 0 && len(p.ahead) > 0 && !p.reader.endReached; n-- {
		header := wire("w").uint64(uint64(p.ahead[0].read)).uint64(uint64(p.ahead[0].read)).uint64(0)
		_, _, err := p.reader.handle(append(header, p.ahead[0].message...))
		p.must(err)
		p.read, p.ahead = max(p.read, p.ahead[0].read), p.ahead[1:]
	}
}

// report makes the server report how far it has read.
func (p *play) report(at pglogrepl.LSN, reply bool) {
	if p.reader.endReached {
		return
	}
	p.read = at
	asks := byte(0)
	if reply {
		asks = 1
	}
	_, answer, err := p.reader.handle(wire("k").uint64(uint64(at)).uint64(0).uint8(asks))
	p.must(err)
	if answer != reply {
		p.Fatalf("reply requested: %t, and wanted: %t", reply, answer)
	}
}

func (p *play) gather() {
	if items := p.reader.inbox.take(nil); len(items) > 0 {
		p.goes(p.writer.addItems(context.Background(), items))
	}
}

func (p *play) proceed() {
	w, inserted := p.writer, p.storeWAL("insert")
	commits := w.commitDone
	var worth bool
	var stored cdc.Position
	if commits == nil { // else they belong to the commit
		worth, stored = w.lastWrite.IsZero(), w.stored
	}
	err := w.proceed(context.Background())
	if w.commitDone != nil && commits == nil && w.consumed.LSN > stored.LSN {
		p.begun[w.consumed.LSN] = inserted
	}
	if err == nil && worth && w.commitDone == nil && (w.stored != w.consumed || w.stored != stored && w.lastWrite.IsZero()) {
		p.Fatalf("the store has %s, and %s was worth writing", w.stored, w.consumed)
	}
	if p.over = errors.Is(err, errEndReached); !p.over {
		p.goes(err)
	}
}

// storeWAL returns the insert or flush position of the store's WAL.
func (p *play) storeWAL(what string) (at uint64) {
	p.Helper()
	p.must(p.side.QueryRow(context.Background(), "select pg_current_wal_"+what+"_lsn() - '0/0'").Scan(&at))
	return at
}

// goes handles an error of the stream. A rejected batch ends the session, and the next session isolates the row.
func (p *play) goes(err error) {
	p.Helper()
	if p.broken = p.broken || cdc.IsRejected(err); !p.broken {
		p.must(err)
	}
}

// commit makes a writer commit its batch.
func (p *play) commit(w *writer) error {
	if err := w.awaitCommit(); err != nil {
		return err
	}
	w.lastWrite = time.Time{}
	if err := w.proceed(context.Background()); err != nil {
		return err
	}
	return w.awaitCommit()
}

// crash kills the daemon, possibly during a commit whose result it never learns, or only appears to.
func (p *play) crash() {
	if p.writer.commitDone != nil {
		p.goes(<-p.writer.commitDone)
	} else if rapid.Bool().Draw(p.T, "lives") {
		p.former = p.writer
	}
	p.verify()
}

// toEnd lets the stream run to its end point.
func (p *play) toEnd() {
	if p.writer.commitDone == nil && !p.over {
		p.proceed() // what was gathered
	}
	if p.over || p.broken {
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- p.writer.run(context.Background()) }()
	for !p.reader.endReached {
		p.send(1)
		if len(p.ahead) == 0 {
			p.report(p.end(), false)
		}
	}
	err := <-ended
	if p.over = errors.Is(err, errEndReached); !p.over {
		p.goes(err)
	}
}

// stop shuts the daemon down cleanly, after the commit in flight.
func (p *play) stop() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.writer.run(ctx) }()
	p.send(rapid.IntRange(0, 8).Draw(p.T, "messages"))
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) && !errors.Is(err, errEndReached) {
		if p.goes(err); !p.broken {
			p.Fatal("the stream has ended by itself")
		}
		p.verify()
		return
	}
	p.settle()
	p.acked = pglogrepl.LSN(p.reader.durable.Load())
	if position := p.verify(); position != p.writer.consumed || p.acked != position.LSN {
		p.Fatalf("after a clean stop at %s the store has %s, and %s is acknowledged", p.writer.consumed, position, p.acked)
	}
}

// atEnd verifies that exactly the transactions before the end point were consumed.
func (p *play) atEnd() {
	until := p.reader.endLSN
	for _, tx := range p.txs {
		if tx.commit < until {
			until = max(until, tx.end)
		}
	}
	p.acked = pglogrepl.LSN(p.reader.durable.Load())
	if position := p.verify(); position != (cdc.Position{LSN: until}) || p.acked != until {
		p.Fatalf("%s is stored and %s acknowledged at the end point %s", position, p.acked, p.reader.endLSN)
	}
}

// verify compares the queue with the stored position.
func (p *play) verify() cdc.Position {
	p.Helper()
	position, _, err := catalog.ReadPosition(context.Background(), p.store)
	p.must(err)
	if position.LSN < p.acked {
		p.Fatalf("the store has %s, and %s is acknowledged", position, p.acked)
	}
	want, states := p.expected(position)
	rows, err := p.store.Query(context.Background(), "select lsn::text, ordinal, event, response_id, assessment_id, external_id from public.queued order by n")
	p.must(err)
	got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[queuedEvent])
	p.must(err)
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		p.Fatalf("at %s what is queued differs (-want +got):\n%s", position, diff)
	}
	rows, err = p.store.Query(context.Background(), "select response_id, assessment_id, organization_id, stamp, flags, first_id, coalesce(created_lsn::text, ''), fate from walhook.response_state")
	p.must(err)
	recorded := map[string]recordedState{}
	for rows.Next() {
		var id, assessment, created string
		var organization, stamp, first *string
		var flags, fate int16
		p.must(rows.Scan(&id, &assessment, &organization, &stamp, &flags, &first, &created, &fate))
		recorded[id] = recordedState{State: *newState(&assessment, organization, stamp, flags, first), Created: created, Fate: fate}
		if recorded[id].Excluded {
			recorded[id] = recordedState{State: recorded[id].State}
		}
	}
	p.must(rows.Err())
	if diff := gocmp.Diff(states, recorded); diff != "" {
		p.Fatalf("at %s the states differ (-want +got):\n%s", position, diff)
	}
	return position
}

// finish lets a daemon consume the rest, or two if the store rejects something.
func (p *play) finish() {
	p.takeAll()
	if p.broken {
		p.takeAll()
	}
	p.acked = pglogrepl.LSN(p.reader.durable.Load())
	if position := p.verify(); position != (cdc.Position{LSN: p.end()}) || p.acked != p.end() {
		p.Fatalf("the store has %s, and %s is acknowledged; the WAL ends at %s", position, p.acked, p.end())
	}
}

func (p *play) takeAll() {
	p.begin(true)
	p.send(len(p.ahead))
	p.report(p.end(), true)
	if p.gather(); !p.broken {
		p.goes(p.commit(p.writer))
	}
	if !p.broken {
		p.settle()
	}
}

// settle is the last step of a clean stop.
func (p *play) settle() {
	w, inserted := p.writer, p.storeWAL("insert")
	writes := w.consumed != w.stored || !w.ledger.isEmpty()
	p.must(w.flush(context.Background()))
	if writes && p.storeWAL("flush") <= inserted {
		p.Fatal("the last commit is not on the store's disk")
	}
	turn := w.fence
	p.must(w.flush(context.Background()))
	if w.fence != turn || w.stored != w.consumed || writes && (!w.idle || w.replyRequested) || w.status.position != w.stored {
		p.Fatalf("settled at %s, the store has %s in turn %d, not %d; idle: %t, in a hurry: %t; the status has %s",
			w.consumed, w.stored, w.fence, turn, w.idle, w.replyRequested, w.status.position)
	}
}
