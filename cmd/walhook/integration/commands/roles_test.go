package commands

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// The rights of the group roles, tested through psql as their members.
func TestRoles(t *testing.T) {
	t.Parallel()
	server := testenv.NewServer(t, nil) // roles belong to the whole server
	s := harness.NewSiteOn(t, server, harness.SampleSchema)
	s.Run()
	hook := s.Hook("/very-secret", "created", "secret", "'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD'")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.Fence()
	delivery := testenv.Value[int64](t, s.Store, "select delivery_id from walhook.delivery_log")
	s.Exec(`create role ann login in role walhook_admin; create role vic login in role walhook_viewer; create role bob login`)
	as := func(user string) string {
		u, err := url.Parse(s.Store)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.User(user)
		return u.String()
	}
	may := func(user string, statements ...string) {
		t.Helper()
		for _, statement := range statements {
			if out, err := testenv.TryPsql(t, as(user), statement); err != nil {
				t.Errorf("%s may not: %s\n%s", user, statement, out)
			}
		}
	}
	mayNot := func(user string, statements ...string) {
		t.Helper()
		for _, statement := range statements {
			if out, err := testenv.TryPsql(t, as(user), statement); err == nil || !strings.Contains(out, "permission denied") {
				t.Errorf("%s may: %s\n%s", user, statement, out)
			}
		}
	}
	views := []string{"select * from walhook.delivery_log", "select * from walhook.delivery_attempt", "select * from walhook.incident", "select * from walhook.settings"}
	insert := "insert into walhook.webhook (url, event_type) values ('https://example.com/', 'response.created')"
	change := []string{
		insert, "update walhook.webhook set description = 'x'", "delete from walhook.webhook where description = 'none'",
		"update walhook.settings set time_zone = 'UTC'",
	}
	calls := []string{
		fmt.Sprintf("select walhook.test_webhook(%d)", hook), fmt.Sprintf("select walhook.redeliver(%d)", delivery),
		fmt.Sprintf("select walhook.redeliver_failed(%d, now())", hook), fmt.Sprintf("select walhook.retry_now(%d)", hook), "select walhook.copy_webhooks('1', '2')",
	}
	internal := []string{
		"select * from walhook.queue", "select * from walhook.log", "select * from walhook.endpoint", "select * from walhook.response_state",
		"delete from walhook.position", "update walhook.attachment set slot = 'x'", "insert into walhook.incident_log (kind, detail) values ('x', 'x')",
		"select walhook.drop_partitions('1 s')", "select walhook.bury(1)",
		"select walhook.advance(1, '0/1', null, 0)", "create table walhook.mine (x int)",
	}
	secrets := []string{"select url from walhook.webhook", "select secret from walhook.webhook", "select * from walhook.webhook"}

	may("ann", views...)
	may("ann", secrets...)
	may("ann", change...)
	may("ann", calls...)
	may("ann", "update walhook.webhook set enabled = false", "update walhook.webhook set enabled = true", "delete from walhook.webhook where description is null")
	mayNot("ann", internal...)

	may("vic", views...)
	may("vic", "select id, assessment_id, event_type, organization_id, enabled, description, disabled_reason from walhook.webhook", "select * from walhook.webhook_overview")
	mayNot("vic", secrets...)
	mayNot("vic", change...)
	mayNot("vic", calls...)
	mayNot("vic", internal...)
	for _, view := range append(views, "select * from walhook.webhook_overview") {
		if out := testenv.Psql(t, as("vic"), view); strings.Contains(out, "very-secret") || strings.Contains(out, "whsec_") {
			t.Errorf("a viewer sees a secret in %s:\n%s", view, out)
		}
	}

	mayNot("bob", views...)
	mayNot("bob", secrets...)
	mayNot("bob", change...)
	mayNot("bob", calls...)
	mayNot("bob", internal...)
	mayNot("bob", "select * from walhook.webhook_overview")
	// Any role of the application may silence its own transaction, because any role may have to repair rows.
	may("bob", "select walhook.silence()")
}
