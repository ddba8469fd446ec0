package setup

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"walhook/sql"
)

// staleAfter is for how many seconds a daemon may be silent before it counts as stuck: slightly more than three
// heartbeats.
const staleAfter = 6

// daemonReport is what a daemon recorded with its last heartbeat.
type daemonReport struct {
	name           string
	unready        string  // the body of its /readyz while that responds 503; "" while it responds 200
	sinceHeartbeat float64 // seconds since the last heartbeat
}

// problem says what keeps the daemon from working; "" if nothing does.
func (r daemonReport) problem() string {
	switch {
	case r.sinceHeartbeat > staleAfter:
		return fmt.Sprintf("%s has not reported for %.0f s: it is stuck, or its host is", r.name, r.sinceHeartbeat)
	case r.unready != "":
		return fmt.Sprintf("%s is not ready: %s", r.name, r.unready)
	}
	return ""
}

// readDaemonReports returns the reports of the live daemons.
func readDaemonReports(ctx context.Context, store *pgx.Conn) ([]daemonReport, error) {
	rows, err := store.Query(ctx, sql.DaemonReports.SQL, maxListed)
	if err != nil {
		return nil, fmt.Errorf("read the reports of the daemons: %w", err)
	}
	reports, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r daemonReport, err error) {
		return r, row.Scan(&r.name, &r.unready, &r.sinceHeartbeat)
	})
	if err != nil {
		return nil, fmt.Errorf("read the reports of the daemons: %w", err)
	}
	return reports, nil
}
