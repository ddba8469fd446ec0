package commands

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// Objects that others may create in a schema never run with the rights of the daemon, of a superuser who attaches or of
// an administrator, neither because they match better than PostgreSQL's own nor because a search_path puts them first.
func TestNothingPlantedRuns(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // roles belong to the whole server
	testenv.Psql(t, server.URL("postgres"), "create role boss login superuser; create role d login; create role clerk login; create role planter login")
	for _, path := range []string{`"$user", public`, "planted, public, pg_catalog"} {
		t.Run(path, func(t *testing.T) {
			s := harness.NewSiteOn(t, server, harness.SampleSchema).With("ASSESSMENT_TABLE", "public.assessment", "ASSESSMENT_COPIED_FROM", "copied_from",
				"RESPONDENT_ORGANIZATION", "organization_id", "RETENTION", "2160h")
			super := s.DB
			plant(t, super)
			// What the owner of the application's tables may plant.
			testenv.Psql(t, super, "create index on respondent ((page + planted.in_an_index(1))); create index on assessment (title) where planted.in_an_index(1) = 2")
			for _, role := range []string{"boss", "d", "clerk"} {
				testenv.Psql(t, super, fmt.Sprintf("alter role %s set search_path = %s", role, path))
			}
			var ran []string
			look := func(doing string) {
				t.Helper()
				found := testenv.Psql(t, super, "select who || ' ran ' || what || ' ' || n from planted.trapped() order by 1")
				if found != "" && !slices.Contains(ran, found) {
					t.Errorf("by the end of %s:\n%s", doing, found)
					ran = append(ran, found)
				}
			}
			for _, role := range []string{"boss", "d"} {
				s.With("DATABASE_URL", harness.UserOf(t, super, "boss"))
				if role == "d" {
					script, errOut, status := s.Walhook("plan", "--role", "d")
					if status != 0 {
						t.Fatalf("plan: %s", errOut)
					}
					owner, _, _ := strings.Cut(script, "\n-- 2. ")
					mustRunFile(t, harness.UserOf(t, super, "boss"), owner)
					look("part one of the script")
				}
				liveThrough(s, t, super, role, look)
			}
		})
	}
}

// liveThrough runs every command, and a daemon through everything that it does in daily operation.
func liveThrough(s *harness.Site, t *testing.T, super, role string, look func(string)) {
	t.Helper()
	command := func(want int, args ...string) {
		t.Helper()
		out, errOut, status := s.Walhook(args...)
		look(strings.Join(args, " "))
		if status != want {
			t.Fatalf("%v: status %d\n%s%s", args, status, out, errOut)
		}
	}
	s.With("DATABASE_URL", harness.UserOf(t, super, role))
	command(0, "doctor")
	command(0, "plan")
	command(0, "attach")
	command(0, "attach")
	command(1, "status") // nobody reads the slot
	d := s.Start().Ready()
	testenv.Psql(t, super, "grant walhook_admin to clerk")
	clerk := harness.UserOf(t, super, "clerk")
	var failed atomic.Bool
	s.Receiver.Respond("/hook", func(testenv.Request) testenv.Reply {
		if failed.CompareAndSwap(false, true) {
			return testenv.Reply{Status: 500}
		}
		return testenv.Reply{}
	})
	for _, event := range []string{"created", "started", "completed", "changed"} {
		testenv.Psql(t, clerk, fmt.Sprintf("insert into walhook.webhook (url, event_type, assessment_id, secret) values ('%s', 'response.%s', '1', walhook.new_secret())",
			s.Receiver.URL("/hook"), event))
	}
	look("adding webhooks")
	testenv.Psql(t, super, `delete from public.respondent; delete from public.assessment where id > 2;
		insert into public.respondent (id, assessment_id, started_at, finished_at) values (60, 1, '2026-01-01', '2026-01-01');
		insert into public.assessment (id, external_id, copied_from) values (70, 'EXT-70', 1); begin; select walhook.silence(); update public.respondent set page = 1; commit;
		update public.respondent set id = 61 where id = 60; update public.assessment set id = 71 where id = 70; delete from public.assessment where id = 71`)
	testenv.Eventually(t, harness.Patience, "deliveries after a failure", func() (bool, string) {
		n := testenv.Psql(t, super, "select walhook_deliveries from (select count(*)::text as walhook_deliveries from walhook.log) as l")
		return n >= "3", n
	})
	look("events")
	testenv.Psql(t, clerk, `update walhook.webhook set description = 'edited', url = '`+s.Receiver.URL("/edited")+`'; update walhook.settings set enabled = false;
		update walhook.settings set enabled = true, time_zone = 'Europe/Berlin';
		select walhook.test_webhook(id) from walhook.webhook order by id limit 1; select walhook.rotate_secret(id, '24 hours') from walhook.webhook limit 1;
		select walhook.copy_webhooks('1', '2'); select * from walhook.explain('61'); select * from walhook.delivery_log; select * from walhook.delivery_attempt;
		select * from walhook.incident; select * from walhook.webhook_overview; select * from walhook.pending; select * from walhook.endpoint_health;
		select walhook.redeliver(delivery_id) from walhook.delivery_log limit 1; select walhook.redeliver_failed(id, '-infinity') from walhook.webhook;
		select walhook.retry_now(id) from walhook.webhook; delete from walhook.webhook`)
	look("what administrators do")
	command(0, "status")
	command(0, "status", "--json")
	command(0, "reconcile")
	d.Readyz(200, "streaming") // it stands by during a comparison, and then reopens the stream
	command(0, "doctor")
	if role == "boss" { // the owner of the publication
		testenv.Psql(t, super, "alter publication walhook drop table public.respondent")
		testenv.Eventually(t, harness.Patience, "a gap that was closed", func() (bool, string) {
			got := testenv.Psql(t, super, "select i from walhook.incident_log i where kind = 'publication_changed' and resolved_at is not null")
			return got != "", testenv.Psql(t, super, "select i from walhook.incident_log i")
		})
		d.Ready()
		look("a gap")
		d.Kill()
		s.DropSlot()
		d = s.Start().Ready()
		look("a lost slot")
	}
	if status := d.Stop(); status != 0 {
		t.Errorf("the daemon ended with status %d", status)
	}
	look("a stop")
	command(map[string]int{"boss": 0, "d": 1}[role], "detach", "--drop-schema")
	s.With("DATABASE_URL", harness.UserOf(t, super, "boss"))
	command(0, "detach", "--drop-schema")
}

