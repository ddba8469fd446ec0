package chaos

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

var (
	chaosRounds = flag.Int("chaos.rounds", 12, "rounds of TestChaos: in each something is killed, cut or stalled")
	chaosPace   = flag.Duration("chaos.pace", 20*time.Millisecond, "time from one transaction of a client in TestChaos to its next")
	chaosSeed   = flag.Uint64("chaos.seed", 0, "seed of TestChaos; 0: another each time")
)

// chaosPatience bounds the wait until everything is delivered after faults, with a receiver that fails sometimes.
const chaosPatience = 3 * time.Minute

// chaos is an installation of two daemons, source and store on separate servers, and wires between them.
type chaos struct {
	*harness.Site
	rand          *rand.Rand
	source, queue *pgserver.Server
	toSource      *testenv.Wire
	toStore       *testenv.Wire
	daemons       [2]*harness.Daemon
	load          *chaosLoad
	promotions    int
	done          map[string]int // faults, by name
	checked       struct{ ledger, delivery int64 }
	sent, again   int // requests, and how many of them were repeats
	evident       int // responses about which a failure has shown what is known
}

// Whatever is killed, disconnected or stalled at any instant, each event is queued once for each webhook and arrives at
// least once with the same webhook-id, and ordered deliveries arrive in order. CONTRIBUTING.md says how to run it for a
// long time.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d, %d rounds; -chaos.seed repeats the same faults, though not at the same instants", seed, *chaosRounds)
	c := newChaos(t, seed)
	c.load = startLoad(c.DB, seed, 3)
	t.Cleanup(c.load.stop)
	c.people(seed)
	const between = 25 // rounds from one comparison to the next
	for round := 1; round <= *chaosRounds; round++ {
		c.instant()
		name := c.fault()
		c.done[name]++
		if t.Failed() {
			t.Fatalf("in round %d, after %s", round, name)
		}
		if c.rand.IntN(3) == 0 {
			c.daemons[c.rand.IntN(2)].Ready()
		}
		if round%between == 0 || round == *chaosRounds {
			c.compare()
			t.Logf("round %d: %d requests, %d of them again; transactions %v; faults %v", round, c.sent, c.again, c.load, c.done)
		}
	}
	c.load.stop()
	c.leaveNothing()
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{
		source: testenv.NewServer(t, nil), queue: testenv.NewServer(t, nil), rand: rand.New(rand.NewPCG(seed, 1<<32)), done: map[string]int{},
	}
	c.Site = harness.NewSiteOn(t, c.source, chaosSchema).WithStore(c.queue).With("LOG_LEVEL", "info")
	direct := func(url string) string { return strings.SplitN(strings.SplitN(url, "@", 2)[1], "/", 2)[0] }
	c.toSource, c.toStore = testenv.NewWire(t, direct(c.DB)), testenv.NewWire(t, direct(c.Store))
	// The daemons have their own role, so its settings affect nobody else.
	testenv.Exec(t, c.DB, "create role keeper superuser login")
	testenv.Exec(t, c.Store, "create role keeper superuser login")
	c.With("DATABASE_URL", harness.UserOf(t, strings.Replace(c.DB, direct(c.DB), c.toSource.Addr(), 1), "keeper"),
		"STORE_URL", harness.UserOf(t, strings.Replace(c.Store, direct(c.Store), c.toStore.Addr(), 1), "keeper"), "DISABLE_AFTER", "30s", "MAX_ATTEMPTS", "1000")
	c.Attach()
	for i := range c.daemons {
		c.daemons[i] = c.startOne().Ready()
	}
	c.Hooks()
	c.Hook("/loose", "completed", "ordered", "false")
	c.Hook("/loose", "changed", "ordered", "false")
	c.Hook("/gone", "created", "assessment_id", "null") // disabled again and again, so the ledger ignores it
	c.Receiver.Respond("/gone", gone)
	c.Receiver.Respond("/hook", c.moody(rand.New(rand.NewPCG(seed, 2<<32))))
	return c
}

// gone answers that the receiver no longer exists.
var gone = testenv.Always(testenv.Reply{Status: 410})

