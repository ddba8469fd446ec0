package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

const (
	// tick is how often the reader wakes up on an idle connection, and so the longest delay of an acknowledgement.
	tick = 200 * time.Millisecond

	// statusInterval is how often the reader sends a status update without a request, far below walSenderTimeout.
	statusInterval = 5 * time.Second
)

// reader owns the replication connection: it receives, decodes, passes items on, and answers keepalives. Nothing else
// uses the connection, so a slow store never keeps it from answering.
type reader struct {
	conn       *pgconn.PgConn
	decoder    *Decoder
	inbox      *inbox
	from       cdc.Position  // where the writer is when the stream begins
	endLSN     pglogrepl.LSN // transactions that commit from here on are not passed on; 0: no end
	endReached bool          // the stream has reached endLSN

	durable atomic.Uint64 // LSN up to which everything is on the store's disk: what may be acknowledged
	status  *Status
	silence time.Duration // how long the server may be silent

	// The transaction in progress.
	tx       cdc.Tx
	inTx     bool
	skipAll  bool
	skip     int64
	ordinal  int64
	silenced bool

	// In a partitioned table an update that moves a row to another partition arrives as a delete and an insert of the
	// same key, one right after the other. heldDelete is a delete that may be the first half of one.
	partitioned []cdc.Table
	heldDelete  *item

	acknowledged pglogrepl.LSN
	lastStatus   time.Time
	lastReceived time.Time
	received     bool // something arrived since lastReceived was set
	replyPending bool // a reply was requested and nothing has arrived since
}

// newReader returns the reader of a stream that continues at a position.
func newReader(cfg Config, a *catalog.Attachment, from cdc.Position, partitioned ...cdc.Table) *reader {
	r := &reader{
		decoder: NewDecoder(cfg.Mapping, &a.StampKey, a.RespondentOID, a.AssessmentOID),
		inbox:   newInbox(), from: from, partitioned: partitioned, status: cfg.Status,
	}
	r.durable.Store(uint64(from.LSN))
	return r
}

// partitionedTables returns which of the mapped tables, in the order of Stream.inspect, are partitioned.
func partitionedTables(tables []*catalog.Table) (partitioned []cdc.Table) {
	for i, table := range tables {
		if table.Partitioned() {
			partitioned = append(partitioned, []cdc.Table{cdc.Respondent, cdc.Assessment}[i])
		}
	}
	return partitioned
}

// run reads until the context ends or the stream breaks. When the context ends, it sends a last acknowledgement.
func (r *reader) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = r.conn.Conn().SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	r.lastReceived = time.Now()
	r.acknowledged = r.from.LSN
	for {
		if ctx.Err() != nil {
			_ = r.sendStatus(false)
			return ctx.Err()
		}
		if err := r.keepAlive(); err != nil {
			return err
		}
		// One deadline serves many messages: setting it for each would cost more than decoding one.
		if err := r.conn.Conn().SetReadDeadline(time.Now().Add(tick)); err != nil {
			return fmt.Errorf("read the replication stream: %w", err)
		}
		if err := r.drain(ctx); err != nil {
			return err
		}
	}
}

// drain reads messages until the deadline passes.
func (r *reader) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		message, err := r.conn.ReceiveMessage(context.Background())
		if err != nil {
			var netErr net.Error
			if errors.As(err, &netErr) && netErr.Timeout() {
				return nil
			}
			return fmt.Errorf("read the replication stream: %w", err)
		}
		switch m := message.(type) {
		case *pgproto3.CopyData:
			full, reply, err := r.handle(m.Data)
			if err == nil && reply {
				err = r.sendStatus(false)
			}
			if err != nil {
				return err
			}
			switch {
			case r.endReached:
				return r.waitForStore(ctx)
			case full:
				return r.waitForRoom(ctx)
			}
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("read the replication stream: %w", pgconn.ErrorResponseToPgError(m))
		case *pgproto3.CopyDone:
			return errors.New("read the replication stream: the server ended it")
		}
	}
	return nil
}

// handle processes one message of the streaming replication protocol (PostgreSQL manual, section 55.4). It reports
// whether the inbox is now full, and whether the server requests a reply.
func (r *reader) handle(data []byte) (full, reply bool, err error) {
	r.replyPending, r.received = false, true
	if len(data) == 0 {
		return false, false, errors.New("read the replication stream: empty message")
	}
	switch data[0] {
	case pglogrepl.XLogDataByteID:
		if len(data) < 25 {
			return false, false, fmt.Errorf("read the replication stream: WAL message of %d bytes", len(data))
		}
		message, err := r.decoder.Decode(data[25:])
		if err != nil {
			return false, false, err
		}
		return r.enqueue(message), false, nil
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		keepalive, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return false, false, fmt.Errorf("read the replication stream: %w", err)
		}
		r.status.recordWALEnd(keepalive.ServerWALEnd)
		if !r.inTx && !r.checkEnd(keepalive.ServerWALEnd) {
			kind := itemIdle
			if keepalive.ReplyRequested {
				kind = itemReplyRequested
			}
			full = r.inbox.put(item{kind: kind, end: keepalive.ServerWALEnd})
		}
		return full, keepalive.ReplyRequested, nil
	default:
		return false, false, fmt.Errorf("read the replication stream: unknown message %q", data[0])
	}
}

