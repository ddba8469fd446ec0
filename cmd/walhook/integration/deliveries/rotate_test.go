package deliveries

import (
	"net/http"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// During a rotation a receiver may use the old or the new secret; afterwards only the new one.
func TestRotateSecret(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	s.Run()
	s.Hook("/hook", "created")
	admin := s.As("walhook_admin")
	sent := 0
	verify := func(when string, secrets map[string]bool) {
		t.Helper()
		sent++
		s.Exec("insert into respondent (id, assessment_id) values ($1, 1)", sent)
		s.Receiver.Wait(t, sent, harness.Patience)
		request := s.Receiver.Requests()[sent-1]
		for secret, want := range secrets {
			wh, err := standardwebhooks.NewWebhook(strings.TrimSpace(secret))
			if err != nil {
				t.Fatal(err)
			}
			header := http.Header{}
			for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
				header.Set(name, request.Header.Get(name))
			}
			if err := wh.Verify([]byte(request.Body), header); (err == nil) != want {
				t.Errorf("%s: verification by a receiver with one of the secrets: %v; should succeed: %v\n%s", when, err, want, header)
			}
		}
	}
	// The daemon reloads a webhook within moments.
	const rotate = "select walhook.rotate_secret((select id from walhook.webhook)"
	first := testenv.Psql(t, admin, rotate+")")
	s.WaitHeartbeat()
	verify("a first secret", map[string]bool{first: true})
	if got := testenv.Psql(t, admin, "select previous_secret is null and previous_secret_until is null from walhook.webhook"); got != "t" {
		t.Error("a webhook without a secret has a previous one")
	}

	second := testenv.Psql(t, admin, rotate+", '1 hour')")
	s.WaitHeartbeat()
	verify("during the rotation", map[string]bool{first: true, second: true})
	if got := testenv.Psql(t, admin, "select secret = '"+second+"', previous_secret = '"+first+"' from walhook.webhook"); got != "t|t" {
		t.Errorf("the webhook has %s", got)
	}

	// The rotation ends on its own.
	testenv.Psql(t, admin, "update walhook.webhook set previous_secret_until = now() + interval '1 second'")
	s.WaitHeartbeat()
	verify("after the rotation", map[string]bool{first: false, second: true})

	third := testenv.Psql(t, admin, rotate+", '0')")
	s.WaitHeartbeat()
	verify("rotated at once", map[string]bool{first: false, second: false, third: true})

	for statement, message := range map[string]string{
		"select walhook.rotate_secret(987654)":                              "there is no webhook 987654",
		rotate + ", '-1 hour')":                                             "cannot be kept for",
		"update walhook.webhook set previous_secret = walhook.new_secret()": "belong together",
		"update walhook.webhook set previous_secret = 'x', previous_secret_until = now() + interval '1 h'": "a signing secret must be",
	} {
		if out, err := testenv.TryPsql(t, admin, statement); err == nil || !strings.Contains(out, message) || !strings.Contains(out, "HINT:") || strings.Contains(out, third) {
			t.Errorf("%s: %v\n%s", statement, err, out)
		}
	}
}
