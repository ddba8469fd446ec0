package main

import (
	"net/url"
	"strings"
	"testing"

	"walhook/testenv"
)

// A standby in place of the primary is named as that, by the daemon and by every command that cannot do its work there.
func TestStandbyIsNamed(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, map[string]string{"fsync": "on"})
	s := newSiteOn(t, server, sampleSchema).attach()
	testenv.Psql(t, s.db, "checkpoint")
	standby := testenv.CopyServer(t, server, nil, "standby.signal")
	u, err := url.Parse(s.db)
	if err != nil {
		t.Fatal(err)
	}
	s.with("DATABASE_URL", standby.URL(strings.Trim(u.Path, "/")))
	const says = "is a standby, which walhook cannot work on: "
	for _, command := range []string{"status", "reconcile", "detach"} {
		if out, errOut, status := s.walhook(command); status != 1 || !strings.Contains(out+errOut, says) || strings.Contains(out+errOut, "25006") {
			t.Errorf("%s: status %d\n%s%s", command, status, out, errOut)
		}
	}
	if out, errOut, status := s.walhook("doctor"); status != 1 || !strings.Contains(out, "standby") {
		t.Errorf("doctor: status %d\n%s%s", status, out, errOut)
	}
	s.start().readyz(503, says)
}

// /readyz says why the store does not answer, such as a password that has expired.
func TestReadyzSaysWhyTheStoreDoesNotAnswer(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // roles belong to the whole server
	s := newSiteOn(t, server, sampleSchema)
	testenv.Psql(t, s.db, "create role boss login superuser")
	d := s.with("STORE_URL", userOf(t, s.db, "boss")).attach().start().ready()
	testenv.Psql(t, s.db, "alter role boss nologin; select pg_terminate_backend(pid) from pg_stat_activity where usename = 'boss'")
	d.readyz(503, `the store does not answer: connect to the store at `)
	d.readyz(503, `role "boss" is not permitted to log in`)
	testenv.Psql(t, s.db, "alter role boss login")
	d.ready()
}