var (
	word   = regexp.MustCompile(`[a-z_][a-z0-9_]*`)
	called = regexp.MustCompile(`([a-z_][a-z0-9_]*)\s*\(`)
)

// textArray returns an array literal of distinct words.
func textArray(words []string) string {
	words = slices.Clone(words)
	slices.Sort(words)
	return "'{" + strings.Join(slices.Compact(words), ",") + "}'"
}

// statementText returns all text that may be walhook's SQL: the store's files, and the strings in the Go code.
func statementText(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, suffix := range []string{".sql", ".go"} {
		for _, file := range testenv.Files(t, "../../../..", suffix) {
			if strings.HasSuffix(file, "_test.go") || strings.Contains(file, "testenv") || strings.Contains(file, "testdata") || strings.Contains(file, "examples") || strings.Contains(file, "harness") || strings.Contains(file, "bench") {
				continue
			}
			if strings.HasSuffix(file, ".sql") {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				b.Write(text)
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(parsed, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if text, err := strconv.Unquote(literal.Value); err == nil {
						b.WriteString(text + "\n")
					}
				}
				return true
			})
		}
	}
	return strings.ToLower(b.String())
}

// plant creates traps as an ordinary role that may create objects in two schemas: for each PostgreSQL function that
// walhook may call, one with the same arguments and one with arguments that might match better, and likewise for
// operators, types and tables.
func plant(t *testing.T, super string) {
	t.Helper()
	text := statementText(t)
	var functions []string
	for _, match := range called.FindAllStringSubmatch(text, -1) {
		functions = append(functions, match[1])
	}
	testenv.Psql(t, super, "create schema planted; grant all on schema planted, public to planter; grant usage on schema planted to public")
	testenv.Psql(t, harness.UserOf(t, super, "planter"), strings.NewReplacer(":names", textArray(word.FindAllString(text, -1)),
		":functions", textArray(functions)).Replace(trapsSQL))
	if n := testenv.Psql(t, super, "select count(*) > 2000 from pg_proc p where p.proowner = 'planter'::regrole"); n != "t" {
		t.Fatal("few traps were set")
	}
}

