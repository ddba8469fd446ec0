package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"walhook/testenv"
)

var (
	recipeHeading = regexp.MustCompile(`(?m)^## [0-9]+\. (.*)$`)
	recipeBlock   = regexp.MustCompile("(?ms)^```sql\n(.*?)^```$")
)

// Every recipe for administrators runs as it is written, as a member of walhook_admin alone, beside a live daemon, and does
// what the page says.
func TestAdministrationRecipes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/administration.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newSiteOn(t, testenv.NewServer(t, nil), sampleSchema).with("RESPONDENT_ORGANIZATION", "organization_id", "MAX_ATTEMPTS", "1")
	s.run()
	s.receiver.Respond("/hooks/acme", testenv.Always(testenv.Reply{Status: 500}))
	admin := s.as("walhook_admin")
	said := map[string]string{}
	headings := recipeHeading.FindAllStringSubmatchIndex(string(text), -1)
	for i, at := range headings {
		end := len(text)
		if i+1 < len(headings) {
			end = headings[i+1][0]
		}
		title := string(text[at[2]:at[3]])
		user := admin
		switch title {
		case "Test a webhook": // by now there is somebody to test with
			s.exec("insert into respondent (id, assessment_id, organization_id, started_at, finished_at) values (1, 17, 42, now(), now())")
			s.fence()
		case "A repair that fires nothing", "Who may do what": // the page says whose these are
			user = s.db
		}
		blocks := recipeBlock.FindAllStringSubmatch(string(text[at[1]:end]), -1)
		if len(blocks) == 0 {
			t.Errorf("the recipe %q has no SQL", title)
		}
		for _, block := range blocks {
			out, err := testenv.TryPsql(t, user, strings.ReplaceAll(block[1], "https://example.com", s.receiver.URL("")))
			if err != nil {
				t.Fatalf("the recipe %q fails:\n%s\n%s", title, block[1], out)
			}
			said[title] += out + "\n"
			s.fence()
		}
	}
	for title, want := range map[string]string{
		"Send the completions of one assessment somewhere": `^1\|whsec_`,
		"Test a webhook":                         `^\d+\n\d+\n$`,
		"Why did it not arrive":                  `response\.completed\|yes\|1\|t\|delivered`,
		"What waits, and what went wrong":        `(?s)HTTP 500.*response\.started\|success\|1\|200`,
		"Send again":                             `^\d+\n0\n$`,
		"Stop a webhook, and go on":              `^\n\n$`, // none is disabled any more
		"Change the URL or the secret":           `^whsec_`,
		"Copy webhooks to another assessment":    `^1\n$`,
		"A repair that fires nothing":            `^\n+$`,
		"Settings, and what is worth logging":    `^\n$`,
		"Who may do what":                        `^\n$`,
		"Only the responses of one organization": `^\n$`,
	} {
		if got, ran := said[title]; !ran || !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("the recipe %q printed\n%s\nand should match %s", title, got, want)
		}
	}
	for query, want := range map[string]string{
		"select count(*) from walhook.delivery_log where test and status = 'success'":                                                               "2",
		"select count(*) from walhook.delivery_log where redelivery_of = 1 and status = 'success'":                                                  "1",
		"select count(*) from walhook.webhook where assessment_id = '18' and url like '%/hooks/new'":                                                "1",
		"select log_successes from walhook.webhook where id = 2":                                                                                    "f",
		"select enabled, time_zone from walhook.settings":                                                                                           "t|Europe/Berlin",
		"select string_agg(rolname, ' ' order by rolname) from pg_roles where pg_has_role(rolname, 'walhook_viewer', 'member') and rolname = 'vic'": "vic",
	} {
		if got := testenv.Psql(t, s.store, query); got != want {
			t.Errorf("after the recipes %s is %s, not %s", query, got, want)
		}
	}
}
