package deliveries

import (
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// A receiver's answer is recorded whatever the store's encoding: characters that it may lack become question marks.
func TestReplyThatTheStoreHasNoLettersFor(t *testing.T) {
	t.Parallel()
	s := harness.NewSite(t, harness.SampleSchema).With("MAX_ATTEMPTS", "1")
	s.Store = testenv.EncodedDatabase(t, testenv.Postgres(t), "LATIN1", "")
	s.With("STORE_URL", s.Store)
	s.Receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500, Body: "日本 says no"}))
	s.Run()
	s.Hook("/hook", "created")
	s.Exec("insert into respondent (id, assessment_id) values (1, 1)")
	testenv.Eventually(t, harness.Patience, "the failure in the log", func() (bool, string) {
		got := testenv.Psql(t, s.Store, "select status, error ~ '[?]{2} says no' from walhook.delivery_log")
		return got == "failed|t", got
	})
}