const trapsSQL = `
set search_path = pg_catalog;
do $do$
declare r text;
begin
  foreach r in array array['boss', 'd', 'clerk'] loop
    execute format('create sequence planted.%I', 'ran_as_' || r);
    execute format('grant all on sequence planted.%I to public', 'ran_as_' || r);
  end loop;
end $do$;
create table planted.trap (who text, what text);
grant insert on planted.trap to public;
-- A sequence tells of it also where the transaction is rolled back.
create function planted.spring(what text) returns boolean language plpgsql set search_path = pg_catalog as $$
begin
  if current_user in ('boss', 'd', 'clerk') then
    perform nextval(format('planted.%I', 'ran_as_' || current_user)::regclass);
    insert into planted.trap values (current_user, what);
  end if;
  return true;
end $$;
create function planted.in_an_index(n integer) returns integer immutable language plpgsql set search_path = pg_catalog as $$
begin perform planted.spring('an index'); return n; end $$;
create function planted.trapped(out who text, out what text, out n bigint) returns setof record language plpgsql set search_path = pg_catalog as $$
begin
  foreach who in array array['boss', 'd', 'clerk'] loop
    execute format('select last_value from planted.%I where is_called', 'ran_as_' || who) into n;
    what := (select string_agg(distinct t.what, ', ') from planted.trap t where t.who = trapped.who);
    if n is not null then return next; end if;
  end loop;
end $$;
do $do$
declare
  names     text[] := :names;
  functions text[] := :functions;
  stand_in  regtype[] := '{bigint,integer,text,boolean,double precision,timestamptz,oid,text[],anyelement}';
  f         record;
begin
  -- In public are those that might fit better, in planted the same.
  for f in
    with exact as (
      select p.proname as name, p.proargtypes::oid[] as types, p.prorettype as result, p.proretset as many
        from pg_proc p
       where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = any(functions) and p.prokind in ('f', 'a') and p.pronargs <= 3
    ), varied as (
      select e.name, array(select case u.n when i then s::oid else u.o end from unnest(e.types) with ordinality u (o, n) order by u.n) as types, e.result, e.many
        from exact e cross join unnest(stand_in[1:8]) s cross join generate_series(1, cardinality(e.types)) i
    )
    select distinct on (home, name, types) *
      from (select 'planted' as home, * from exact union all select 'public', * from varied where not exists (select from exact e where e.name = varied.name and e.types = varied.types)) a
     where not exists (select from pg_type y where y.oid = any(types) and y.typtype = 'p')
       and not exists (select from pg_type y where y.oid = a.result and y.typtype = 'p' and y.typname not in ('record', 'void'))
  loop
    execute format('create function %I.%I(%s) returns %s %s language plpgsql as %L', f.home, f.name,
      (select string_agg(format_type(u.o, null), ', ' order by u.n) from unnest(f.types) with ordinality u (o, n)),
      case when f.many then 'setof' else '' end, case f.result when 'record'::regtype then 'text' else format_type(f.result, null) end,
      format('begin perform planted.spring(%L); %s end', f.name, case when f.many or f.result = 'void'::regtype then 'return;' else 'return null;' end));
  end loop;
  for f in
    with exact as (
      select oprname as name, oprleft as l, oprright as r, oprresult as result from pg_operator
       where oprkind = 'b' and oprnamespace = 'pg_catalog'::regnamespace and oprleft = any(stand_in[1:8]::oid[]) and oprright = any(stand_in[1:8]::oid[])
         and oprname in ('=', '<>', '<', '<=', '>', '>=', '~', '!~', '~*', '!~*', '~~', '||', '+', '-', '*', '/', '&')
    )
    select 'planted' as home, * from exact
    union all
    select 'public', n.name, l::oid, r::oid, case n.result when 'boolean'::regtype then n.result when 'text'::regtype then n.result else l::oid end
      from (select name, min(result) as result from exact group by 1) n cross join unnest(stand_in) l cross join unnest(stand_in) r
     where (l <> 'anyelement'::regtype or r = 'anyelement'::regtype) and not exists (select from exact e where (e.name, e.l, e.r) = (n.name, l::oid, r::oid))
  loop
    if to_regprocedure(format('%I.operator_of_%s(%s,%s)', f.home, f.result, f.l::regtype, f.r::regtype)) is null then
      execute format('create function %I.%I(%s, %s) returns %s language plpgsql as %L', f.home, 'operator_of_' || f.result, f.l::regtype, f.r::regtype, f.result::regtype,
        'begin perform planted.spring(''an operator''); return null; end');
    end if;
    execute format('create operator %I.%s (function = %I.%I, leftarg = %s, rightarg = %s)', f.home, f.name, f.home, 'operator_of_' || f.result, f.l::regtype, f.r::regtype);
  end loop;
  for f in
    select c.relname, string_agg(quote_ident(a.attname), ', ' order by a.attnum) as columns
      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and a.atttypid <> 'anyarray'::regtype
     where c.relnamespace = 'pg_catalog'::regnamespace and c.relname = any(names) and c.relkind in ('r', 'v') group by 1
  loop
    execute format('create view planted.%I as select %s from pg_catalog.%I where planted.spring(%L)', f.relname, f.columns, f.relname, f.relname);
    execute format('grant select on planted.%I to public', f.relname);
  end loop;
  for f in
    select y.typname from pg_type y
     where y.typnamespace = 'pg_catalog'::regnamespace and y.typname = any(names) and y.typtype = 'b' and y.typcategory <> 'A'
  loop
    execute format('create domain planted.%I as pg_catalog.%I check (planted.spring(%L))', f.typname, f.typname, f.typname);
  end loop;
end $do$`
