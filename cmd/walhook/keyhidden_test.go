package main

import (
	"testing"

	"walhook/testenv"
)

// A replica identity that lacks the key lets the application write and the stream go on, but a delete no longer tells which row it
// was. The daemon says so while it lasts, and afterwards compares, which forgets the rows that are gone.
func TestReplicaIdentityHidesTheKey(t *testing.T) {
	t.Parallel()
	for name, watched := range map[string]bool{"for long": true, "for a moment": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, sampleSchema+`
				alter table respondent add column token bigint generated always as identity; create unique index by_token on respondent (token);
				alter table respondent add column badge bigint generated always as identity; create unique index by_badge on respondent (badge);
				insert into respondent (id, assessment_id) values (1, 1), (2, 1)`).with("PUBLICATION", "p")
			d := s.run()
			s.hooks()
			const open = "select detail from walhook.incident where kind = 'key_hidden' and resolved_at is null"
			hide, show := "alter table respondent replica identity using index by_token;", "alter table respondent replica identity default;"
			if watched {
				s.exec(hide)
				s.waitLog("select count(*) from walhook.incident where kind = 'key_hidden' and resolved_at is null and detail like '%(token) that lacks id%REPLICA IDENTITY DEFAULT%'", "1")
				s.exec("alter table respondent replica identity using index by_badge")
				s.waitLog("select string_agg(split_part(detail, ' that', 1), ',') from walhook.incident where kind = 'key_hidden' and resolved_at is null", "table public.respondent has a replica identity (badge)")
				s.exec("delete from respondent where id = 1; insert into respondent (id, assessment_id) values (3, 1)")
				s.expect("/hook", "created 3")
				d.readyz(200, "streaming")
				if got := testenv.Psql(t, s.store, "select count(*) from walhook.response_state where response_id = '1'"); got != "1" {
					t.Errorf("%s states of the deleted row: did the delete tell its key after all?", got)
				}
				s.exec(show)
			} else {
				s.exec(hide + "delete from respondent where id = 1; insert into respondent (id, assessment_id) values (3, 1);" + show)
			}
			s.waitLog("select count(*) from walhook.incident where kind = 'key_hidden' and resolved_at is not null", "1")
			if got := testenv.Psql(t, s.store, open); got != "" {
				t.Errorf("an incident is left open: %s", got)
			}
			d.ready()
			if got := testenv.Psql(t, s.store, "select count(*) from walhook.response_state where response_id = '1'"); got != "0" {
				t.Errorf("%s states of the deleted row are left", got)
			}
			// It is as if nothing had been: the row that comes again is a new one.
			s.exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now()); delete from respondent where id = 2")
			s.expect("/hook", "created 3", "created 1", "started 1")
		})
	}
}
