package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// chaosPerson works on a database while the daemons run: an administrator in the store, or another user of the
// application's database. Each act is a function of its connection.
type chaosPerson struct {
	c    *chaos
	url  func() string
	rand *rand.Rand
	acts map[string]func(context.Context, *chaosPerson) error
	conn *pgx.Conn
	n    int // acts so far; part of the names of what an act creates
}

// work performs one act after another until the context ends. An act that is interrupted by a killed server or a
// terminated session is ignored; one that PostgreSQL refuses for another reason fails the test.
func (p *chaosPerson) work(ctx context.Context) {
	names := slices.Sorted(maps.Keys(p.acts))
	for ctx.Err() == nil {
		name := names[p.rand.IntN(len(names))]
		p.c.load.gate.RLock()
		err := p.act(ctx, name)
		p.c.load.gate.RUnlock()
		if err != nil {
			p.leave()
			if refused(err) {
				p.c.T.Errorf("%s: %v", name, err)
				return
			}
		} else {
			p.c.load.committed(name)
		}
		pause(ctx, time.Duration(20+p.rand.IntN(180))*time.Millisecond)
	}
	p.leave()
}

func (p *chaosPerson) act(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if p.conn == nil || p.conn.IsClosed() {
		conn, err := pgx.Connect(ctx, p.url())
		if err != nil {
			return err
		}
		p.conn = conn
	}
	p.n++
	return p.acts[name](ctx, p)
}

func (p *chaosPerson) leave() {
	if p.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.conn.Close(ctx)
	p.conn = nil
}

// refused reports whether PostgreSQL refused a statement, as opposed to a connection that broke.
func refused(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return false
	}
	class := answer.Code[:2]
	return class != "57" && class != "08" && class != "53" && answer.Code != "25006" // shutdown, connection, resources, standby
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// statement returns an act that runs statements. They may contain $n, the number of the act.
func statement(sql string) func(context.Context, *chaosPerson) error {
	return func(ctx context.Context, p *chaosPerson) error {
		_, err := p.conn.Exec(ctx, strings.ReplaceAll(sql, "$n", fmt.Sprint(p.n)))
		return err
	}
}

// openTransaction returns an act that runs statements in a transaction, which stays open for a while and is then
// committed or rolled back.
func openTransaction(sql string) func(context.Context, *chaosPerson) error {
	return func(ctx context.Context, p *chaosPerson) error {
		tx, err := p.conn.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, strings.ReplaceAll(sql, "$n", fmt.Sprint(p.n))); err != nil {
			return err
		}
		pause(ctx, time.Duration(p.rand.IntN(2500))*time.Millisecond)
		if p.rand.IntN(2) == 0 {
			return tx.Rollback(context.WithoutCancel(ctx))
		}
		return tx.Commit(context.WithoutCancel(ctx))
	}
}

// administration lists what administrators do with webhooks. They are for assessments without responses, so they do not
// affect the ledger.
var administration = map[string]func(context.Context, *chaosPerson) error{
	"describe":         statement("update walhook.webhook set description = 'edit $n' where assessment_id = '1'"),
	"add":              statement("insert into walhook.webhook (assessment_id, url, event_type) select '1000$n', url, event_type from walhook.webhook where assessment_id = '1' order by id limit 1"),
	"copy":             statement("select walhook.copy_webhooks('1', '2000$n')"),
	"delete":           statement("delete from walhook.webhook where assessment_id <> '1'"),
	"disable, enable":  statement("begin; update walhook.webhook set enabled = false where assessment_id = '1'; update walhook.webhook set enabled = true where assessment_id = '1'; commit"),
	"test":             statement("select walhook.test_webhook(min(id), '1') from walhook.webhook where assessment_id = '1'"),
	"redeliver":        statement("select walhook.redeliver(max(delivery_id)) from walhook.log where kind = 0 having max(delivery_id) is not null"),
	"redeliver failed": statement("select walhook.redeliver_failed(min(id), now() - interval '1 minute') from walhook.webhook where assessment_id = '1'"),
	"retry now":        statement("select walhook.retry_now(min(id)) from walhook.webhook where assessment_id = '1'"),
	"rotate":           statement("select walhook.rotate_secret(min(id)) from walhook.webhook where assessment_id = '1'"),
	"time zone":        statement("update walhook.settings set time_zone = case time_zone when 'UTC' then 'Europe/Berlin' else 'UTC' end"),
	"move": statement(`update walhook.webhook set url = case when url like '%?moved' then replace(url, '?moved', '') else url || '?moved' end
		where assessment_id = '1' and url like '%/hook%'`),
	"enable":  statement("update walhook.webhook set enabled = true where assessment_id is null"),
	"explain": statement("select * from walhook.explain('1'); select count(*) from walhook.pending"),
}

