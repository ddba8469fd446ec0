package catalog

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// InspectSynchronous reports whether commits of the application wait for the daemon, which acknowledges like a standby.
func InspectSynchronous(ctx context.Context, source *pgx.Conn) (Finding, error) {
	var names, ours string
	var standbys int // besides logical walsenders
	err := source.QueryRow(ctx, `select current_setting('synchronous_standby_names'), current_setting('application_name'),
		(select count(*) from pg_catalog.pg_stat_replication r
		  where not exists (select from pg_catalog.pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical'))`).
		Scan(&names, &ours, &standbys)
	if err != nil {
		return Finding{}, fmt.Errorf("look up synchronous_standby_names: %w", err)
	}
	needed, listed := parseStandbyNames(names)
	finding := Finding{
		Check: "synchronous_standby_names", Level: Fail,
		Remedy: "ALTER SYSTEM SET synchronous_standby_names = '...'; SELECT pg_reload_conf(); " +
			"with the names of the standbys instead, or '' if there are none",
	}
	switch {
	case slices.ContainsFunc(listed, func(name string) bool { return strings.EqualFold(name, ours) }):
		finding.Found = fmt.Sprintf("synchronous_standby_names (%s) names %s: commits of the application wait for the daemon, "+
			"and hang while none runs", names, ours)
		finding.Remedy += "; or give walhook another name in its URL: ?application_name=..."
	case !slices.Contains(listed, "*"):
		return Finding{Check: finding.Check, Level: OK, Found: "no commit of the application waits for the daemon"}, nil
	case standbys < needed:
		finding.Found = fmt.Sprintf("synchronous_standby_names is %s, and %d of %d standbys are connected: "+
			"commits of the application wait for the daemon, and hang while none runs", names, standbys, needed)
	default:
		finding.Level = Warn
		finding.Found = fmt.Sprintf(
			"synchronous_standby_names is %s, which counts the daemon as a standby, so commits may wait for it", names)
	}
	return finding, nil
}

var standbyCount = regexp.MustCompile(`(?i)^\s*(?:(?:first|any)\s+)?(\d+)\s*\((.*)\)\s*$`)

// parseStandbyNames parses synchronous_standby_names: FIRST n (a, b), ANY n (a, b), n (a, b) or a, b.
func parseStandbyNames(setting string) (needed int, names []string) {
	needed = 1
	if m := standbyCount.FindStringSubmatch(setting); m != nil {
		needed, _ = strconv.Atoi(m[1])
		setting = m[2]
	}
	for name := range strings.SplitSeq(setting, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, strings.ReplaceAll(strings.Trim(name, `"`), `""`, `"`))
		}
	}
	return needed, names
}
