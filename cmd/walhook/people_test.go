package main

import (
	"net/url"
	"strings"

	"walhook/testenv"
)

// as returns the URL of the store for a new login role that is a member of the group.
func (s *site) as(group string) string {
	s.t.Helper()
	u, err := url.Parse(s.store)
	if err != nil {
		s.t.Fatal(err)
	}
	// Roles belong to the whole server, so the name is one that no other test has.
	user := group + "_of_" + strings.Trim(u.Path, "/")
	testenv.Exec(s.t, s.store, `create role "`+user+`" login in role `+group)
	s.t.Cleanup(func() { testenv.Exec(s.t, s.store, `drop owned by "`+user+`"; drop role "`+user+`"`) })
	u.User = url.User(user)
	return u.String()
}
