package deliveries

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// While a stopping daemon waits for one receiver, another daemon sends to all other endpoints.
func TestDrainingReleasesEndpoints(t *testing.T) {
	t.Parallel()
	const others = 12
	s := harness.NewSite(t, harness.SampleSchema).With("DELIVERY_TIMEOUT", "60s").Attach()
	daemons := []*harness.Daemon{s.Start().Ready(), s.Start().Ready()}
	answer := make(chan struct{})
	answered := false
	end := func() {
		if !answered {
			close(answer)
		}
		answered = true
	}
	t.Cleanup(end)
	s.Receiver.Respond("/hang", func(testenv.Request) testenv.Reply {
		<-answer
		return testenv.Reply{}
	})
	s.Hook("/hang", "created", "assessment_id", "'2'")
	for i := range others {
		s.Hook(fmt.Sprintf("/%d", i), "created")
	}
	testenv.Eventually(t, harness.Patience, "both daemons to own endpoints", func() (bool, string) {
		got := testenv.Psql(t, s.Store, "select coalesce(owner::text, 'none'), count(*) from walhook.endpoint group by 1 order by 1")
		return strings.Count(got, "\n") == 1 && !strings.Contains(got, "none"), got
	})
	s.Exec("insert into respondent (id, assessment_id) values (1, 2)")
	s.WaitRequests("/hang", 1)
	name := testenv.Psql(t, s.Store, "select d.name from walhook.endpoint e join walhook.daemon d on d.id = e.owner where e.url like '%/hang'")
	stopping := daemons[0]
	if strings.HasSuffix(name, fmt.Sprint(daemons[1].Cmd.Process.Pid)) {
		stopping = daemons[1]
	}
	if owned := testenv.Value[int64](t, s.Store, "select count(*) from walhook.endpoint e join walhook.daemon d on d.id = e.owner where d.name = $1", name); owned < 2 {
		t.Fatalf("daemon %s owns only %d endpoints; the test needs more", name, owned)
	}
	if err := stopping.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, harness.Patience, "the daemon to stop", func() (bool, string) {
		status, body := stopping.Get("/readyz")
		return status != 200, body
	})
	s.Exec("insert into respondent (id, assessment_id) values (2, 1)")
	for i := range others {
		s.WaitRequests(fmt.Sprintf("/%d", i), 1)
	}
	select {
	case <-stopping.Exited:
		t.Error("the daemon did not wait for the in-flight attempt")
	default:
	}
	// It keeps the endpoint with the in-flight attempt, and records its result.
	if got := testenv.Psql(t, s.Store, "select d.name from walhook.endpoint e join walhook.daemon d on d.id = e.owner where e.url like '%/hang'"); got != name {
		t.Errorf("the endpoint with an in-flight attempt belongs to %q, not to %s", got, name)
	}
	end()
	if status := stopping.Wait(); status != 0 {
		t.Errorf("the clean stop exited with status %d", status)
	}
	s.Fence()
	if got := len(s.Receiver.Bodies("/hang")); got != 1 {
		t.Errorf("the slow receiver got %d requests", got)
	}
}
