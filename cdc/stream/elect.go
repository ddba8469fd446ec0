package stream

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
	"walhook/sql"
)

// elect waits until this daemon is the reader of the slot. It remembers whether another daemon was the reader before,
// until that has been recorded.
func (s *Stream) elect(ctx context.Context, store *pgx.Conn) error {
	other, last := false, ""
	for {
		var won bool
		if err := store.QueryRow(ctx, "select pg_try_advisory_lock($1)", catalog.ReaderLock).Scan(&won); err != nil {
			return fmt.Errorf("become the reader of slot %q: %w", s.cfg.Slot, err)
		}
		if won {
			s.takeoverPending = s.takeoverPending || other && !s.yielded
			s.yielded = false
			s.lastReaderPID = store.PgConn().PID()
			return nil
		}
		reason, err := s.readerHolder(ctx, store)
		if err != nil {
			return err
		}
		if reason == "" {
			continue
		}
		if a, err := catalog.ReadAttachment(ctx, store); err != nil {
			return err
		} else if a.Complete() { // otherwise an attach is in progress
			if err := a.CheckTarget(s.target(a)); err != nil {
				return err
			}
		}
		other = other || reason == ReasonOtherDaemon
		phase := PhaseStandby
		if reason == reasonStaleSession {
			phase = PhaseRetrying
		}
		if reason != last {
			s.cfg.Log.Info("standing by", "detail", reason)
			last = reason
		}
		s.cfg.Status.setPhase(phase, reason)
		select {
		case <-time.After(catalog.LockRetryInterval):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const (
	// ReasonOtherDaemon is a Status's reason while another daemon reads the slot.
	ReasonOtherDaemon = "another daemon reads the slot"

	reasonStaleSession = "the store has not ended the last session of this daemon yet"
)

// readerHolder describes the session that holds the reader lock: another daemon, a reconciliation, or a stale session
// of this daemon. It returns "" if nobody holds it any more.
func (s *Stream) readerHolder(ctx context.Context, store *pgx.Conn) (string, error) {
	readers, err := catalog.LockSessions(ctx, store, catalog.ReaderLock, true)
	if err != nil {
		return "", err
	}
	comparing, err := catalog.LockSessions(ctx, store, catalog.AttachLock, true)
	if err != nil {
		return "", err
	}
	if len(readers) == 0 {
		return "", nil
	}
	switch reader := readers[0]; {
	case slices.Contains(comparing, reader):
		return "the table is being compared with the recorded state", nil
	case reader == s.lastReaderPID:
		return reasonStaleSession, nil
	}
	return ReasonOtherDaemon, nil
}

// noteTakeover records that this daemon now reads the slot.
func (s *Stream) noteTakeover(ctx context.Context, store *pgx.Conn) error {
	detail := fmt.Sprintf("daemon %s reads the slot, since the one that read it before has ended", DaemonName())
	args := sql.NoteIncident.Bind(sql.Args{"kind": incidentTakeover, "detail": detail})
	if _, err := store.Exec(ctx, sql.NoteIncident.SQL, args...); err != nil {
		return fmt.Errorf("note the takeover: %w", err)
	}
	return nil
}

// DaemonName identifies this process among several: host and process id.
func DaemonName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
