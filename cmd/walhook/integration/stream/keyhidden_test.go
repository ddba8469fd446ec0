package stream

import (
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// With a replica identity that lacks the key, the application and the stream continue, but a delete no longer
// identifies its row. The daemon reports that while it lasts, and afterwards compares, which forgets the deleted rows.
func TestReplicaIdentityHidesTheKey(t *testing.T) {
	t.Parallel()
	for name, watched := range map[string]bool{"for long": true, "for a moment": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.NewSite(t, harness.SampleSchema+`
				alter table respondent add column token bigint generated always as identity; create unique index by_token on respondent (token);
				alter table respondent add column badge bigint generated always as identity; create unique index by_badge on respondent (badge);
				insert into respondent (id, assessment_id) values (1, 1), (2, 1)`).With("PUBLICATION", "p")
			d := s.Run()
			s.Hooks()
			const open = "select detail from walhook.incident where kind = 'key_hidden' and resolved_at is null"
			hide, show := "alter table respondent replica identity using index by_token;", "alter table respondent replica identity default;"
			if watched {
				s.Exec(hide)
				s.WaitLog("select count(*) from walhook.incident where kind = 'key_hidden' and resolved_at is null and detail like '%(token) that lacks id%REPLICA IDENTITY DEFAULT%'", "1")
				s.Exec("alter table respondent replica identity using index by_badge")
				s.WaitLog("select string_agg(split_part(detail, ' that', 1), ',') from walhook.incident where kind = 'key_hidden' and resolved_at is null", "table public.respondent has a replica identity (badge)")
				s.Exec("delete from respondent where id = 1; insert into respondent (id, assessment_id) values (3, 1)")
				s.Expect("/hook", "created 3")
				d.Readyz(200, "streaming")
				if got := testenv.Psql(t, s.Store, "select count(*) from walhook.response_state where response_id = '1'"); got != "1" {
					t.Errorf("%s states of the deleted row: the delete contained its key after all", got)
				}
				s.Exec(show)
			} else {
				s.Exec(hide + "delete from respondent where id = 1; insert into respondent (id, assessment_id) values (3, 1);" + show)
			}
			s.WaitLog("select count(*) from walhook.incident where kind = 'key_hidden' and resolved_at is not null", "1")
			if got := testenv.Psql(t, s.Store, open); got != "" {
				t.Errorf("an incident is left open: %s", got)
			}
			d.Ready()
			if got := testenv.Psql(t, s.Store, "select count(*) from walhook.response_state where response_id = '1'"); got != "0" {
				t.Errorf("%s states of the deleted row are left", got)
			}
			// A row inserted again with that key is a new response.
			s.Exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now()); delete from respondent where id = 2")
			s.Expect("/hook", "created 3", "created 1", "started 1")
		})
	}
}
