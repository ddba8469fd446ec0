package documents

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// Both ways to divide the rights work as the page on roles describes: a daemon with that role streams and delivers.
func TestWaysToDivideRights(t *testing.T) {
	t.Parallel()
	p := openPage(t, "../../../docs/how-to/roles.md")
	roles := p.blocks
	if len(roles) != 3 {
		t.Fatalf("the page has %d blocks on roles", len(roles))
	}
	p.script()                                                         // marks them as used
	role, lend, prepare := roles[0].code, roles[1].code, roles[2].code // the last one is for a shell
	allowed := exported(t, openPage(t, "../../../docs/explanation/security.md").in("Where deliveries may go")[0].code)["ALLOW_NETWORKS"]
	const schema = `create table public.respondent (id bigint primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz, essay text)`
	ways := map[string]func(t *testing.T, server *pgserver.Server, s *harness.Site, daemon string){
		"a DBA attaches": func(t *testing.T, _ *pgserver.Server, s *harness.Site, daemon string) {
			s.Attach()
			testenv.Psql(t, s.DB, lend)
			s.With("DATABASE_URL", daemon)
		},
		"the daemon's role attaches": func(t *testing.T, server *pgserver.Server, s *harness.Site, daemon string) {
			dir := t.TempDir()
			if err := os.Symlink(self(t), filepath.Join(dir, "walhook")); err != nil {
				t.Fatal(err)
			}
			walk(t, server, dir, prepare, nil, "PATH="+dir+":"+os.Getenv("PATH"), "PGDATABASE="+s.Database(), "WALHOOK_DATABASE_URL="+s.DB, "WALHOOK_SLOT="+s.Env["SLOT"])
			s.With("DATABASE_URL", daemon).Attach()
		},
	}
	for name, prepared := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testenv.NewServer(t, nil)
			s := harness.NewSiteOn(t, server, schema).With("ALLOW_NETWORKS", allowed)
			testenv.Psql(t, s.DB, role)
			u, err := url.Parse(s.DB)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword("walhook", "change-me")
			prepared(t, server, s, u.String())
			s.Start().Ready()
			s.Hook("/hook", "completed")
			s.Exec("insert into respondent (id, assessment_id, finished_at) values (1, 1, now())")
			s.WaitRequests("/hook", 1)
			if got := testenv.Psql(t, u.String(), "select has_column_privilege('respondent', 'finished_at', 'select'), has_column_privilege('respondent', 'essay', 'select')"); got != "t|f" {
				t.Errorf("whether the daemon's role may read a mapped column, and another one: %s", got)
			}
		})
	}
}