// moody answers like a receiver on a bad day, at random. The receiver calls it from many goroutines.
func (c *chaos) moody(r *rand.Rand) func(testenv.Request) testenv.Reply {
	dice := make(chan int)
	ctx, end := context.WithCancel(context.Background())
	c.T.Cleanup(end)
	go func() {
		for {
			select {
			case dice <- r.IntN(1000):
			case <-ctx.Done():
				return
			}
		}
	}()
	return func(testenv.Request) testenv.Reply {
		var n int
		select {
		case n = <-dice:
		case <-ctx.Done():
		}
		switch {
		case n < 20:
			return testenv.Reply{Status: []int{302, 400, 401, 404, 408, 409, 425, 500, 502, 504}[n%10]}
		case n < 22:
			return testenv.Reply{Status: []int{429, 503}[n%2], Header: map[string]string{"Retry-After": "1"}}
		case n < 30:
			return testenv.Reply{Reset: true}
		case n < 31:
			return testenv.Reply{Hang: true}
		case n < 200:
			return testenv.Reply{Delay: time.Duration(n) * 100 * time.Microsecond}
		}
		return testenv.Reply{Status: []int{200, 201, 202, 204}[n%4]}
	}
}

// instant waits for a random time, so that faults hit any instant.
func (c *chaos) instant() { time.Sleep(time.Duration(c.rand.IntN(600)) * time.Millisecond) }

// fault causes one kind of failure, and does what people then do about it.
func (c *chaos) fault() string {
	one := c.rand.IntN(2)
	switch c.rand.IntN(17) {
	case 0, 1:
		c.restart(one)
		return "a daemon killed"
	case 2:
		c.daemons[0].Kill()
		c.daemons[1].Kill()
		c.daemons[0], c.daemons[1] = c.startOne(), c.startOne()
		return "both daemons killed"
	case 3:
		c.daemons[one].Listens() // earlier, SIGTERM would end it like any program
		c.stopInTime(c.daemons[one])
		c.daemons[one] = c.startOne()
		return "a daemon stopped"
	case 4:
		c.crash(c.source)
		return "source killed"
	case 5, 6:
		c.crash(c.queue)
		return "store killed"
	case 7:
		c.source.Kill()
		c.queue.Kill()
		c.instant()
		c.Up(c.queue)
		c.Up(c.source)
		return "source and store killed"
	case 8:
		c.daemons[one].Kill()
		c.crash([]*pgserver.Server{c.source, c.queue}[c.rand.IntN(2)])
		c.daemons[one] = c.startOne()
		return "a daemon and a server killed"
	case 9:
		testenv.Exec(c.T, c.DB, "select pg_terminate_backend(active_pid) from pg_replication_slots where active")
		return "walsender terminated"
	case 10:
		for _, url := range []string{c.DB, c.Store}[:1+one] {
			testenv.Exec(c.T, url, "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'walhook%'")
		}
		return "backends terminated"
	case 11:
		return c.hostileSettings()
	case 12:
		if c.promotions == 2 {
			return "nothing" // each promotion leaves an old primary behind
		}
		c.promote()
		return "a standby promoted"
	case 13:
		signal(c.daemons[one], syscall.SIGSTOP)
		c.instant()
		signal(c.daemons[one], syscall.SIGCONT)
		return "a daemon frozen"
	case 14:
		c.upgrade()
		return "store upgraded"
	case 15:
		wire := c.wire()
		wire.Cut()
		c.instant()
		wire.Restore()
		return "wire cut"
	default:
		wire := c.wire()
		wire.Stall()
		c.instant()
		wire.Unstall()
		return "wire stalled"
	}
}

// startOne starts a daemon of its own version, with its own limits, backoff and retention.
func (c *chaos) startOne() *harness.Daemon {
	c.T.Helper()
	one := *c.Site
	one.Env = maps.Clone(c.Env)
	either := func(values ...string) string { return values[c.rand.IntN(len(values))] }
	one.With(
		"CONCURRENCY", fmt.Sprint(8<<c.rand.IntN(4)), "ENDPOINT_CONCURRENCY", fmt.Sprint(1+c.rand.IntN(8)),
		"RETRY_BASE", either("50ms", "100ms"), "RETRY_CAP", either("400ms", "1s"),
		"RETENTION", either("0", "24h", "90d"), "MAX_SLOT_LAG", either("0", "1TB"),
	)
	one.Extra = append(slices.Clone(c.Extra), releaseVariable+"="+either("1.0.0", "1.1.0", ""))
	return one.Start()
}

