package testenv

import (
	"context"
	"flag"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"walhook/testenv/pgserver"
)

var shared struct {
	sync.Mutex
	server *pgserver.Server
	err    error
}

// clusters holds a cluster for each size of WAL segments, of which every server is a copy.
var clusters struct {
	sync.Mutex
	bySegment map[int]*pgserver.Server
}

// Main runs a package's tests, stops the shared server and exits. Call it from TestMain.
func Main(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		// Tests with servers mostly wait, and by default go test runs only as many of them in parallel as there are
		// cores.
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	os.Exit(run(m))
}

func run(m *testing.M) (status int) {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.server != nil {
			endSessions(shared.server.Port(), "")
			shared.server.Stop()
		}
		clusters.Lock()
		defer clusters.Unlock()
		for _, made := range clusters.bySegment {
			made.Stop()
		}
	}()
	return m.Run()
}

// Postgres returns the server that all tests of the process share. The first call starts it.
func Postgres(t testing.TB) *pgserver.Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = start(t, pgserver.Options{})
	}
	if shared.err != nil {
		t.Fatalf("start the shared PostgreSQL: %v", shared.err)
	}
	assertVersion(t, shared.server)
	return shared.server
}

// NewServer starts a server for one test, which may stop and kill it. The settings override those of package pgserver.
func NewServer(t testing.TB, settings map[string]string) *pgserver.Server {
	t.Helper()
	return NewServerWith(t, pgserver.Options{Settings: settings})
}

// NewServerWith is NewServer with other options. WALHOOK_TEST_PG determines the version.
func NewServerWith(t testing.TB, o pgserver.Options) *pgserver.Server {
	t.Helper()
	server, err := start(t, o)
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	stopAfter(t, server)
	assertVersion(t, server)
	return server
}

// start starts a server on a copy of the process's cluster.
func start(t testing.TB, o pgserver.Options) (*pgserver.Server, error) {
	t.Helper()
	o.Version, o.Folder = wanted(t), pgserver.MemoryFolder()
	var err error
	if o.Template, err = cluster(o); err != nil {
		return nil, err
	}
	return pgserver.Start(context.Background(), o)
}

// cluster returns the cluster to copy for a server with these options. The first call with a segment size creates it.
func cluster(o pgserver.Options) (*pgserver.Server, error) {
	clusters.Lock()
	defer clusters.Unlock()
	if made := clusters.bySegment[o.SegmentMB]; made != nil {
		return made, nil
	}
	made, err := pgserver.Create(context.Background(), pgserver.Options{Version: o.Version, Folder: o.Folder, SegmentMB: o.SegmentMB})
	if err != nil {
		return nil, err
	}
	if clusters.bySegment == nil {
		clusters.bySegment = map[int]*pgserver.Server{}
	}
	clusters.bySegment[o.SegmentMB] = made
	return made, nil
}

// CopyServer halts a server, starts another one on a copy of its data, and starts the first one again.
func CopyServer(t testing.TB, server *pgserver.Server, settings map[string]string, markers ...string) *pgserver.Server {
	t.Helper()
	server.Halt(syscall.SIGINT)
	made, err := server.Copy(context.Background(), settings, markers...)
	if err != nil {
		t.Fatalf("copy the server: %v", err)
	}
	stopAfter(t, made)
	if err := server.Restart(context.Background()); err != nil {
		t.Fatalf("start the server again: %v", err)
	}
	return made
}

func stopAfter(t testing.TB, server *pgserver.Server) {
	t.Cleanup(func() {
		if t.Failed() {
			log := server.Log()
			t.Logf("the server's log ends with:\n%s", log[max(len(log)-4000, 0):])
		}
		endSessions(server.Port(), "")
		server.Stop()
	})
}

// wanted returns the major version in WALHOOK_TEST_PG, or 0 if any will do. It rejects anything that is not a number.
func wanted(t testing.TB) int {
	t.Helper()
	text := os.Getenv("WALHOOK_TEST_PG")
	if text == "" {
		return 0
	}
	version, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("WALHOOK_TEST_PG is %q but must be a major version such as 17", text)
	}
	return version
}

// assertVersion fails the test if the server's version is not the wanted one.
func assertVersion(t testing.TB, server *pgserver.Server) {
	t.Helper()
	if want := wanted(t); want != 0 && server.Version()/10000 != want {
		t.Fatalf("WALHOOK_TEST_PG requires PostgreSQL %d but the server is %d", want, server.Version())
	}
}
