package main

import (
	"testing"

	"walhook/testenv"
)

// What a receiver answers is recorded whatever the store's encoding: letters that it may lack become question marks.
func TestReplyThatTheStoreHasNoLettersFor(t *testing.T) {
	t.Parallel()
	s := newSite(t, sampleSchema).with("MAX_ATTEMPTS", "1")
	s.store = testenv.EncodedDatabase(t, testenv.Postgres(t), "LATIN1", "")
	s.with("STORE_URL", s.store)
	s.receiver.Respond("/hook", testenv.Always(testenv.Reply{Status: 500, Body: "日本 says no"}))
	s.run()
	s.hook("/hook", "created")
	s.exec("insert into respondent (id, assessment_id) values (1, 1)")
	testenv.Eventually(t, patience, "the failure in the log", func() (bool, string) {
		got := testenv.Psql(t, s.store, "select status, error ~ '[?]{2} says no' from walhook.delivery_log")
		return got == "failed|t", got
	})
}
