package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"walhook/testenv"
)

// While a daemon that is being stopped waits for one receiver, another daemon sends to all other endpoints.
func TestDrainingReleasesEndpoints(t *testing.T) {
	t.Parallel()
	const others = 12
	s := newSite(t, sampleSchema).with("DELIVERY_TIMEOUT", "60s").attach()
	daemons := []*daemon{s.start().ready(), s.start().ready()}
	answer := make(chan struct{})
	answered := false
	end := func() {
		if !answered {
			close(answer)
		}
		answered = true
	}
	t.Cleanup(end)
	s.receiver.Respond("/hang", func(testenv.Request) testenv.Reply {
		<-answer
		return testenv.Reply{}
	})
	s.hook("/hang", "created", "assessment_id", "'2'")
	for i := range others {
		s.hook(fmt.Sprintf("/%d", i), "created")
	}
	testenv.Eventually(t, patience, "both daemons to own endpoints", func() (bool, string) {
		got := testenv.Psql(t, s.store, "select coalesce(owner::text, 'none'), count(*) from walhook.endpoint group by 1 order by 1")
		return strings.Count(got, "\n") == 1 && !strings.Contains(got, "none"), got
	})
	s.exec("insert into respondent (id, assessment_id) values (1, 2)")
	s.waitRequests("/hang", 1)
	name := testenv.Psql(t, s.store, "select d.name from walhook.endpoint e join walhook.daemon d on d.id = e.owner where e.url like '%/hang'")
	stopping := daemons[0]
	if strings.HasSuffix(name, fmt.Sprint(daemons[1].cmd.Process.Pid)) {
		stopping = daemons[1]
	}
	if owned := testenv.Value[int64](t, s.store, "select count(*) from walhook.endpoint e join walhook.daemon d on d.id = e.owner where d.name = $1", name); owned < 2 {
		t.Fatalf("daemon %s owns %d endpoints: the test needs more", name, owned)
	}
	if err := stopping.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, patience, "the daemon to stop", func() (bool, string) {
		status, body := stopping.get("/readyz")
		return status != 200, body
	})
	s.exec("insert into respondent (id, assessment_id) values (2, 1)")
	for i := range others {
		s.waitRequests(fmt.Sprintf("/%d", i), 1)
	}
	select {
	case <-stopping.exited:
		t.Error("the daemon did not wait for the attempt in flight")
	default:
	}
	// What is in flight stays its own, and its result is recorded.
	if got := testenv.Psql(t, s.store, "select d.name from walhook.endpoint e join walhook.daemon d on d.id = e.owner where e.url like '%/hang'"); got != name {
		t.Errorf("the endpoint with an attempt in flight belongs to %q, not to %s", got, name)
	}
	end()
	if status := stopping.wait(); status != 0 {
		t.Errorf("the clean stop ended with status %d", status)
	}
	s.fence()
	if got := len(s.receiver.Bodies("/hang")); got != 1 {
		t.Errorf("%d requests at the receiver that was slow to answer", got)
	}
}
