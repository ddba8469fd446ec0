package deliveries

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A receiver that answers 410 has no use for its webhook: one that an API key created is deleted, and one that a person
// created is disabled. The log has the answer of both.
func TestGoneReceiver(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema)
	d := s.Run()
	s.Receiver.Respond("/gone", testenv.Always(testenv.Reply{Status: 410}))
	person := s.Hook("/gone", "started")
	key := testenv.Value[string](t, s.Store, "select walhook.create_api_key('Zapier')")
	testenv.Psql(t, s.Store, fmt.Sprintf(`begin; select * from walhook.use_api_key('%.12s', '\x%x');
		insert into walhook.webhook (assessment_id, url, event_type) values ('1', '%s', 'response.created'); commit`,
		key, sha256.Sum256([]byte(key)), s.Receiver.URL("/gone")))
	made := testenv.Value[int64](t, s.Store, "select id from walhook.webhook where api_key_id is not null")
	testenv.Exec(t, s.Store, "insert into walhook.queue (webhook_id, committed_at, attempts, last_attempt_at, next_attempt_at, event_type, response_id) values ($1, now(), 1, now(), now() + interval '1 hour', 1, '7')", made)

	s.Exec("insert into respondent (id, assessment_id, started_at) values (1, 1, now())")
	s.WaitLog("select id, enabled, disabled_reason from walhook.webhook", fmt.Sprintf("%d|f|the endpoint answered 410 Gone", person))
	s.WaitLog("select webhook_id, response_id, status, http_status, error from walhook.delivery_log order by webhook_id, response_id",
		fmt.Sprintf("%d|1|failed|410|HTTP 410 Gone\n%[2]d|1|failed|410|HTTP 410 Gone\n%[2]d|7|failed||the webhook was deleted", person, made))
	host := s.Receiver.URL("")
	s.WaitLog("select kind, detail, resolved_at is not null from walhook.incident where kind like 'webhook_%' order by kind",
		fmt.Sprintf("webhook_deleted|webhook %d to %s was deleted: the endpoint answered 410 Gone, and the API key Zapier had created it|t\n", made, host)+
			fmt.Sprintf("webhook_disabled|webhook %d to %s was disabled: the endpoint answered 410 Gone; its pending deliveries wait|t", person, host))
	s.WaitLog(fmt.Sprintf("select action, actor = session_user from walhook.change_log where object = 'webhook' and object_id = %d order by change_id", made),
		"insert|f\nupdate|t\ndelete|t")

	// One that a daemon has disabled, and could not delete, is deleted by the next.
	d.Stop()
	testenv.Psql(t, s.Store, fmt.Sprintf(`insert into walhook.webhook (url, event_type, api_key_id, enabled, disabled_reason)
		select url, event_type, 1, enabled, disabled_reason from walhook.webhook where id = %d`, person))
	s.Start()
	s.WaitLog("select id from walhook.webhook", fmt.Sprint(person))
}
