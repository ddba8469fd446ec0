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

// setting is a configuration parameter of PostgreSQL and the value that it has in every session of walhook's.
type setting struct{ name, value string }

// pinned are the settings on which the meaning, the outcome or the duration of a statement depends. A server is sent those
// that it knows; what only a superuser may set is left alone for other roles, and doctor reports it.
var pinned = []setting{
	// Names. What others planted in a schema, or in a temporary one for types and tables, is not found.
	{"search_path", "pg_catalog, pg_temp"},

	// Timeouts. Each wait of walhook's has a bound of its own.
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
	{"row_security", "on"},
	{"restrict_nonsystem_relation_kind", ""},
	{"exit_on_error", "off"},

	// The text form of values. The stream and the snapshot must write a finish stamp alike.
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

	// Plans. The statements rest on look-ups by index, joined by nested loops.
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

	// What the server says and writes down: warnings are read, and values of parameters are nobody else's business.
	{"client_min_messages", "notice"},
	{"log_parameter_max_length_on_error", "0"},
}

// pin sets what is pinned, as the first statements of a connection. Until it has run, names resolve as the role or the database
// says, so that each is qualified here, operators included.
func pin(ctx context.Context, conn *pgconn.PgConn, config *pgconn.Config) error {
	pinned, err := pinIf(ctx, conn, fmt.Sprint("pg_catalog.pg_backend_pid() operator(pg_catalog.=) ", conn.PID()))
	if err != nil || pinned {
		return err
	}
	// Something stands between and has told another process id. What one session of a pool of transactions sets, the next one finds.
	if err := rejectTransactionPool(ctx, conn, config); err != nil {
		return err
	}
	_, err = pinIf(ctx, conn, "true")
	return err
}

// pinIf sets what is pinned where the condition holds, and reports whether it did.
func pinIf(ctx context.Context, conn *pgconn.PgConn, condition string) (done bool, err error) {
	values := make([]string, len(pinned))
	for i, s := range pinned {
		values[i] = "(" + QuoteLiteral(s.name) + ", " + QuoteLiteral(s.value) + ")"
	}
	// As long as it takes, and without compiling it. A standby reads nothing in a transaction that is serializable by default.
	results, err := conn.Exec(ctx, `set local statement_timeout = 0; set local jit = off; set transaction_isolation = 'read committed';
		select pg_catalog.count(pg_catalog.set_config(s.name, p.value, false))
		  from (values `+strings.Join(values, ", ")+`) as p (name, value)
		  join pg_catalog.pg_settings as s on pg_catalog.lower(s.name) operator(pg_catalog.=) pg_catalog.lower(p.name)
		 where `+condition+`
		   and (s.context operator(pg_catalog.=) 'user'
		     or s.setting operator(pg_catalog.<>) p.value and pg_catalog.current_setting('is_superuser') operator(pg_catalog.=) 'on')`).ReadAll()
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "0A000" { // feature_not_supported: a conversion that there is not
		return false, fmt.Errorf("the database is in %s, which PostgreSQL cannot convert to UTF8; walhook needs one in another encoding", conn.ParameterStatus("server_encoding"))
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

// Unpinned returns the pinned settings that this session has otherwise, as "name = value": the role may not set them.
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

// QuoteLiteral writes a text as a literal of SQL. Where it may hold a backslash, standard_conforming_strings must be on, as it is pinned.
func QuoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// scriptSettings are those of the pinned settings on which statements depend that people run in psql. Each supported server knows them.
var scriptSettings = []string{
	"search_path", "client_encoding", "standard_conforming_strings", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
	"default_transaction_isolation", "default_transaction_read_only", "default_tablespace", "default_table_access_method",
}

// PinScript returns the statements that pin the settings of a psql session, to stand before all others.
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
	return statements
}
