package cli

import (
	"fmt"
	"strings"
)

// setting documents a variable; the prefix WALHOOK_ is left out.
type setting struct{ Name, fallback, meaning string }

// Variables are all variables, in the order in which they are documented. A test holds them against Config.
var Variables = []setting{
	{"DATABASE_URL", "required", "the application's database; also used for the replication connection"},
	{"STORE_URL", "`DATABASE_URL`", "the database that holds the schema `walhook`; may be another server"},
	{"SLOT", "`walhook`", "name of the replication slot"},
	{"PUBLICATION", "`walhook`", "name of the publication"},
	{"PUBLISH", "`all`", "`all`: no column list; the daemon receives whole rows and discards unmapped columns. `mapped`: the publication lists the mapped columns (PostgreSQL 15 and later), so that nothing else leaves the database, and PostgreSQL refuses to drop or retype a listed column, and refuses updates if the table gets `REPLICA IDENTITY FULL`"},
	{"RESPONDENT_TABLE", "`public.respondent`", "plain or partitioned table, exactly as the catalog spells it"},
	{"RESPONDENT_ID", "`id`", "its primary key column"},
	{"RESPONDENT_ASSESSMENT", "`assessment_id`", "column with the assessment"},
	{"RESPONDENT_ORGANIZATION", "none", "column with the organization. If it is NULL, the response has that of its assessment"},
	{"RESPONDENT_WHERE", "every row", "[condition](conditions.md): which rows are responses. A row that begins to meet it is created then; one that ceases to is forgotten, as if it were deleted"},
	{"STARTED", "`started_at`", "marker, a [condition](conditions.md): `column`, `column=a|b`, or an expression such as `state in ('done','closed') and submitted > started`"},
	{"FINISHED", "`finished_at`", "marker"},
	{"FINISH_STAMP", "the finished marker, if it is a column alone", "column that tells one finish from the next, or several separated by commas"},
	{"ASSESSMENT_TABLE", "none", "tailed too, for external ids, copies, organizations and names"},
	{"ASSESSMENT_ID", "`id`", "its primary key column"},
	{"ASSESSMENT_EXTERNAL_ID", "`external_id`", "column with the external id"},
	{"ASSESSMENT_COPIED_FROM", "none", "column naming the assessment that this one was copied from"},
	{"ASSESSMENT_ORGANIZATION", "none", "column naming the assessment's organization, which its responses have unless they have one of their own"},
	{"ASSESSMENT_NAME", "none", "column with the assessment's name, shown to administrators beside its id"},
	{"AUTO_ATTACH", "`false`", "`run` attaches first when nothing is attached, and upgrades the schema of an older version"},
	{"LISTEN", "`127.0.0.1:9464`", "address of `/healthz`, `/readyz` and `/metrics`"},
	{"DELIVERY_TIMEOUT", "`15s`", "one attempt, connect to last byte"},
	{"CONCURRENCY", "`64`", "attempts in flight in one process"},
	{"ENDPOINT_CONCURRENCY", "`8`", "attempts in flight to one URL"},
	{"RETRY_BASE", "`5s`", "wait after the first failed attempt; it doubles with each, with jitter"},
	{"RETRY_CAP", "`12h`", "longest wait between attempts"},
	{"MAX_ATTEMPTS", "`16`", "attempts before a delivery fails for good: about a day and a half with the defaults"},
	{"DISABLE_AFTER", "`120h`", "a webhook whose every attempt failed for this long is disabled; `0`: never"},
	{"ALLOW_NETWORKS", "none", "CIDRs that deliveries may reach although they are private, loopback or link-local"},
	{"CA_FILE", "none", "PEM file of certificate authorities to trust besides the system's"},
	{"RETENTION", "`0`: for ever", "age at which log entries are dropped; `90d` and `2w` are accepted beside Go's units, everywhere a duration is"},
	{"MAX_SLOT_LAG", "`0`: no limit", "WAL that the slot may retain, such as `10GB`. The daemon warns from four fifths of it on; beyond it, the daemon drops the slot, creates a new one and compares the table"},
	{"CONSOLE_LISTEN", "`127.0.0.1:8464`", "address of `walhook console`"},
	{"CONSOLE_URL", "`http://` and the address", "the console's public address, for links, `Location` and OpenID Connect. With `https://`, cookies are sent only over TLS"},
	{"CONSOLE_LOGIN", "`database`", "who may enter the console: `database` (a PostgreSQL role of the store and its password), `oidc` (OpenID Connect) or `proxy` (headers of a reverse proxy)"},
	{"OIDC_ISSUER", "none", "address of the OpenID Connect provider, for `oidc`"},
	{"OIDC_CLIENT_ID", "none", "client ID of the console at the provider"},
	{"OIDC_CLIENT_SECRET", "none", "client secret of the console at the provider"},
	{"OIDC_GROUPS_CLAIM", "`groups`", "claim that lists a person's groups"},
	{"PROXY_NETWORKS", "none", "CIDRs from which the two headers below are trusted, for `proxy`"},
	{"PROXY_USER_HEADER", "`X-Forwarded-User`", "header that names the person"},
	{"PROXY_GROUPS_HEADER", "`X-Forwarded-Groups`", "header that lists the person's groups, separated by commas"},
	{"ADMIN_GROUPS", "none", "groups whose members are administrators, separated by commas, for `oidc` and `proxy`"},
	{"VIEWER_GROUPS", "none", "groups whose members are viewers, separated by commas, for `oidc` and `proxy`"},
	{"LOG_LEVEL", "`info`", "`debug`, `info`, `warn` or `error`"},
	{"LOG_FORMAT", "`text`", "`text`, or `json` for machines"},
}

// EnvironmentTable is the table of docs/reference/environment.md.
func EnvironmentTable() string {
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n| --- | --- | --- |\n")
	for _, v := range Variables {
		fmt.Fprintf(&b, "| `WALHOOK_%s` | %s | %s |\n", v.Name, v.fallback, strings.ReplaceAll(v.meaning, "|", `\|`))
	}
	return b.String()
}

// environmentHelp is the text of `walhook help environment`.
func environmentHelp() string {
	var b strings.Builder
	b.WriteString("walhook is configured by these variables. A bad value is one line on stderr, and exit status 2.\n\n")
	for _, v := range Variables {
		fmt.Fprintf(&b, "  WALHOOK_%s (%s)\n      %s\n", v.Name, strings.ReplaceAll(v.fallback, "`", ""), wrap(strings.ReplaceAll(v.meaning, "`", ""), 100, "      "))
	}
	return strings.TrimRight(b.String(), "\n")
}

// wrap breaks text into lines of at most width characters.
func wrap(text string, width int, indent string) string {
	var b strings.Builder
	line := 0
	for i, word := range strings.Fields(text) {
		if i > 0 {
			if line+1+len(word) > width {
				b.WriteString("\n" + indent)
				line = 0
			} else {
				b.WriteByte(' ')
				line++
			}
		}
		b.WriteString(word)
		line += len(word)
	}
	return b.String()
}
