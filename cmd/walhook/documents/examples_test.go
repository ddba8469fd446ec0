package documents

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"walhook/cmd/walhook/internal/cli"
	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
)

// accepted reads the variables of an example like the daemon, which must accept them without a warning.
func accepted(t *testing.T, where string, env map[string]string) *cli.Config {
	t.Helper()
	known := map[string]bool{}
	for _, v := range cli.Variables {
		known[cli.Prefix+"_"+v.Name] = true
	}
	var pairs []string
	for name, value := range env {
		if !strings.HasPrefix(name, cli.Prefix+"_") {
			continue
		}
		if !known[name] {
			t.Errorf("%s sets %s, which is not a variable of walhook", where, name)
		}
		pairs = append(pairs, strings.TrimPrefix(name, cli.Prefix+"_"), value)
	}
	if env["WALHOOK_DATABASE_URL"] == "" && env["WALHOOK_STORE_URL"] == "" { // the console needs the store alone
		t.Errorf("%s does not set the database's URL", where)
	}
	cfg, err := configured(t, pairs...)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	return cfg
}

// decodeAll reads every document of a YAML file into T, and refuses unknown fields.
func decodeAll[T any](t *testing.T, path string) []T {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	var all []T
	for {
		var one T
		switch err := decoder.Decode(&one); {
		case errors.Is(err, io.EOF):
			return all
		case err != nil:
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, one)
	}
}

