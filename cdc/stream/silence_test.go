package stream

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"walhook/cdc"
	"walhook/cdc/catalog"
	"walhook/testenv"
)

// A server reads our messages within half of the timeout that our sessions set, whatever its own setting is.
func TestReplicationConnectionsBoundTheServersSilence(t *testing.T) {
	t.Parallel()
	server := testenv.Postgres(t)
	for url, want := range map[string]string{server.URL("postgres"): "16s", server.URL("postgres") + "&wal_sender_timeout=7s": "7s"} {
		conn, err := ConnectReplication(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer catalog.CloseQuietly(conn)
		results, err := conn.Exec(t.Context(), "show wal_sender_timeout").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		if got := string(results[0].Rows[0][0]); got != want {
			t.Errorf("wal_sender_timeout is %s and not %s", got, want)
		}
	}
}

func TestPatienceGrowsWhereTheStreamGetsNoFurther(t *testing.T) {
	t.Parallel()
	here, there := cdc.Position{LSN: 1}, cdc.Position{LSN: 2}
	p := adaptiveTimeout{initial: time.Second}
	for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if got := p.forPosition(here); got != want {
			t.Fatalf("waits %s and not %s", got, want)
		}
		p.expired(here, &silenceError{want})
	}
	if got := p.forPosition(there); got != time.Second {
		t.Errorf("after progress it waits %s", got)
	}
	p.expired(there, &silenceError{silenceCap})
	if got := p.forPosition(there); got != silenceCap {
		t.Errorf("waits %s, more than the longest", got)
	}
}

// A server that exceeds the initial limit, because it processes a huge transaction of other tables, is overcome: each
// attempt starts over and waits longer.
func TestSilentServerIsGotPast(t *testing.T) {
	t.Parallel()
	url := testenv.Database(t, testenv.Postgres(t), `create table respondent (id int primary key); create table other (n int);
		create publication silent for table respondent`)
	slot := "silent_" + testenv.Value[string](t, url, "select current_database()")
	begin := testenv.Value[string](t, url, "select lsn::text from pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	testenv.Exec(t, url, "insert into other select generate_series(1, 300000)")
	testenv.Exec(t, url, "insert into respondent values (1)")
	end := testenv.Value[string](t, url, "select pg_current_wal_lsn()::text")
	from, err := pglogrepl.ParseLSN(begin)
	if err != nil {
		t.Fatal(err)
	}
	until, err := pglogrepl.ParseLSN(end)
	if err != nil {
		t.Fatal(err)
	}

	p := adaptiveTimeout{initial: 5 * time.Millisecond}
	var tries []error
	testenv.Eventually(t, time.Minute, "the transaction after the silence", func() (bool, string) {
		err := readUntil(t, url, slot, cdc.Position{LSN: from}, until, p.forPosition(cdc.Position{LSN: from}))
		var silent *silenceError
		if errors.As(err, &silent) {
			p.expired(cdc.Position{LSN: from}, silent)
		} else if err != nil {
			t.Fatal(err)
		}
		tries = append(tries, err)
		return err == nil, fmt.Sprint(tries)
	})
	if len(tries) == 1 {
		t.Error("the server was never silent, so this shows nothing")
	}
}

// readUntil reads a slot up to an LSN with a silence limit, and discards everything. The server spills large
// transactions to disk, for which it is silent for some hundred milliseconds here.
func readUntil(t *testing.T, url, slot string, from cdc.Position, until pglogrepl.LSN, silence time.Duration) error {
	t.Helper()
	conn, err := ConnectReplication(t.Context(), url+"&wal_sender_timeout=0&logical_decoding_work_mem=64kB")
	if err != nil {
		t.Fatal(err)
	}
	defer catalog.CloseQuietly(conn)
	s := New(Config{SourceURL: url, Slot: slot, Publication: "silent", Status: new(Status)})
	if err := s.start(t.Context(), conn, nil, from); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r := &reader{
		conn: conn, decoder: NewDecoder(testMapping, testKey, 0, 0), inbox: newInbox(), from: from, endLSN: until, status: s.cfg.Status, silence: silence,
	}
	r.durable.Store(uint64(from.LSN))
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx) }()
	for {
		for _, it := range r.inbox.take(nil) {
			if it.kind == itemEndReached {
				stop()
				<-ended
				return nil
			}
		}
		select {
		case err := <-ended:
			return err
		case <-r.inbox.added:
		}
	}
}
