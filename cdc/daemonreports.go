package cdc

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

const (
	// silentAfter is for how many seconds a daemon may not report before it counts as stuck: three heartbeats and a bit.
	silentAfter = 6

	// unreadyFor is how long a daemon must report that it is not ready before it is believed: one that has just become ready, as /readyz
	// already says, reports so with its next heartbeat.
	unreadyFor = 1500 * time.Millisecond
)

// daemonReport is what a daemon has written into its row with its last heartbeat.
type daemonReport struct {
	name    string
	reads   bool
	unready string // what its /readyz says with 503; "" while that says 200
	silent  float64
}

// trouble says in a sentence what keeps the daemon from working; "" where nothing does.
func (r daemonReport) trouble() string {
	switch {
	case r.silent > silentAfter:
		return fmt.Sprintf("%s has not reported for %.0f s: it is stuck, or its host is", r.name, r.silent)
	case r.unready != "":
		return fmt.Sprintf("%s is not ready: %s", r.name, r.unready)
	}
	return ""
}

// readDaemonReports returns the reports of the daemons that live. It reads them again while one reports that it is not ready, for a moment.
func readDaemonReports(ctx context.Context, store *pgx.Conn) ([]daemonReport, error) {
	for began := time.Now(); ; {
		rows, err := store.Query(ctx, sql.DaemonReports.SQL, sql.DaemonReports.Bind(sql.Args{"max": observedRows})...)
		if err != nil {
			return nil, fmt.Errorf("read the reports of the daemons: %w", err)
		}
		reports, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r daemonReport, err error) {
			return r, row.Scan(&r.name, &r.reads, &r.unready, &r.silent)
		})
		if err != nil {
			return nil, fmt.Errorf("read the reports of the daemons: %w", err)
		}
		unready := slices.ContainsFunc(reports, func(r daemonReport) bool { return r.unready != "" && r.silent <= silentAfter })
		if !unready || time.Since(began) > unreadyFor {
			return reports, nil
		}
		select {
		case <-time.After(unreadyFor / 10):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
