package documents

import (
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// composeFile has the parts of a Compose file that the examples use.
type composeFile struct {
	Daemon   composeService `yaml:"x-daemon"`
	Services map[string]composeService
	Networks map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
}

type composeService struct {
	Build           struct{ Context, Target string }
	Image           string
	Command         []string
	Entrypoint      []string
	Environment     map[string]string
	Volumes         []string
	Ports           []string
	Restart         string
	StopGracePeriod string                                `yaml:"stop_grace_period"`
	ReadOnly        bool                                  `yaml:"read_only"`
	CapDrop         []string                              `yaml:"cap_drop"`
	SecurityOpt     []string                              `yaml:"security_opt"`
	MemLimit        string                                `yaml:"mem_limit"`
	DependsOn       map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck     struct {
		Test              []string
		Interval, Timeout string
		Retries           int
	}
}

// Compose files run existing commands, with variables that walhook accepts, and mount existing files.
func TestComposeFiles(t *testing.T) {
	for _, file := range []string{"../../../docker-compose.yml", "../../../examples/compose/two-daemons.yml"} {
		dir := filepath.Dir(file)
		compose := decodeAll[composeFile](t, file)[0]
		daemons := 0
		for name, service := range compose.Services {
			where := file + ", service " + name
			for _, volume := range service.Volumes {
				if _, err := os.Stat(filepath.Join(dir, strings.Split(volume, ":")[0])); err != nil {
					t.Errorf("%s: %v", where, err)
				}
			}
			for other := range service.DependsOn {
				if _, there := compose.Services[other]; !there {
					t.Errorf("%s waits for %s, which is not a service", where, other)
				}
			}
			if service.Build.Target != "walhook" {
				continue
			}
			if _, err := os.Stat(filepath.Join(dir, service.Build.Context, "Dockerfile")); err != nil {
				t.Errorf("%s: %v", where, err)
			}
			cfg := accepted(t, where, service.Environment)
			if service.Command == nil {
				service.Command = []string{"run"} // the image's default
				daemons++
			}
			knownCommand(t, where, service.Command)
			if service.StopGracePeriod != "" {
				grace, err := time.ParseDuration(service.StopGracePeriod)
				if err != nil {
					t.Error(err)
				}
				outlives(t, where, grace, cfg)
			}
			for _, network := range cfg.AllowNetworks {
				if network.String() != compose.Networks["default"].IPAM.Config[0].Subnet {
					t.Errorf("%s may deliver to %s, which is not its network", where, network)
				}
			}
		}
		if daemons == 0 {
			t.Errorf("%s runs no daemon", file)
		}
	}
}

// The example with two daemons and a separate store works as written, except for addresses: attached by the owner, run
// by a least-privilege role, and without a gap when one daemon is killed.
func TestComposeWithTwoDaemons(t *testing.T) {
	t.Parallel()
	const dir = "../../../examples/compose/"
	compose := decodeAll[composeFile](t, dir+"two-daemons.yml")[0]
	servers := map[string]*pgserver.Server{"db": testenv.NewServer(t, nil), "store": testenv.NewServer(t, nil)}
	for name, server := range servers {
		service := compose.Services[name]
		database := service.Environment["POSTGRES_DB"]
		testenv.Exec(t, server.URL("postgres"), "create database "+database)
		slices.SortFunc(service.Volumes, func(a, b string) int { // the order in which the image runs them
			return strings.Compare(strings.Split(a, ":")[1], strings.Split(b, ":")[1])
		})
		for _, volume := range service.Volumes {
			script, err := os.ReadFile(dir + strings.Split(volume, ":")[0])
			if err != nil {
				t.Fatal(err)
			}
			testenv.Psql(t, server.URL(database), string(script))
		}
	}
	// here returns a service's environment with this test's servers.
	here := func(name string) *harness.Site {
		s := &harness.Site{T: t, Receiver: testenv.NewReceiver(t), Env: map[string]string{}}
		for variable, value := range compose.Services[name].Environment {
			if u, err := url.Parse(value); err == nil && u.Scheme == "postgres" {
				server := servers[u.Hostname()]
				if server == nil {
					t.Fatalf("%s: there is no service %s", variable, u.Hostname())
				}
				at, err := url.Parse(server.URL(""))
				if err != nil {
					t.Fatal(err)
				}
				u.Host = at.Host
				value = u.String()
			}
			s.Env[strings.TrimPrefix(variable, cli.Prefix+"_")] = value
		}
		s.DB, s.Store = servers["db"].URL("app"), servers["store"].URL("webhooks")
		return s
	}
	here("attach").Attach()
	lend, err := os.ReadFile(dir + "lend.sql")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Psql(t, servers["db"].URL("app"), string(lend))
	daemons := map[string]*harness.Daemon{}
	var site *harness.Site
	for _, name := range slices.Sorted(maps.Keys(compose.Services)) {
		if !strings.HasPrefix(name, "walhook-") {
			continue
		}
		site = here(name).With("LISTEN", "127.0.0.1:0", "ALLOW_NETWORKS", "127.0.0.0/8")
		daemons[name] = site.Start().Ready()
	}
	if len(daemons) != 2 {
		t.Fatalf("the example runs %d daemons", len(daemons))
	}
	site.Hook("/hook", "completed", "assessment_id", "'17'")
	complete := func() {
		site.Exec("insert into respondent (assessment_id, name, finished_at) values (17, 'Ada', now())")
	}
	complete()
	site.WaitRequests("/hook", 1)
	daemons["walhook-1"].Kill()
	complete()
	site.WaitRequests("/hook", 2)
	daemons["walhook-2"].Kill()
	complete()
	site.Start().Ready()
	site.WaitRequests("/hook", 3)
	for name, d := range daemons {
		if text := d.Log.String(); strings.Contains(text, "permission denied") || strings.Contains(text, "must be owner") {
			t.Errorf("%s lacks a right:\n%s", name, text)
		}
	}
	if left := testenv.Psql(t, site.Store, "select count(*) from walhook.incident where resolved_at is null"); left != "0" {
		t.Errorf("%s incidents are open", left)
	}
}
