package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/session"
)

// receiveBuffer is the read buffer of the replication connection. A row change is some hundred bytes, so the usual 8
// KiB would need a system call for every few dozen.
const receiveBuffer = 64 << 10

// ConnectReplication opens a logical replication connection to the application's database.
func ConnectReplication(ctx context.Context, url string) (*pgconn.PgConn, error) {
	return session.ConnectReplication(ctx, url, func(config *pgconn.Config) {
		if config.RuntimeParams["wal_sender_timeout"] == "" {
			config.RuntimeParams["wal_sender_timeout"] = strconv.FormatInt(walSenderTimeout.Milliseconds(), 10)
		}
		config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
			return pgproto3.NewFrontend(bufio.NewReaderSize(&coalescingReader{from: r}, receiveBuffer), w)
		}
	})
}

// coalescingReader pauses before it reads from a busy connection that delivers little at a time.
type coalescingReader struct {
	from io.Reader
	wakeups
}

func (g *coalescingReader) Read(p []byte) (int, error) {
	g.pause()
	n, err := g.from.Read(p)
	g.record(err == nil && n < len(p)/2)
	return n, err
}

// start starts replication. This daemon holds the reader lock, so a slot that is still active belongs to a stale
// walsender of a dead connection. start waits for it and then terminates it if it is ours, which may take a moment.
func (s *Stream) start(
	ctx context.Context, replication *pgconn.PgConn, text *catalog.SourceText, position cdc.Position,
) error {
	publication, err := text.Encode(catalog.QuotePublication(s.cfg.Publication))
	if err != nil {
		return err
	}
	began, reported := time.Now(), false
	for {
		err := pglogrepl.StartReplication(ctx, replication, s.cfg.Slot, position.LSN, pglogrepl.StartReplicationOptions{
			Mode: pglogrepl.LogicalReplication,
			PluginArgs: []string{
				"proto_version '1'",
				"publication_names '" + publication + "'",
				"messages 'true'",
			},
		})
		switch cdc.SQLState(err) {
		case "":
			if err != nil {
				return fmt.Errorf("start replication from slot %q: %w", s.cfg.Slot, err)
			}
			return nil
		case pgerrcode.ObjectInUse:
			reason := fmt.Sprintf("slot %q is in use by another connection", s.cfg.Slot)
			s.cfg.Status.setPhase(PhaseRetrying, reason)
			switch waited := time.Since(began); {
			case waited > staleWalsenderGrace+staleSessionGrace:
				return errors.New(reason)
			case waited > staleWalsenderGrace:
				// A walsender that blocks on writing to a dead host only ends after a second signal.
				ours, err := s.terminateStaleWalsender(ctx)
				if err != nil {
					return err
				}
				if ours && !reported {
					reported = true
					s.cfg.Log.Warn("terminated a stale walsender", "slot", s.cfg.Slot)
				}
			}
		case pgerrcode.UndefinedObject:
			return s.cfg.Guard.missingSlotGap()
		case pgerrcode.ObjectNotInPrerequisiteState:
			return &cdc.GapError{
				Kind: cdc.SlotLost, Detail: fmt.Sprintf("slot %q was invalidated: %s", s.cfg.Slot, err),
			}
		default:
			return fmt.Errorf("start replication from slot %q: %w", s.cfg.Slot, err)
		}
		select {
		case <-time.After(catalog.LockRetryInterval / 2):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// terminateStaleWalsender terminates the walsender that holds the slot if it runs as our role and application name,
// and reports whether there was one.
func (s *Stream) terminateStaleWalsender(ctx context.Context) (ours bool, err error) {
	source, err := catalog.ConnectSource(ctx, s.cfg.SourceURL)
	if err != nil {
		return false, err
	}
	defer catalog.CloseQuietly(source)
	tag, err := source.Exec(ctx, catalog.TerminateStaleWalsenderSQL, s.cfg.Slot)
	if err != nil {
		return false, fmt.Errorf("end the walsender that a dead connection left on slot %q: %w", s.cfg.Slot, err)
	}
	return tag.RowsAffected() > 0, nil
}