// openAdministration lists what administrators start, and finish only after a coffee break.
var openAdministration = map[string]func(context.Context, *chaosPerson) error{
	"open description": openTransaction("update walhook.webhook set description = 'open $n' where assessment_id = '1' and event_type = 'response.created'"),
	"open insert":      openTransaction("insert into walhook.webhook (assessment_id, url, event_type) select '3000$n', url, event_type from walhook.webhook where assessment_id = '1' order by id"),
	"open endpoint":    openTransaction("insert into walhook.webhook (assessment_id, url, event_type) values ('4000$n', 'http://127.0.0.1:1/$n', 'response.created')"),
	"open copy":        openTransaction("select walhook.copy_webhooks('1', '5000$n')"),
	"open settings":    openTransaction("update walhook.settings set time_zone = 'Asia/Kathmandu'"),
	"open test":        openTransaction("select walhook.test_webhook(min(id), '1') from walhook.webhook where assessment_id = '1'"),
	"open look":        openTransaction("select count(*) from walhook.delivery_log; select count(*) from walhook.webhook"),
}

// neighbourhood lists what others do in the application's database.
var neighbourhood = map[string]func(context.Context, *chaosPerson) error{
	"large transaction": statement("insert into neighbour select g, 'row ' || g from generate_series(1, 30000) g; delete from neighbour"),
	"long transaction":  openTransaction("select txid_current(); insert into neighbour values ($n, 'long')"),
	"many savepoints":   statement("do $$ begin for i in 1..200 loop begin insert into neighbour values (i, 'x'); raise sqlstate 'XX999'; exception when sqlstate 'XX999' then null; end; end loop; end $$"),
	"add column":        statement("alter table respondent add column if not exists extra$n int default $n"),
	"drop columns": statement(`do $$ declare c name; begin for c in select attname from pg_attribute where attrelid = 'respondent'::regclass and attname like 'extra%' and not attisdropped
		loop execute format('alter table respondent drop column %I', c); end loop; end $$`),
	"retype page":   statement("do $$ begin execute 'alter table respondent alter page type ' || case (select atttypid::regtype::text from pg_attribute where attrelid = 'respondent'::regclass and attname = 'page') when 'integer' then 'bigint' else 'integer' end; end $$"),
	"retype marker": statement("do $$ begin execute 'alter table respondent alter started_at type ' || case (select atttypid::regtype::text from pg_attribute where attrelid = 'respondent'::regclass and attname = 'started_at') when 'timestamp with time zone' then 'timestamp using started_at at time zone ''UTC''' else 'timestamptz using started_at at time zone ''UTC''' end; end $$"),
	"retype stamp":  statement("do $$ begin execute 'alter table respondent alter finished_at type ' || case (select atttypid::regtype::text from pg_attribute where attrelid = 'respondent'::regclass and attname = 'finished_at') when 'timestamp with time zone' then 'timestamp using finished_at at time zone ''UTC''' else 'timestamptz using finished_at at time zone ''UTC''' end; end $$"),
	"index":         statement("create index if not exists neighbour_index on respondent (page); drop index if exists neighbour_index"),
	"rewrite":       statement("vacuum full respondent"),
	"publish":       statement("create table if not exists other (id int primary key); do $$ begin if not exists (select from pg_publication where pubname = 'theirs') then create publication theirs for table other; else drop publication theirs; end if; end $$"),
}

// chaosSettings are settings that a DBA might make for the daemons' role, or for a database, for other programs' sake.
var chaosSettings = []string{
	"statement_timeout = '30ms'", "lock_timeout = '10ms'", "idle_in_transaction_session_timeout = '50ms'", "idle_session_timeout = '200ms'",
	"default_transaction_read_only = on", "default_transaction_isolation = 'serializable'", "search_path = 'nowhere'", "DateStyle = 'German'",
	"TimeZone = 'Asia/Kathmandu'", "bytea_output = 'escape'", "extra_float_digits = '-5'", "standard_conforming_strings = off", "row_security = off",
}
