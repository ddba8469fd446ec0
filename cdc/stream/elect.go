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

// elect waits until this daemon is the one that reads the slot, and remembers whether another was before, until that has been told.
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
	// ReasonOtherDaemon is a Status's reason while it stands by for another daemon.
	ReasonOtherDaemon = "another daemon reads the slot"

	reasonStaleSession = "the store has not ended the last session of this daemon yet"
)

// readerHolder tells who has the lock of the slot's reader: another daemon, a comparison, or a session of this daemon's own that broke. It is
// "" where nobody has it any more.
func (s *Stream) readerHolder(ctx context.Context, store *pgx.Conn) (string, error) {
	readers, err := lockSessions(ctx, store, catalog.ReaderLock, true)
	if err != nil {
		return "", err
	}
	comparing, err := lockSessions(ctx, store, catalog.AttachLock, true)
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

// noteTakeover lets people see since when which daemon reads the slot.
func (s *Stream) noteTakeover(ctx context.Context, store *pgx.Conn) error {
	detail := fmt.Sprintf("daemon %s reads the slot, since the one that read it before has ended", DaemonName())
	if _, err := store.Exec(ctx, sql.NoteIncident.SQL, sql.NoteIncident.Bind(sql.Args{"kind": incidentTakeover, "detail": detail})...); err != nil {
		return fmt.Errorf("note the takeover: %w", err)
	}
	return nil
}

// DaemonName is how this process is called where people see several: host and process id.
func DaemonName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}

// lockSessions tells which server processes hold an advisory lock of the store, or, with granted false, wait for it.
func lockSessions(ctx context.Context, store *pgx.Conn, key int64, granted bool) (pids []uint32, err error) {
	err = store.QueryRow(ctx, sql.LockSessions.SQL, sql.LockSessions.Bind(sql.Args{"key": key, "granted": granted})...).Scan(&pids)
	if err != nil {
		return nil, fmt.Errorf("look whose the locks of the store are: %w", err)
	}
	return pids, nil
}
