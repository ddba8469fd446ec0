package main

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// Both ways of the page on roles to divide the rights work as they are written: a daemon with that role streams and delivers.
func TestWaysToDivideRights(t *testing.T) {
	t.Parallel()
	p := openPage(t, "../../docs/how-to/roles.md")
	roles := p.blocks
	if len(roles) != 3 {
		t.Fatalf("the page has %d blocks on roles", len(roles))
	}
	p.script()                                                         // takes them all
	role, lend, prepare := roles[0].code, roles[1].code, roles[2].code // the last one for a shell
	allowed := exported(t, openPage(t, "../../docs/explanation/security.md").in("Where deliveries may go")[0].code)["ALLOW_NETWORKS"]
	const schema = `create table public.respondent (id bigint primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz, essay text)`
	ways := map[string]func(t *testing.T, server *pgserver.Server, s *site, daemon string){
		"a DBA attaches": func(t *testing.T, _ *pgserver.Server, s *site, daemon string) {
			s.attach()
			testenv.Psql(t, s.db, lend)
			s.with("DATABASE_URL", daemon)
		},
		"the daemon's role attaches": func(t *testing.T, server *pgserver.Server, s *site, daemon string) {
			dir := t.TempDir()
			if err := os.Symlink(self(t), filepath.Join(dir, "walhook")); err != nil {
				t.Fatal(err)
			}
			walk(t, server, dir, prepare, nil, "PATH="+dir+":"+os.Getenv("PATH"), "PGDATABASE="+s.database(), "WALHOOK_DATABASE_URL="+s.db, "WALHOOK_SLOT="+s.env["SLOT"])
			s.with("DATABASE_URL", daemon).attach()
		},
	}
	for name, prepared := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewServer(t, nil)
			s := newSiteOn(t, server, schema).with("ALLOW_NETWORKS", allowed)
			testenv.Psql(t, s.db, role)
			u, err := url.Parse(s.db)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword("walhook", "change-me")
			prepared(t, server, s, u.String())
			s.start().ready()
			s.hook("/hook", "completed")
			s.exec("insert into respondent (id, assessment_id, finished_at) values (1, 1, now())")
			s.waitRequests("/hook", 1)
			if got := testenv.Psql(t, u.String(), "select has_column_privilege('respondent', 'finished_at', 'select'), has_column_privilege('respondent', 'essay', 'select')"); got != "t|f" {
				t.Errorf("the daemon's role may read a mapped column and another one: %s", got)
			}
		})
	}
}