// enqueue converts a decoded message to items and skips changes that were consumed before. It reports whether the
// inbox was full after the last item.
func (r *reader) enqueue(m Message) (full bool) {
	switch m.Kind {
	case MessageBegin:
		if r.checkEnd(m.Tx.CommitLSN) {
			return false
		}
		r.inTx, r.tx, r.ordinal, r.silenced = true, m.Tx, 0, false
		r.skip, r.skipAll = r.from.Skip(m.Tx.CommitLSN)
	case MessageCommit:
		r.inTx = false
		full = r.releaseHeld()
		switch {
		case r.skipAll:
		case r.ordinal == 0:
			// PostgreSQL 14 also sends transactions without changes of mapped tables, including our own writes to the
			// store. Writing a position for each of them would never end.
			full = r.inbox.put(item{kind: itemIdle, end: m.EndLSN})
		default:
			full = r.inbox.put(item{kind: itemCommit, tx: r.tx, end: m.EndLSN})
		}
	case MessageSilence:
		full = r.releaseHeld()
		r.silenced = true
	case MessageChange:
		for i := range m.Changes {
			full = r.enqueueChange(itemChange, &m.Changes[i])
		}
	case MessageUnidentifiedDelete:
		full = r.enqueueChange(itemUnidentifiedDelete, &cdc.Change{})
	case MessageIgnored:
	}
	return full
}

// enqueueChange passes on a change of the given kind of item.
func (r *reader) enqueueChange(kind itemKind, change *cdc.Change) (full bool) {
	r.ordinal++
	if r.skipAll || r.ordinal <= r.skip {
		return false
	}
	it := item{
		kind: kind, silenced: r.silenced, tx: r.tx, ordinal: r.ordinal, change: *change, keyType: r.decoder.keyType,
	}
	if held := r.heldDelete; held != nil && change.Kind == cdc.Insert &&
		change.Table == held.change.Table && change.New.ID == held.change.New.ID {
		r.heldDelete = nil
		it.change.Kind = cdc.Update
		return r.inbox.put(it)
	}
	full = r.releaseHeld()
	if change.Kind == cdc.Delete && slices.Contains(r.partitioned, change.Table) {
		r.heldDelete = new(it) // not &it, which would move every item to the heap
		return full
	}
	return r.inbox.put(it)
}

// releaseHeld passes on a held delete that was not half of a move.
func (r *reader) releaseHeld() (full bool) {
	if r.heldDelete == nil {
		return false
	}
	full = r.inbox.put(*r.heldDelete)
	r.heldDelete = nil
	return full
}

// checkEnd reports whether the stream has reached its end point, and notifies the writer.
func (r *reader) checkEnd(at pglogrepl.LSN) bool {
	if r.endLSN == 0 || at < r.endLSN {
		return false
	}
	r.endReached = true
	r.inbox.put(item{kind: itemEndReached, end: r.endLSN})
	return true
}

// waitForStore reads nothing more, and sends status updates until the writer has stored everything.
func (r *reader) waitForStore(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(tick):
		}
		r.received = true // it is we who do not listen
		if err := r.keepAlive(); err != nil {
			return err
		}
	}
	return nil
}

// waitForRoom waits until the writer has made room, and sends status updates meanwhile.
func (r *reader) waitForRoom(ctx context.Context) error {
	for {
		room, changed := r.inbox.hasRoom()
		if room {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		case <-time.After(tick):
		}
		r.received = true // it is we who do not listen
		if err := r.keepAlive(); err != nil {
			return err
		}
	}
}

// keepAlive acknowledges what has become durable, and detects a dead server.
func (r *reader) keepAlive() error {
	now := time.Now()
	if r.received {
		r.lastReceived, r.received = now, false
	}
	interval := min(statusInterval, r.silence/4)
	due := now.Sub(r.lastStatus) >= interval
	if pglogrepl.LSN(r.durable.Load()) > r.acknowledged || due {
		ask := now.Sub(r.lastReceived) >= interval
		if err := r.sendStatus(ask); err != nil {
			return err
		}
	}
	if r.replyPending && now.Sub(r.lastReceived) > r.silence {
		return &silenceError{r.silence}
	}
	return nil
}

// sendStatus acknowledges what is durable. All three positions are the same: pglogrepl would replace a flush position
// of 0 by the write position, and only durable changes may release WAL.
func (r *reader) sendStatus(ask bool) error {
	durable := pglogrepl.LSN(r.durable.Load())
	if durable == 0 {
		return nil
	}
	if err := r.conn.Conn().SetWriteDeadline(time.Now().Add(silenceLimit)); err != nil {
		return fmt.Errorf("acknowledge %s: %w", durable, err)
	}
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), r.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: durable, WALFlushPosition: durable, WALApplyPosition: durable, ReplyRequested: ask,
	})
	if err != nil {
		return fmt.Errorf("acknowledge %s: %w", durable, err)
	}
	r.acknowledged = durable
	r.lastStatus = time.Now()
	r.replyPending = r.replyPending || ask
	return nil
}
