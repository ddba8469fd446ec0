package session

import (
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"walhook/testenv"
)

// hostile are harmful values of the pinned settings, as far as a role may be given them. It omits timeouts so short
// that nobody could connect.
var hostile = map[string]string{
	"search_path": "public", "statement_timeout": "600s", "lock_timeout": "600s", "idle_in_transaction_session_timeout": "600s",
	"idle_session_timeout": "600s", "transaction_timeout": "600s", "tcp_user_timeout": "600s", "default_transaction_isolation": "serializable",
	"default_transaction_read_only": "on", "default_transaction_deferrable": "on", "session_replication_role": "replica", "synchronous_commit": "remote_apply", "row_security": "on",
	"restrict_nonsystem_relation_kind": "view", "exit_on_error": "on", "client_encoding": "LATIN1", "timezone": "Asia/Kathmandu",
	"timezone_abbreviations": "India", "datestyle": "SQL, DMY", "intervalstyle": "iso_8601", "extra_float_digits": "-15", "bytea_output": "escape",
	"lc_monetary": "C.UTF-8", "lc_numeric": "C.UTF-8", "lc_time": "C.UTF-8", "xmlbinary": "hex", "xmloption": "document", "quote_all_identifiers": "on",
	"standard_conforming_strings": "off", "backslash_quote": "on", "array_nulls": "off", "transform_null_equals": "on",
	"default_tablespace": "pg_global", "default_table_access_method": "nobodys", "check_function_bodies": "off", "enable_seqscan": "off",
	"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off", "enable_tidscan": "off", "enable_nestloop": "off",
	"enable_hashjoin": "off", "enable_mergejoin": "off", "enable_hashagg": "off", "enable_sort": "off", "enable_material": "off",
	"enable_memoize": "off", "enable_partition_pruning": "off", "plan_cache_mode": "force_custom_plan", "constraint_exclusion": "off",
	"jit": "on", "force_parallel_mode": "on", "debug_parallel_query": "on", "vacuum_cost_delay": "100", "client_min_messages": "error",
	"log_parameter_max_length_on_error": "-1",
}

// Every kind of session has the pinned settings, whatever role and database configure. Settings that a role may not
// set are left to superusers.
func TestSessionsArePinned(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil)
	super := testenv.Database(
		t, server, "create role d login replication; create role boss login superuser replication; grant d to boss",
	)
	for name, value := range hostile {
		known := testenv.Psql(t, super, "select 1 from pg_settings where lower(name) = '"+name+"'") == "1"
		if !known || name == "default_table_access_method" || name == "default_tablespace" {
			continue
		}
		for _, whose := range []string{"role d", "role boss", "database " + strings.TrimPrefix(mustParse(t, super).Path, "/")} {
			testenv.Psql(t, super, "set standard_conforming_strings = on; alter "+whose+" set "+name+" = '"+value+"'")
		}
	}
	for _, user := range []string{"d", "boss"} {
		u := mustParse(t, super)
		u.User = url.User(user)
		if got := testenv.Psql(t, u.String(), "show datestyle"); got != "SQL, DMY" {
			t.Fatalf("another session of %s has datestyle %s: nothing hostile was set", user, got)
		}
		u.RawQuery += "&target_session_attrs=read-write"
		for kind, open := range map[string]func() (*pgconn.PgConn, error){
			"ordinary": func() (*pgconn.PgConn, error) {
				conn, err := Connect(t.Context(), u.String(), "the store")
				if err != nil {
					return nil, err
				}
				return conn.PgConn(), nil
			},
			"replication": func() (*pgconn.PgConn, error) {
				return ConnectReplication(t.Context(), u.String(), func(*pgconn.Config) {})
			},
			"pooled": func() (*pgconn.PgConn, error) {
				pool, err := NewPool(t.Context(), u.String(), 1, nil)
				if err != nil {
					return nil, err
				}
				t.Cleanup(pool.Close)
				conn, err := pool.Acquire(t.Context())
				if err != nil {
					return nil, err
				}
				return conn.Hijack().PgConn(), nil
			},
		} {
			conn, err := open()
			if err != nil {
				t.Errorf("%s as %s: %v", kind, user, err)
				continue
			}
			results, err := conn.Exec(t.Context(), "select lower(name), setting, context from pg_settings").ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			have, context := map[string]string{}, map[string]string{}
			for _, row := range results[0].Rows {
				have[string(row[0])], context[string(row[0])] = string(row[1]), string(row[2])
			}
			for _, s := range pinned {
				name := strings.ToLower(s.name)
				got, known := have[name]
				if known && got != s.value && (user == "boss" || context[name] == "user") {
					t.Errorf("%s as %s: %s = %q, not %q", kind, user, s.name, got, s.value)
				}
				if hostile[name] == "" || hostile[name] == s.value {
					t.Errorf("no hostile value of %s", s.name)
				}
			}
			_ = conn.Close(t.Context())
		}
	}
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
