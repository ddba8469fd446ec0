package setup

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// silentAfter is for how many seconds a daemon may not report before it counts as stuck: three heartbeats and a bit.
const silentAfter = 6

// daemonReport is what a daemon has written into its row with its last heartbeat.
type daemonReport struct {
	name    string
	unready string  // what its /readyz says with 503; "" while that says 200
	silent  float64 // seconds since the last heartbeat
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

// readDaemonReports returns the reports of the daemons that live.
func readDaemonReports(ctx context.Context, store *pgx.Conn) ([]daemonReport, error) {
	rows, err := store.Query(ctx, sql.DaemonReports.SQL, observedRows)
	if err != nil {
		return nil, fmt.Errorf("read the reports of the daemons: %w", err)
	}
	reports, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r daemonReport, err error) {
		return r, row.Scan(&r.name, &r.unready, &r.silent)
	})
	if err != nil {
		return nil, fmt.Errorf("read the reports of the daemons: %w", err)
	}
	return reports, nil
}
