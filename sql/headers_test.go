package sql

import (
	"fmt"
	"strings"
	"testing"

	"walhook/testenv"
)

// Headers that HTTP, Standard Webhooks or walhook own, and those that cannot be sent, are refused in a sentence that repeats none of them.
func TestHeadersOfAWebhook(t *testing.T) {
	t.Parallel()
	database := installed(t)
	admin := as(t, database, "walhook_admin")
	object := func(n int) string {
		var pairs []string
		for i := range n {
			pairs = append(pairs, fmt.Sprintf(`"X-%d": "hunter2"`, i))
		}
		return "{" + strings.Join(pairs, ", ") + "}"
	}
	const insert = "insert into walhook.webhook (url, event_type, headers) values ('https://example.com/hunter2', 'response.created', $$%s$$)"
	for headers, message := range map[string]string{
		`[]`:                             "must be a JSON object",
		`"hunter2"`:                      "must be a JSON object",
		`{"X hunter2": "1"}`:             "must have names of letters",
		`{"": "hunter2"}`:                "must have names of letters",
		`{"X-Ünter": "hunter2"}`:         "must have names of letters",
		`{"X:hunter2": "1"}`:             "must have names of letters",
		`{"X-A": 1}`:                     "must have a text",
		`{"X-A": null}`:                  "must have a text",
		`{"X-A": ["hunter2"]}`:           "must have a text",
		`{"X-A": "hunter2\r\nX: 1"}`:     "must not have a control character",
		`{"X-A": "hunter2\t"}`:           "must not have a control character",
		`{"X-A": "hunter2\u007f"}`:       "must not have a control character",
		`{"X-A": "hunter2\u0085"}`:       "must not have a control character",
		`{"X-A": "1", "x-a": "hunter2"}`: "must have each name once",
		object(21):                       "must have at most 20 names",
		`{"X-A": "` + strings.Repeat("x", 4094) + `"}`: "must have at most 4 kB",
		`{"X-A": "` + strings.Repeat("ü", 2047) + `"}`: "must have at most 4 kB",
		`{"Host": "hunter2"}`:                          "must not set host",
		`{"CONTENT-TYPE": "hunter2"}`:                  "must not set content-*",
		`{"content-hunter2": "1"}`:                     "must not set content-*",
		`{"Transfer-Encoding": "chunked"}`:             "must not set transfer-encoding",
		`{"Connection": "close"}`:                      "must not set connection",
		`{"User-Agent": "hunter2"}`:                    "must not set user-agent",
		`{"Webhook-Id": "hunter2"}`:                    "must not set webhook-*",
		`{"walhook-hunter2": "1"}`:                     "must not set walhook-*",
		`{"Expect": "100-continue"}`:                   "must not set expect",
	} {
		refused(t, admin, refusal{fmt.Sprintf(insert, headers), "webhook.headers " + message})
	}
	for _, headers := range []string{
		`{}`, `null`, object(20), `{"Authorization": "Bearer hunter2", "X-Empty": "", "!#$%&'*+.^_|~": "ü"}`, `{"X-A": "` + strings.Repeat("x", 4093) + `"}`,
		`{"Hosts": "1", "X-Content-Type": "1", "tea": "1"}`,
	} {
		if out, err := testenv.TryPsql(t, admin, fmt.Sprintf(insert, headers)); err != nil {
			t.Errorf("%s is refused: %s", headers, out)
		}
	}
	refused(t, admin, refusal{`update walhook.webhook set headers = '{"Host": "hunter2"}'`, "must not set host"})
	if got := testenv.Psql(t, admin, "select count(*) filter (where headers is null), count(*) from walhook.webhook"); got != "1|6" {
		t.Errorf("webhooks without headers, and all of them: %s", got)
	}
	// Copies have them, too.
	testenv.Psql(t, admin, `update walhook.webhook set assessment_id = '1' where headers ? 'Authorization'; select walhook.copy_webhooks('1', '2')`)
	if got := testenv.Psql(t, admin, "select count(*) from walhook.webhook where headers ->> 'Authorization' = 'Bearer hunter2'"); got != "2" {
		t.Errorf("webhooks with the header after copying: %s", got)
	}
}