// upgrade does what a newer walhook does that upgrades the store: the running daemons must end by themselves. Then the
// older version is restored.
func (c *chaos) upgrade() {
	c.T.Helper()
	testenv.Exec(c.T, c.Store, "update walhook.schema_version set version = version + 1")
	if c.rand.IntN(2) == 0 {
		c.instant()
		c.restart(0) // one that starts beside the newer schema ends as well
	}
	for _, d := range c.daemons {
		if status := d.Wait(); status != 1 {
			c.T.Errorf("a daemon whose store was upgraded exited with status %d", status)
		}
	}
	testenv.Exec(c.T, c.Store, "update walhook.schema_version set version = version - 1")
	c.daemons[0], c.daemons[1] = c.startOne(), c.startOne()
}

// stopInTime stops a daemon with SIGTERM. Whatever hangs, that takes at most one attempt plus ten seconds.
func (c *chaos) stopInTime(d *harness.Daemon) {
	c.T.Helper()
	const busy = 5 * time.Second // allowance for a busy machine
	bound := 2*time.Second + 10*time.Second + busy
	signal(d, syscall.SIGTERM)
	select {
	case <-d.Exited:
	case <-time.After(bound):
		c.T.Fatalf("a daemon is still running %s after SIGTERM", bound)
	}
	if status := d.Cmd.ProcessState.ExitCode(); status != 0 {
		c.T.Errorf("a daemon exited with status %d after SIGTERM: %s", status, d.Log)
	}
}

func signal(d *harness.Daemon, signal syscall.Signal) { _ = d.Cmd.Process.Signal(signal) }

// hostileSettings makes the daemons' sessions start with settings that would break other programs, for a while.
func (c *chaos) hostileSettings() string {
	urls := []string{c.DB, c.Store}
	for _, url := range urls {
		for range 3 {
			testenv.Exec(c.T, url, "alter role keeper set "+chaosSettings[c.rand.IntN(len(chaosSettings))])
		}
		testenv.Exec(c.T, url, "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'keeper'")
	}
	c.instant()
	c.instant()
	for _, url := range urls {
		testenv.Exec(c.T, url, "alter role keeper reset all")
	}
	return "hostile settings"
}

// promote makes a standby the application's server, while the old primary keeps running. The application writes nothing
// until the daemons have found it, so that no finish is hidden by a later one.
func (c *chaos) promote() {
	c.T.Helper()
	c.load.paused(func() {
		c.promotions++
		old := c.source
		standby := testenv.CopyServer(c.T, old, map[string]string{
			"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%d user=postgres", old.Port()),
		}, "standby.signal")
		c.settle()
		end := testenv.Value[string](c.T, c.DB, "select pg_current_wal_lsn()::text")
		testenv.Eventually(c.T, harness.Patience, "the standby to have replayed everything", func() (bool, string) {
			got := testenv.Value[bool](c.T, standby.URL("postgres"), "select pg_last_wal_replay_lsn() >= $1::pg_lsn", end)
			return got, end
		})
		if c.rand.IntN(2) == 0 {
			c.toSource.Cut()
		}
		testenv.Exec(c.T, standby.URL("postgres"), "select pg_promote()")
		c.toSource.Cut()
		c.toSource.Redirect(harness.HostPort(standby))
		c.toSource.Restore()
		c.source = standby
		c.MoveTo(standby)
		c.load.url.Store(&c.DB)
		c.Fences++
		statement, id := c.Sentinel(c.Fences)
		c.Exec(statement)
		testenv.Eventually(c.T, chaosPatience, "the stream from the promoted standby", func() (bool, string) {
			return testenv.Value[bool](c.T, c.Store, "select exists (select from walhook.response_state where response_id = $1)", id), id
		})
	})
}

// people starts administrators and other users of the application's database.
func (c *chaos) people(seed uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	source := func() string { return *c.load.url.Load() }
	store := func() string { return c.Store }
	for i, p := range []*chaosPerson{
		{url: store, acts: administration}, {url: store, acts: openAdministration}, {url: source, acts: neighbourhood},
	} {
		p.c, p.rand = c, rand.New(rand.NewPCG(seed, uint64(i)+3<<32))
		c.load.ended.Go(func() { p.work(ctx) })
	}
	end := c.load.end
	c.load.end = func() { cancel(); end() }
}

func (c *chaos) wire() *testenv.Wire {
	return []*testenv.Wire{c.toSource, c.toStore}[c.rand.IntN(2)]
}

func (c *chaos) restart(i int) {
	c.daemons[i].Kill()
	c.daemons[i] = c.startOne()
}

func (c *chaos) crash(server *pgserver.Server) {
	if c.rand.IntN(2) == 0 {
		server.Kill()
	} else {
		server.HaltImmediately()
	}
	if c.rand.IntN(2) == 0 {
		c.instant()
	}
	c.Up(server)
}
