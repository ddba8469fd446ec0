package main

import (
	"fmt"
	"testing"

	"walhook/testenv"
)

// A short retention holds from the first day: the log forgets what is older, and goes on taking what is new.
func TestShortRetention(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).with("RETENTION", "10s", "MAX_ATTEMPTS", "1")
	s.run()
	s.hook("/hook", "created")
	s.receiver.Respond("/hook", once(500, ""))
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.waitLog("select count(*) from walhook.delivery_log", "1")
	testenv.Eventually(t, 4*patience, "the log to forget", func() (bool, string) {
		n := testenv.Value[int64](t, s.store, "select (select count(*) from walhook.delivery_log) + (select count(*) from walhook.delivery_attempt)")
		return n == 0, fmt.Sprintf("%d entries", n)
	})
	s.exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.waitLog("select response_id, status from walhook.delivery_log", "2|success")
	if got := testenv.Psql(t, s.store, "select detail from walhook.incident where kind = 'retention'"); got != "" {
		t.Errorf("an incident without a cause: %s", got)
	}
}
