package setup

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"walhook/cdc/catalog"
	"walhook/cdc/stream"
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

// judge returns what keeps the daemon from working; "" if nothing does. A daemon that starts, or reopens its stream after
// a comparison, has not failed: if it cannot start, it reports another phase.
func (r daemonReport) judge() (catalog.Level, string) {
	phase, _, _ := strings.Cut(r.unready, ":")
	switch {
	case r.sinceHeartbeat > staleAfter:
		return catalog.Fail, fmt.Sprintf("%s has not reported for %.0f s: it is stuck, or its host is",
			r.name, r.sinceHeartbeat)
	case phase == string(stream.PhaseStarting):
		return catalog.Warn, fmt.Sprintf("%s is %s", r.name, r.unready)
	case r.unready != "":
		return catalog.Fail, fmt.Sprintf("%s is not ready: %s", r.name, r.unready)
	}
	return catalog.OK, ""
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
