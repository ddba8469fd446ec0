package setup

import (
	"strings"
	"testing"

	"walhook/cdc/catalog"
	"walhook/testenv"
)

// Errors of prepared statements that a pooler causes are attributed to the pooler.
func TestRemedyTellsOfAPooler(t *testing.T) {
	t.Parallel()
	conn := testenv.Connect(t, testenv.Database(t, testenv.Postgres(t), ""))
	for statement, pooler := range map[string]bool{
		"prepare twice as select 1; prepare twice as select 1": true, // SQLSTATE 42P05
		"execute nowhere":      true, // SQLSTATE 26000
		"select * from nobody": false,
	} {
		_, err := conn.PgConn().Exec(t.Context(), statement).ReadAll()
		if err == nil {
			t.Fatalf("%s does not fail", statement)
		}
		if got := remedyFor(err, "something else"); strings.Contains(got, "PgBouncer") != pooler {
			t.Errorf("%s: %s", err, got)
		}
	}
}

// A role that does not own the publication cannot detach, and is not advised to.
func TestDetachIsAdvisedToWhoCan(t *testing.T) {
	t.Parallel()
	for want, publication := range map[string]*catalog.Publication{
		"the daemons, walhook detach, change":                                       {Owner: true},
		`the daemons, walhook detach as the owner of publication "walhook", change`: {Owner: false},
	} {
		e := &examiner{cfg: ExamineConfig{Target: catalog.Target{Publication: "walhook"}}}
		e.preflight, e.findings = &catalog.Preflight{Publication: publication}, []catalog.Finding{{NotFound: true}}
		e.adviseRename()
		if got := e.findings[0].Remedy; !strings.Contains(got, want) {
			t.Errorf("the remedy is %q, which lacks %q", got, want)
		}
	}
}