// served reports whether the daemon's HTTP server has a path.
func served(t *testing.T, path string) bool {
	t.Helper()
	server, err := cli.NewHTTPServer("127.0.0.1:0", func() (bool, string) { return true, "" }, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Listener.Close()
	answer := httptest.NewRecorder()
	server.Server.Handler.ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
	return answer.Code == 200
}

// knownCommand verifies that a command in an example exists.
func knownCommand(t *testing.T, where string, words []string) {
	t.Helper()
	if cmd, rest, err := cli.NewRoot(&cli.Environment{}).Find(words); err != nil || len(rest) > 0 || len(words) == 0 || !cmd.Runnable() {
		t.Errorf("%s runs walhook %s, which is not a command", where, strings.Join(words, " "))
	}
}

// outlives verifies that the grace period at a stop is longer than an attempt may take.
func outlives(t *testing.T, where string, grace time.Duration, cfg *cli.Config) {
	t.Helper()
	if grace < time.Duration(cfg.DeliveryTimeout)+10*time.Second {
		t.Errorf("%s kills the daemon after %s but an attempt may take %s", where, grace, &cfg.DeliveryTimeout)
	}
}

var systemdLine = regexp.MustCompile(`^([A-Za-z]+)=(.*)$`)

// The unit starts the daemon with variables that it accepts, gives it time to stop, and is valid for systemd.
func TestSystemdUnit(t *testing.T) {
	const dir = "../../../examples/systemd/"
	text, err := os.ReadFile(dir + "walhook.service")
	if err != nil {
		t.Fatal(err)
	}
	section, unit := "", map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch match := systemdLine.FindStringSubmatch(line); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		case match == nil || section == "":
			t.Errorf("walhook.service has an invalid line: %s", line)
		default:
			unit[section+"."+match[1]] = match[2]
		}
	}
	env := map[string]string{}
	variables, err := os.ReadFile(dir + "walhook.env")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(variables)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			name, value, _ := strings.Cut(line, "=")
			env[name] = strings.Trim(value, "'")
		}
	}
	// A shell can read the file too, whatever the password.
	const password = "a&b$c|d"
	file := filepath.Join(t.TempDir(), "walhook.env")
	if err := os.WriteFile(file, bytes.Replace(variables, []byte("change-me"), []byte(password), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command("sh", "-c", `. "$1" && printf %s "$WALHOOK_DATABASE_URL"`, "sh", file).CombinedOutput()
	if want := strings.Replace(env["WALHOOK_DATABASE_URL"], "change-me", password, 1); err != nil || string(got) != want {
		t.Errorf("a shell reads %s instead of %s: %v", got, want, err)
	}
	cfg := accepted(t, "walhook.env", env)
	program, arguments, _ := strings.Cut(unit["Service.ExecStart"], " ")
	knownCommand(t, "walhook.service", strings.Fields(arguments))
	seconds, err := strconv.Atoi(unit["Service.TimeoutStopSec"])
	if err != nil {
		t.Error(err)
	}
	outlives(t, "walhook.service", time.Duration(seconds)*time.Second, cfg)
	for key, want := range map[string]string{
		"Service.Type": "notify", "Service.TimeoutStartSec": "infinity", "Service.EnvironmentFile": "/etc/walhook/walhook.env", "Service.Restart": "always", "Service.RestartPreventExitStatus": strconv.Itoa(cli.ExitUsage),
		"Service.DynamicUser": "yes", "Service.NoNewPrivileges": "yes", "Service.ProtectSystem": "strict", "Service.CapabilityBoundingSet": "",
	} {
		if got, set := unit[key]; !set || got != want {
			t.Errorf("walhook.service has %s=%s instead of %s", key, got, want)
		}
	}
	// If systemd is installed, it verifies the unit, too. It requires the program to exist.
	if analyze, err := exec.LookPath("systemd-analyze"); err == nil {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(t.TempDir(), "walhook.service")
		if err := os.WriteFile(copied, bytes.ReplaceAll(text, []byte(program+" "), []byte(self+" ")), 0o644); err != nil {
			t.Fatal(err)
		}
		if said, err := exec.CommandContext(t.Context(), analyze, "verify", copied).CombinedOutput(); err != nil || bytes.Contains(said, []byte("walhook.service")) {
			t.Errorf("systemd-analyze verify: %v\n%s", err, said)
		}
	}
}

// After the steps at the top of the unit, run as written, a daemon with the variables of walhook.env streams.
func TestSystemdUnitIsPrepared(t *testing.T) {
	t.Parallel()
	const dir = "../../../examples/systemd/"
	unit, err := os.ReadFile(dir + "walhook.service")
	if err != nil {
		t.Fatal(err)
	}
	_, commands, found := strings.Cut(string(unit), "# As the owner of the tables")
	commands, _, ended := strings.Cut(commands, "# Then start it")
	if !found || !ended {
		t.Fatalf("the top of walhook.service has no steps to attach:\n%s", unit)
	}
	var script strings.Builder
	for line := range strings.Lines(commands) {
		if command, found := strings.CutPrefix(line, "#   "); found {
			script.WriteString(command)
		}
	}
	server := testenv.NewServer(t, nil)
	s := harness.NewSiteOn(t, server, harness.SampleSchema)
	variables, err := os.ReadFile(dir + "walhook.env")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	env := filepath.Join(folder, "walhook.env")
	lines := regexp.MustCompile(`(?m)^WALHOOK_DATABASE_URL=.*$`).ReplaceAllString(string(variables), "WALHOOK_DATABASE_URL="+harness.UserOf(t, s.DB, "walhook")+"\nWALHOOK_SLOT="+s.Env["SLOT"])
	if err := os.WriteFile(env, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self(t), filepath.Join(folder, "walhook")); err != nil {
		t.Fatal(err)
	}
	walk(t, server, folder, script.String(), [][2]string{{"/etc/walhook/walhook.env", env}, {"postgres://owner:change-me@db.internal:5432/app", s.DB}}, "PATH="+folder+":"+os.Getenv("PATH"))
	for line := range strings.Lines(lines) {
		name, value, set := strings.Cut(strings.TrimSpace(line), "=")
		if name, ours := strings.CutPrefix(name, cli.Prefix+"_"); set && ours && name != "LISTEN" && name != "LOG_FORMAT" { // by which the harness finds the daemon
			s.With(name, value)
		}
	}
	s.Start().Ready()
}

// manifest has the fields of Kubernetes objects that the examples use.
type manifest struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Type       string
	StringData map[string]string `yaml:"stringData"`
	Data       map[string]string
	Spec       struct {
		Replicas     int
		BackoffLimit int `yaml:"backoffLimit"`
		MinAvailable int `yaml:"minAvailable"`
		Selector     selector
		Strategy     struct {
			Type          string
			RollingUpdate struct {
				MaxSurge       int `yaml:"maxSurge"`
				MaxUnavailable int `yaml:"maxUnavailable"`
			} `yaml:"rollingUpdate"`
		}
		Template struct {
			Metadata metadata
			Spec     podSpec
		}
	}
}

