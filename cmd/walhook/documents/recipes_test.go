package documents

import (
	"regexp"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

var recipeNumber = regexp.MustCompile(`^[0-9]+\. `)

// Every recipe for administrators runs as written, as a member of only walhook_admin, beside a running daemon, and does
// what the page says.
func TestAdministrationRecipes(t *testing.T) {
	t.Parallel()
	p := openPage(t, "../../../docs/how-to/webhooks.md")
	s := harness.NewSiteOn(t, testenv.NewServer(t, nil), harness.SampleSchema).With("RESPONDENT_ORGANIZATION", "organization_id", "MAX_ATTEMPTS", "1")
	s.Run()
	s.Receiver.Respond("/hooks/acme", testenv.Always(testenv.Reply{Status: 500}))
	admin := s.As("walhook_admin")
	said := map[string]string{}
	for _, section := range p.sections() {
		title := recipeNumber.ReplaceAllString(section, "")
		user := admin
		switch title {
		case "Test a webhook": // needs a response
			s.Exec("insert into respondent (id, assessment_id, organization_id, started_at, finished_at) values (1, 17, 42, now(), now())")
			s.Fence()
		case "Repair rows without firing", "Give people rights": // these need other roles, as the page says
			user = s.DB
		}
		for _, block := range p.in(section) {
			out, err := testenv.TryPsql(t, user, strings.ReplaceAll(block.code, "https://example.com", s.Receiver.URL("")))
			if err != nil {
				t.Fatalf("the recipe %q fails:\n%s\n%s", title, block.code, out)
			}
			said[title] += out + "\n"
			s.Fence()
		}
	}
	for title, want := range map[string]string{
		"Send the completions of one assessment somewhere": `^1\|whsec_`,
		"Test a webhook":                            `^\d+\n\d+\n$`,
		"Find out why something did not arrive":     `response\.completed\|yes\|1\|t\|delivered`,
		"See what is pending and what failed":       `(?s)HTTP 500.*response\.started\|success\|1\|200`,
		"Send again":                                `^\d+\n0\n0\n$`,
		"Disable and enable a webhook":              `(?s)^NOTICE:  webhooks disabled: 1;.*\n\n$`, // and then enabled, so the list is empty
		"Change the URL, the secret or the headers": `^whsec_\S+\n(\d+\|whsec_\S+\n){4}$`,
		"See who changed what":                      `\|walhook_admin_of_\w+\|update\|settings\|\|`,
		"Create and revoke API keys":                `(?s)^whk_[0-9a-f]{64}\n.*1\|Zapier\|whk_[0-9a-f]{8}\|42\|webhooks\|\n`,
		"Copy webhooks to another assessment":       `^1\n$`,
		"Repair rows without firing":                `^\n+$`,
		"Change settings":                           `(?s)^NOTICE:  webhooks are switched off;.*never sent\.\n$`,
		"Give people rights":                        `^\n$`,
		"Only the responses of one organization":    `^\n$`,
	} {
		if got, ran := said[title]; !ran || !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("the recipe %q printed\n%s\nwhich does not match %s", title, got, want)
		}
	}
	for query, want := range map[string]string{
		"select count(*) from walhook.delivery_log where test and status = 'success'":                "2",
		"select count(*) from walhook.delivery_log where redelivery_of = 1 and status = 'success'":   "1",
		"select count(*) from walhook.webhook where assessment_id = '18' and url like '%/hooks/new'": "1",
		`select count(*), count(distinct secret), count(distinct previous_secret), count(*) filter (where secret = previous_secret)
		   from walhook.webhook where url like '%/hooks/all'`: "4|1|1|0",
		"select log_successes from walhook.webhook where id = 2": "f",
		// Local times, each with the same time as timestamptz beside it.
		`select string_agg(distinct table_name, ' ' order by table_name) from information_schema.columns
		  where table_schema = 'walhook' and data_type = 'timestamp without time zone'`: "delivery_attempt delivery_log delivery_request endpoint_health pending visible_delivery webhook_health",
		`select count(*) from information_schema.columns where table_schema = 'walhook' and data_type = 'timestamp with time zone'
		    and table_name in ('delivery_attempt', 'delivery_log', 'delivery_request', 'endpoint_health', 'pending', 'webhook_health') and column_name not like '%\_tz'`: "0",
		"select pg_get_function_result('walhook.explain(text)'::regprocedure) like '% next_attempt_at timestamp without time zone%'": "t",
		"select enabled, time_zone from walhook.settings": "t|Europe/Berlin",
		"select string_agg(rolname, ' ' order by rolname) from pg_roles where pg_has_role(rolname, 'walhook_viewer', 'member') and rolname = 'vic'": "vic",
	} {
		if got := testenv.Psql(t, s.Store, query); got != want {
			t.Errorf("after the recipes %s is %s, not %s", query, got, want)
		}
	}
}
