package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// setting is a configuration parameter of PostgreSQL and its value in every session of walhook.
type setting struct{ name, value string }

// pinned are the settings that affect the meaning, the outcome or the duration of a statement. A server only gets
// those that it supports. Settings that require a superuser are left alone for other roles, and doctor reports them.
var pinned = []setting{
	// Names. Objects that others planted in a schema, or types and tables in a temporary one, are not found.
	{"search_path", "pg_catalog, pg_temp"},

	// Timeouts. Each of walhook's waits has a bound of its own.
	{"statement_timeout", "0"},
	{"lock_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"transaction_timeout", "0"},
	{"tcp_user_timeout", "0"},

	// Transactions.
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"session_replication_role", "origin"},
	// The daemon may itself be the only standby that synchronous_standby_names matches: whoever waits for it must not be
	// walhook. The stream's writer chooses for each commit.
	{"synchronous_commit", "local"},
	{"row_security", "off"}, // a policy is code of the table's owner: where one would apply, PostgreSQL raises an error
	{"restrict_nonsystem_relation_kind", ""},
	{"exit_on_error", "off"},

	// The text form of values. The stream and the snapshot must encode a finish stamp identically.
	{"client_encoding", "UTF8"},
	{"TimeZone", "UTC"},
	{"timezone_abbreviations", "Default"},
	{"DateStyle", "ISO, MDY"},
	{"IntervalStyle", "postgres"},
	{"extra_float_digits", "3"},
	{"bytea_output", "hex"},
	{"lc_monetary", "C"},
	{"lc_numeric", "C"},
	{"lc_time", "C"},
	{"xmlbinary", "base64"},
	{"xmloption", "content"},
	{"quote_all_identifiers", "off"},

	// The meaning of literals and expressions.
	{"standard_conforming_strings", "on"},
	{"backslash_quote", "safe_encoding"},
	{"array_nulls", "on"},
	{"transform_null_equals", "off"},

	// Where and how tables are created.
	{"default_tablespace", ""},
	{"default_table_access_method", "heap"},
	{"check_function_bodies", "on"},

	// Plans. The statements rely on index lookups, joined by nested loops.
	{"enable_seqscan", "on"},
	{"enable_indexscan", "on"},
	{"enable_indexonlyscan", "on"},
	{"enable_bitmapscan", "on"},
	{"enable_tidscan", "on"},
	{"enable_nestloop", "on"},
	{"enable_hashjoin", "on"},
	{"enable_mergejoin", "on"},
	{"enable_hashagg", "on"},
	{"enable_sort", "on"},
	{"enable_material", "on"},
	{"enable_memoize", "on"},
	{"enable_partition_pruning", "on"},
	{"plan_cache_mode", "auto"},
	{"constraint_exclusion", "partition"},
	{"jit", "off"},
	{"force_parallel_mode", "off"},
	{"debug_parallel_query", "off"},
	{"vacuum_cost_delay", "0"},

	// Messages and the server's log. walhook reads warnings, and parameter values must not be logged.
	{"client_min_messages", "notice"},
	{"log_parameter_max_length_on_error", "0"},
}

// pin applies the pinned settings in a connection's first statements. Until they are applied, names resolve as the
// role or the database configures, so every name and operator here is qualified.
func pin(ctx context.Context, conn *pgconn.PgConn, config *pgconn.Config) error {
	pinned, err := pinIf(ctx, conn, fmt.Sprint("pg_catalog.pg_backend_pid() operator(pg_catalog.=) ", conn.PID()))
	if err != nil || pinned {
		return err
	}
	// A pooler answered with another process id. If it pools transactions, a setting of this session would leak into
	// others.
	if err := rejectTransactionPool(ctx, conn, config); err != nil {
		return err
	}
	_, err = pinIf(ctx, conn, "true")
	return err
}

// pinIf applies the pinned settings if the condition holds, and reports whether it did.
func pinIf(ctx context.Context, conn *pgconn.PgConn, condition string) (done bool, err error) {
	values := make([]string, len(pinned))
	for i, s := range pinned {
		values[i] = "(" + QuoteLiteral(s.name) + ", " + QuoteLiteral(s.value) + ")"
	}
	// Without a timeout and without JIT. A standby cannot read in a transaction that is serializable by default.
	results, err := conn.Exec(ctx, `set local statement_timeout = 0; set local jit = off; set transaction_isolation = 'read committed';
		select pg_catalog.count(pg_catalog.set_config(s.name, p.value, false))
		  from (values `+strings.Join(values, ", ")+`) as p (name, value)
		  join pg_catalog.pg_settings as s on pg_catalog.lower(s.name) operator(pg_catalog.=) pg_catalog.lower(p.name)
		 where `+condition+`
		   and (s.context operator(pg_catalog.=) 'user'
		     or s.setting operator(pg_catalog.<>) p.value and pg_catalog.current_setting('is_superuser') operator(pg_catalog.=) 'on')`).
		ReadAll()
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "0A000" { // feature_not_supported: there is no such conversion
		return false, fmt.Errorf(
			"the database is in %s, which PostgreSQL cannot convert to UTF8; walhook needs one in another encoding",
			conn.ParameterStatus("server_encoding"),
		)
	}
	if err != nil {
		return false, fmt.Errorf("set up the session: %w", err)
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 {
		return false, errors.New("set up the session: the server did not answer with one row")
	}
	return string(last.Rows[0][0]) != "0", nil
}

// Unpinned returns the pinned settings that have another value in this session, as "name = value". The role may not
// set them.
func Unpinned(ctx context.Context, conn *pgx.Conn) ([]string, error) {
	names, values := make([]string, len(pinned)), make([]string, len(pinned))
	for i, s := range pinned {
		names[i], values[i] = strings.ToLower(s.name), s.value
	}
	rows, err := conn.Query(ctx, `select s.name || ' = ' || s.setting
		from pg_catalog.pg_settings s join unnest($1::text[], $2::text[]) as p (name, value) on lower(s.name) = p.name
		where s.setting <> p.value order by 1`, names, values)
	if err != nil {
		return nil, fmt.Errorf("look up the settings of the session: %w", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// QuoteLiteral quotes a string as an SQL literal. It relies on standard_conforming_strings, which is pinned.
func QuoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// scriptSettings are the pinned settings that matter for statements that people run in psql. Every supported server
// has them.
var scriptSettings = []string{
	"search_path", "client_encoding", "standard_conforming_strings",
	"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
	"default_transaction_isolation", "default_transaction_read_only", "default_tablespace", "default_table_access_method",
}

// pinTransactionTimeout is for servers since 17, and does nothing on others: a script may run on two servers.
const pinTransactionTimeout = "do $walhook$ begin " +
	"perform set_config(name, '0', false) from pg_settings where name = 'transaction_timeout'; end $walhook$;"

// PinScript returns the statements that pin a psql session's settings. They must precede all others.
func PinScript() []string {
	statements := make([]string, len(scriptSettings))
	for i, name := range scriptSettings {
		at := slices.IndexFunc(pinned, func(s setting) bool { return s.name == name })
		value := QuoteLiteral(pinned[at].value)
		if name == "search_path" {
			value = pinned[at].value // a list: quoted, it would be one name
		}
		statements[i] = fmt.Sprintf("set %s = %s;", name, value)
	}
	return append(statements, pinTransactionTimeout)
}
