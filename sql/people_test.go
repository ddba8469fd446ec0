package sql

import (
	"net/url"
	"strings"
	"testing"

	"walhook/testenv"
)

// as returns the URL of the database for a new login role that is a member of the group, or of none if it is empty.
func as(t *testing.T, database, group string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	// Roles belong to the whole server, so the name is one that no other test has.
	user := group + "_of_" + strings.Trim(u.Path, "/")
	testenv.Exec(t, database, `create role "`+user+`" login`)
	if group != "" {
		testenv.Exec(t, database, "grant "+group+` to "`+user+`"`)
	}
	t.Cleanup(func() {
		testenv.Exec(t, database, `drop owned by "`+user+`"; drop role "`+user+`"`)
	})
	u.User = url.User(user)
	return u.String()
}

// userOf returns the role that a URL names.
func userOf(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return u.User.Username()
}

// refusal is a statement that fails, and words of the error.
type refusal struct{ statement, message string }

// refused expects an error in words that help, and nothing of a row or a stack with it.
func refused(t *testing.T, database string, refusals ...refusal) {
	t.Helper()
	for _, r := range refusals {
		out, err := testenv.TryPsql(t, database, r.statement)
		if err == nil || !strings.Contains(out, r.message) || !strings.Contains(out, "HINT:") {
			t.Errorf("%s: %v, wanted %q and a hint:\n%s", r.statement, err, r.message, out)
		}
		if strings.Contains(out, "hunter2") || strings.Contains(out, "Failing row") {
			t.Errorf("%s: the refusal repeats a secret:\n%s", r.statement, out)
		}
	}
}
