package commands

import (
	"fmt"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// hostileSettings are settings that roles, databases and servers have in practice, and worse. A session needs the time to
// reset the timeouts, on a busy machine too.
var hostileSettings = map[string]string{
	"statement_timeout": "150ms", "lock_timeout": "10ms", "idle_in_transaction_session_timeout": "10ms", "idle_session_timeout": "200ms",
	"transaction_timeout": "250ms", "default_transaction_isolation": "serializable", "default_transaction_read_only": "on",
	"default_transaction_deferrable": "on", "client_encoding": "LATIN1", "standard_conforming_strings": "off", "escape_string_warning": "on",
	"backslash_quote": "off", "row_security": "on", "datestyle": "SQL, DMY", "intervalstyle": "sql_standard", "timezone": "America/St_Johns",
	"bytea_output": "escape", "extra_float_digits": "-15", "xmloption": "document", "lc_monetary": "C.UTF-8", "lc_numeric": "C.UTF-8",
	"quote_all_identifiers": "on", "array_nulls": "off", "transform_null_equals": "on", "exit_on_error": "on", "check_function_bodies": "off",
	"synchronous_commit": "off", "enable_indexscan": "off", "enable_nestloop": "off", "enable_seqscan": "off", "plan_cache_mode": "force_custom_plan",
	"jit": "on", "jit_above_cost": "0", "client_min_messages": "error", "log_parameter_max_length_on_error": "-1", "max_parallel_workers_per_gather": "8",
	"debug_parallel_query": "on", "force_parallel_mode": "on", "work_mem": "64kB", "search_path": "nowhere", "default_statistics_target": "1",
	"session_replication_role": "replica", "temp_buffers": "100", "restrict_nonsystem_relation_kind": "view, foreign-table",
}

// Whatever a role's settings, its commands and daemons behave the same.
func TestHostileSettings(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // roles belong to the whole server
	testenv.Psql(t, server.URL("postgres"), "create role boss login superuser; create role d login; create role clerk login")
	s := harness.NewSiteOn(t, server, harness.SampleSchema+"insert into respondent (id, assessment_id, started_at) select g, 1, now() from generate_series(1000, 60000) g;").
		With("ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from", "RESPONDENT_ORGANIZATION", "organization_id")
	super := s.DB
	database, _, _ := strings.Cut(super[strings.LastIndexByte(super, '/')+1:], "?")
	for _, role := range []string{"boss", "d"} {
		for name, value := range hostileSettings {
			if testenv.Psql(t, super, "select 1 from pg_settings where lower(name) = '"+name+"'") != "1" || role == "d" && name == "session_replication_role" {
				continue // the server does not have it, or the role cannot change it, which doctor reports
			}
			testenv.Psql(t, super, fmt.Sprintf("alter role %s set %s = '%s'; alter role %[1]s in database %[4]q set %[2]s = '%[3]s'", role, name, value, database))
		}
	}
	s.With("DATABASE_URL", harness.UserOf(t, super, "boss"))
	liveThrough(s, t, super, "boss", func(string) {})
	script, errOut, status := s.Walhook("plan", "--role", "d")
	if status != 0 {
		t.Fatalf("plan: %s", errOut)
	}
	owner, _, _ := strings.Cut(script, "\n-- 2. ")
	mustRunFile(t, harness.UserOf(t, super, "boss"), owner)
	liveThrough(s, t, super, "d", func(string) {})
}
