package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

const (
	// tick is how often the reader looks up from a silent connection: the longest that an acknowledgement is late.
	tick = 200 * time.Millisecond

	// statusInterval is how often the server hears from us without being asked, far below walSenderTimeout.
	statusInterval = 5 * time.Second
)

// reader owns the replication connection: it receives, decodes, hands over, and answers keepalives. Nothing else touches the
// connection, and a slow store never keeps it from answering.
type reader struct {
	conn       *pgconn.PgConn
	decoder    *Decoder
	inbox      *inbox
	from       cdc.Position  // where the writer stands as the stream begins
	endLSN     pglogrepl.LSN // nothing is taken that commits from here on; 0: no such point
	endReached bool          // until

	durable atomic.Uint64 // LSN up to which the store has committed: what may be acknowledged
	status  *Status
	silence time.Duration // how long the server may say nothing

	// The transaction in progress.
	tx       cdc.Tx
	inTx     bool
	skipAll  bool
	skip     int64
	ordinal  int64
	silenced bool

	// partitioned tells that an update which moves a row to another partition arrives as a delete and an insert of the
	// same key, one right after the other. moving is such a delete, held back until the next message tells.
	partitioned bool
	heldDelete  *item

	acknowledged pglogrepl.LSN
	lastStatus   time.Time
	lastReceived time.Time
	received     bool // something arrived since lastReceived was set
	replyPending bool // a reply was requested and nothing has been heard since
}

// newReader returns the reader of a stream that continues at a position.
func newReader(cfg Config, a *catalog.Attachment, from cdc.Position, partitioned bool) *reader {
	r := &reader{
		decoder: NewDecoder(cfg.Mapping, a.RespondentOID, a.AssessmentOID), inbox: newInbox(), from: from, partitioned: partitioned, status: cfg.Status,
	}
	r.durable.Store(uint64(from.LSN))
	return r
}

// run reads until the context ends or the stream breaks. It sends a last acknowledgement when it is told to stop.
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

// handle takes one message of the streaming replication protocol (PostgreSQL manual, section 55.4). It reports whether the inbox is
// full now, and whether the server requests a reply.
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

// enqueue turns a decoded message into items, leaving out what was consumed before. It reports whether the inbox was full after the last of them.
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
			// PostgreSQL 14 tells of transactions that touched none of our tables too, our own writes to the store among
			// them: to write a position for these would never end.
			full = r.inbox.put(item{kind: itemIdle, end: m.EndLSN})
		default:
			full = r.inbox.put(item{kind: itemCommit, tx: r.tx, end: m.EndLSN})
		}
	case MessageSilence:
		full = r.releaseHeld()
		r.silenced = true
	case MessageChange:
		for _, change := range m.Changes {
			full = r.enqueueChange(item{kind: itemChange, change: change})
		}
	case MessageUnidentifiedDelete:
		full = r.enqueueChange(item{kind: itemUnidentifiedDelete})
	case MessageIgnored:
	}
	return full
}

func (r *reader) enqueueChange(it item) (full bool) {
	r.ordinal++
	it.tx, it.ordinal, it.silenced, it.keyType = r.tx, r.ordinal, r.silenced, r.decoder.keyType
	if r.skipAll || r.ordinal <= r.skip {
		return false
	}
	if held := r.heldDelete; held != nil && it.change.Kind == cdc.Insert &&
		it.change.Table == held.change.Table && it.change.New.ID == held.change.New.ID {
		r.heldDelete = nil
		it.change.Kind = cdc.Update
		return r.inbox.put(it)
	}
	full = r.releaseHeld()
	if r.partitioned && it.change.Kind == cdc.Delete && it.change.Table == cdc.Respondent {
		r.heldDelete = &it
		return full
	}
	return r.inbox.put(it)
}

// releaseHeld hands over a delete that turned out to be one.
func (r *reader) releaseHeld() (full bool) {
	if r.heldDelete == nil {
		return false
	}
	full = r.inbox.put(*r.heldDelete)
	r.heldDelete = nil
	return full
}

// checkEnd reports whether the stream has come to the point where it is to end, and tells the writer.
func (r *reader) checkEnd(at pglogrepl.LSN) bool {
	if r.endLSN == 0 || at < r.endLSN {
		return false
	}
	r.endReached = true
	r.inbox.put(item{kind: itemEndReached, end: r.endLSN})
	return true
}

// waitForStore reads nothing any more, and keeps the server informed until the writer has stored everything.
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

// waitForRoom waits until the writer has made room, and keeps the server informed meanwhile.
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

// keepAlive acknowledges what has become durable, and finds out whether a silent server is still there.
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

// sendStatus acknowledges what the store has committed. All three positions are that one: a flush position of 0 would make
// pglogrepl send the write position in its place, and nothing but the store's commit may release WAL.
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