type metadata struct {
	Name   string
	Labels map[string]string
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type podSpec struct {
	TerminationGracePeriodSeconds int             `yaml:"terminationGracePeriodSeconds"`
	RestartPolicy                 string          `yaml:"restartPolicy"`
	AutomountServiceAccountToken  *bool           `yaml:"automountServiceAccountToken"`
	SecurityContext               securityContext `yaml:"securityContext"`
	TopologySpreadConstraints     []struct {
		MaxSkew           int      `yaml:"maxSkew"`
		TopologyKey       string   `yaml:"topologyKey"`
		WhenUnsatisfiable string   `yaml:"whenUnsatisfiable"`
		LabelSelector     selector `yaml:"labelSelector"`
	} `yaml:"topologySpreadConstraints"`
	InitContainers []container `yaml:"initContainers"`
	Containers     []container
}

type securityContext struct {
	RunAsNonRoot             bool  `yaml:"runAsNonRoot"`
	RunAsUser                int   `yaml:"runAsUser"`
	RunAsGroup               int   `yaml:"runAsGroup"`
	AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
	ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
	Capabilities             struct{ Drop []string }
	SeccompProfile           struct{ Type string } `yaml:"seccompProfile"`
}

type container struct {
	Name, Image string
	Args        []string
	Restarts    string `yaml:"restartPolicy"`
	EnvFrom     []struct {
		ConfigMapRef struct{ Name string } `yaml:"configMapRef"`
	} `yaml:"envFrom"`
	Env []struct {
		Name, Value string
		ValueFrom   struct {
			SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	StartupProbe    *probe          `yaml:"startupProbe"`
	LivenessProbe   *probe          `yaml:"livenessProbe"`
	ReadinessProbe  *probe          `yaml:"readinessProbe"`
	SecurityContext securityContext `yaml:"securityContext"`
	Resources       struct{ Requests, Limits map[string]string }
}

type probe struct {
	HTTPGet          struct{ Path, Port string } `yaml:"httpGet"`
	PeriodSeconds    int                         `yaml:"periodSeconds"`
	TimeoutSeconds   int                         `yaml:"timeoutSeconds"`
	FailureThreshold int                         `yaml:"failureThreshold"`
}

// The page's commands use only variables that they have set.
func TestKubernetesPageSetsItsVariables(t *testing.T) {
	text, err := os.ReadFile("../../../examples/kubernetes/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, used := range regexp.MustCompile(`\$([A-Z_]+)`).FindAllStringSubmatchIndex(string(text), -1) {
		if name := string(text[used[2]:used[3]]); !strings.Contains(string(text[:used[0]]), "    "+name+"=") {
			t.Errorf("examples/kubernetes/README.md uses %s without setting it", name)
		}
	}
}

// The manifests run existing commands with variables that walhook accepts, probe existing paths at its port, and give
// it time to stop, and only the privileges that it needs.
func TestKubernetesManifests(t *testing.T) {
	files, err := filepath.Glob("../../../examples/kubernetes/*.yaml")
	if err != nil || len(files) != 6 {
		t.Fatalf("the manifests are %v: %v", files, err)
	}
	secrets := map[string]map[string]string{}
	for _, secret := range decodeAll[manifest](t, "../../../examples/kubernetes/secret.yaml") {
		secrets[secret.Metadata.Name] = secret.StringData
	}
	mapping := decodeAll[manifest](t, "../../../examples/kubernetes/mapping.yaml")[0]
	ran := map[string]bool{}
	for _, file := range files {
		for _, object := range decodeAll[manifest](t, file) {
			pod := object.Spec.Template.Spec
			if want := object.Spec.Selector.MatchLabels; object.Kind == "Deployment" && !maps.Equal(want, object.Spec.Template.Metadata.Labels) {
				t.Errorf("%s: the deployment selects %v", file, want)
			}
			for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
				if c.Image != "walhook:dev" {
					continue
				}
				where := filepath.Base(file) + ", container " + c.Name
				// In the application's pod it starts before the application and stops after it.
				sidecar := pod.Containers[0].Image != c.Image
				if native := len(pod.InitContainers) > 0 && c.Restarts == "Always"; native != sidecar {
					t.Errorf("%s is a native sidecar: %v, beside an application: %v", where, native, sidecar)
				}
				ran[filepath.Base(file)] = true
				env := maps.Clone(mapping.Data)
				if len(c.EnvFrom) != 1 || c.EnvFrom[0].ConfigMapRef.Name != mapping.Metadata.Name {
					t.Errorf("%s does not use the mapping in %s: %v", where, mapping.Metadata.Name, c.EnvFrom)
				}
				for _, v := range c.Env {
					env[v.Name] = v.Value
					if from := v.ValueFrom.SecretKeyRef; from.Name != "" {
						env[v.Name] = secrets[from.Name][from.Key]
					}
				}
				cfg := accepted(t, where, env)
				knownCommand(t, where, c.Args)
				checkContainer(t, where, pod, c)
				if c.Args[0] != "run" {
					continue
				}
				outlives(t, where, time.Duration(pod.TerminationGracePeriodSeconds)*time.Second, cfg)
				host, port, err := net.SplitHostPort(cfg.Listen)
				if err != nil || host != "" || len(c.Ports) != 1 || port != strconv.Itoa(c.Ports[0].ContainerPort) {
					t.Errorf("%s listens at %s but its port is %v", where, cfg.Listen, c.Ports)
				}
				checkProbes(t, where, c, sidecar)
			}
		}
	}
	if len(ran) != 4 {
		t.Errorf("walhook runs only in %v", ran)
	}
	text, err := os.ReadFile("../../../examples/kubernetes/README.md")
	if err != nil {
		t.Fatal(err)
	}
	saysInOrder(t, string(text), "kubectl apply -f secret.yaml -f mapping.yaml", "-f attach.yaml", "job/walhook-attach", "GRANT walhook_daemon TO walhook", "-f deployment.yaml")
}

func checkContainer(t *testing.T, where string, pod podSpec, c container) {
	t.Helper()
	no := func(b *bool) bool { return b != nil && !*b }
	own := c.SecurityContext
	if !own.RunAsNonRoot {
		own.RunAsNonRoot, own.RunAsUser, own.SeccompProfile = pod.SecurityContext.RunAsNonRoot, pod.SecurityContext.RunAsUser, pod.SecurityContext.SeccompProfile
	}
	if !own.RunAsNonRoot || own.RunAsUser != 65532 || own.SeccompProfile.Type != "RuntimeDefault" || !own.ReadOnlyRootFilesystem ||
		!no(own.AllowPrivilegeEscalation) || len(own.Capabilities.Drop) != 1 || own.Capabilities.Drop[0] != "ALL" {
		t.Errorf("%s has more rights than it needs: %+v", where, own)
	}
	if c.Resources.Requests["memory"] == "" || c.Resources.Requests["cpu"] == "" || c.Resources.Limits["memory"] == "" {
		t.Errorf("%s does not set resources: %v", where, c.Resources)
	}
}

// checkProbes requires both probes for a standalone daemon. A sidecar must not make the application's pod unready.
func checkProbes(t *testing.T, where string, c container, sidecar bool) {
	t.Helper()
	if c.LivenessProbe == nil || c.LivenessProbe.HTTPGet.Path != "/healthz" {
		t.Errorf("%s has no liveness probe", where)
	}
	if ready := c.ReadinessProbe != nil && c.ReadinessProbe.HTTPGet.Path == "/readyz"; ready == sidecar {
		t.Errorf("%s: readiness probe: %t, sidecar: %t", where, ready, sidecar)
	}
	for _, p := range []*probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p != nil && (!served(t, p.HTTPGet.Path) || p.HTTPGet.Port != c.Ports[0].Name || p.PeriodSeconds < 1 || p.TimeoutSeconds < 1 || p.FailureThreshold < 1) {
			t.Errorf("%s has a probe that cannot work: %+v", where, *p)
		}
	}
}
