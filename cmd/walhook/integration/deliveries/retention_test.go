package deliveries

import (
	"fmt"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A short retention works from the first day: the log drops old entries, and accepts new ones.
func TestShortRetention(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("RETENTION", "10s", "MAX_ATTEMPTS", "1")
	s.Run()
	s.Hook("/hook", "created")
	s.Receiver.Respond("/hook", harness.Once(500, ""))
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	s.WaitLog("select count(*) from walhook.delivery_log", "1")
	testenv.Eventually(t, 4*harness.Patience, "the log to forget", func() (bool, string) {
		n := testenv.Value[int64](t, s.Store, "select (select count(*) from walhook.delivery_log) + (select count(*) from walhook.delivery_attempt)")
		return n == 0, fmt.Sprintf("%d entries", n)
	})
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	s.WaitLog("select response_id, status from walhook.delivery_log", "2|success")
	if got := testenv.Psql(t, s.Store, "select detail from walhook.incident where kind = 'retention'"); got != "" {
		t.Errorf("an incident without a cause: %s", got)
	}
}
