package commands

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"walhook/cdc"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// releasedApplication is the application's schema for the released stores.
const releasedApplication = harness.SampleSchema + `
insert into respondent (id, assessment_id, organization_id, started_at, finished_at) values
  (1, 1, '7', '2026-01-02 03:04:05+00', '2026-02-03 04:05:06+00'), (2, 1, null, '2026-01-02 03:04:05+00', '2026-01-03 04:05:06+00'),
  (3, 2, null, '2026-02-03 04:05:06+00', null), (4, 1, null, '2026-02-03 04:05:06+00', null);`

// An older walhook's store is refused until attach has upgraded it. Then the log reads as before, pending deliveries
// are sent with the same ids, and new events are sent as well.
func TestReleasedStoreGoesOn(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../../../sql/testdata/released/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("there is no released store: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			server := testenv.Postgres(t)
			s := harness.NewSiteOn(t, server, releasedApplication).With("ASSESSMENT_TABLE", "public.assessment", "RESPONDENT_ORGANIZATION", "organization_id").WithStore(server)
			s.Attach()
			attached := testenv.Psql(t, s.Store, `select format('update walhook.attachment set phase = ''attached'', system_identifier = %L, database = %L, slot = %L, respondent_oid = %s,
				assessment_oid = %s, publication_rows = %L; update walhook.position set lsn = %L, partial_lsn = null, partial_changes = 0;
				update walhook.incident_log set resolved_at = now();', system_identifier, database, slot, respondent_oid, assessment_oid, publication_rows, (select lsn from walhook.position))
				from walhook.attachment`)
			// The store as the older walhook left it, but with this test's source.
			s.Store = testenv.Database(t, server, "")
			s.With("STORE_URL", s.Store)
			testenv.Psql(t, s.Store, string(text)+attached+`update walhook.webhook set url = replace(url, 'http://127.0.0.1:18999', '`+s.Receiver.URL("")+`')`)
			ended := "select delivery_id, webhook_id, delivered_at, response_id, event_type, status, attempts, http_status, error, test, recovered, message_id from walhook.delivery_log where status <> 'pending' order by 1"
			pending := "select delivery_id, message_id from walhook.delivery_log where delivery_id in (%s) order by 1"
			waiting := testenv.Psql(t, s.Store, "select string_agg(delivery_id::text, ', ') from walhook.queue")
			ended = strings.Replace(ended, "where", "where delivery_id <= "+testenv.Psql(t, s.Store, "select last_value from walhook.delivery_id")+" and delivery_id not in ("+waiting+") and", 1)
			log := testenv.Psql(t, s.Store, ended)
			ids := testenv.Psql(t, s.Store, fmt.Sprintf(pending, waiting))

			harness.MustFail(s, "run", "run `walhook attach` to upgrade it")
			if out, _, status := s.Walhook("plan"); status != 0 || !strings.Contains(out, "create table walhook.webhook_move") || strings.Contains(out, "create table walhook.queue") {
				t.Errorf("plan of an upgrade: status %d\n%s", status, out)
			}
			s.Attach()
			var key cdc.StampKey
			if err := key.UnmarshalText([]byte(testenv.Psql(t, s.Store, "select stamp_key from walhook.attachment"))); err != nil {
				t.Error(err)
			}
			value := cdc.NewStamp(cdc.Text{Value: "2026-02-03 04:05:06+00"}, cdc.ColumnType{OID: pgtype.TextOID, Modifier: -1}, &key).Stored.Value
			stamp := testenv.Psql(t, s.Store, "select stamp from walhook.response_state where response_id = '1'")
			if want := strings.Replace(value, "25:", "?:", 1); stamp != want {
				t.Errorf("the stamp of a finished response is %s, not %s", stamp, want)
			}
			d := s.Start().Ready()
			s.Exec("insert into respondent (id, assessment_id, started_at) values (60, 1, now())")
			s.Expect("/hook", "started 60")
			s.Fence()
			if diff := cmp.Diff(log, testenv.Psql(t, s.Store, ended)); diff != "" {
				t.Errorf("the log before and after the upgrade (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(ids, testenv.Psql(t, s.Store, fmt.Sprintf(pending, waiting))); diff != "" {
				t.Errorf("the ids of pending deliveries (-before +after):\n%s", diff)
			}
			if got := testenv.Psql(t, s.Store, "select count(*) from walhook.delivery_log where delivery_id in ("+waiting+") and status <> 'success'"); got != "0" {
				t.Errorf("%s pending deliveries did not arrive", got)
			}
			if incident := testenv.Psql(t, s.Store, "select * from walhook.incident where kind = 'reconcile' and at > now() - interval '1 minute'"); incident != "" {
				t.Errorf("the upgrade made a gap: %s", incident)
			}
			if out, errOut, status := s.Walhook("doctor"); status != 0 {
				t.Errorf("doctor after the upgrade: status %d\n%s%s", status, out, errOut)
			}
			d.Stop()
		})
	}
}
