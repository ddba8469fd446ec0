package deliveries

import (
	"net/url"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The daemon, and every command that cannot work there, reports a standby in place of the primary.
func TestStandbyIsNamed(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, map[string]string{"fsync": "on"})
	s := harness.NewSiteOn(t, server, harness.SampleSchema).Attach()
	testenv.Psql(t, s.DB, "checkpoint")
	standby := testenv.CopyServer(t, server, nil, "standby.signal")
	u, err := url.Parse(s.DB)
	if err != nil {
		t.Fatal(err)
	}
	s.With("DATABASE_URL", standby.URL(strings.Trim(u.Path, "/")))
	const says = "is a standby, which walhook cannot work on: "
	for _, command := range []string{"status", "reconcile", "detach"} {
		if out, errOut, status := s.Walhook(command); status != 1 || !strings.Contains(out+errOut, says) || strings.Contains(out+errOut, "25006") {
			t.Errorf("%s: status %d\n%s%s", command, status, out, errOut)
		}
	}
	if out, errOut, status := s.Walhook("doctor"); status != 1 || !strings.Contains(out, "standby") {
		t.Errorf("doctor: status %d\n%s%s", status, out, errOut)
	}
	s.Start().Readyz(503, says)
}

// /readyz reports why the store does not answer, such as an expired password.
func TestReadyzSaysWhyTheStoreDoesNotAnswer(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // roles belong to the whole server
	s := harness.NewSiteOn(t, server, harness.SampleSchema)
	testenv.Psql(t, s.DB, "create role boss login superuser")
	d := s.With("STORE_URL", harness.UserOf(t, s.DB, "boss")).Attach().Start().Ready()
	testenv.Psql(t, s.DB, "alter role boss nologin; select pg_terminate_backend(pid) from pg_stat_activity where usename = 'boss'")
	d.Readyz(503, `the store does not answer: connect to the store at `)
	d.Readyz(503, `role "boss" is not permitted to log in`)
	testenv.Psql(t, s.DB, "alter role boss login")
	d.Ready()
}
