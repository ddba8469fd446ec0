package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"walhook/testenv"
)

// walkPrelude makes a shell of the README's reader: stops at the first command that fails, and has a curl of its own, so that
// the test asks for nothing but bash and psql.
const walkPrelude = `set -euo pipefail
curl() {
  local address=${2#http://}; local host=${address%%/*}
  exec 3<>"/dev/tcp/${host%:*}/${host#*:}"
  printf 'GET /%s HTTP/1.0\r\nHost: %s\r\n\r\n' "${address#*/}" "$host" >&3
  sed '1,/^\r$/d' <&3
  exec 3>&-
}
trap 'for job in $(jobs -p); do kill "$job" || true; done' EXIT
`

// The README's walks run as they are written, but for ports and folders.
func TestReadmeWalks(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, walks, found := strings.Cut(string(text), "## Three short walks")
	walks, _, end := strings.Cut(walks, "## The request")
	if !found || !end {
		t.Fatal("README.md has no section with the walks")
	}
	server := testenv.NewServer(t, nil)
	at, err := url.Parse(server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	receiver := filepath.Join(dir, "receiver")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", receiver, "../../examples/compose/receiver").CombinedOutput(); err != nil {
		t.Fatalf("build the receiver: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for i, part := range strings.Split(walks, "```") {
		if block, isShell := strings.CutPrefix(part, "sh\n"); i%2 == 1 && isShell {
			script.WriteString(block)
		}
	}
	adapted := script.String()
	for _, replace := range [][2]string{
		{"PGHOST=127.0.0.1 PGPORT=5432 PGUSER=postgres", fmt.Sprintf("PGHOST=%s PGPORT=%s PGUSER=%s", at.Hostname(), at.Port(), at.User.Username())},
		{"go build -o walhook ./cmd/walhook\n", "ln -s '" + self + "' walhook\n"},
		{"go build -o dist/receiver ./examples/compose/receiver\n", "mkdir dist && cp '" + receiver + "' dist/receiver\n"},
		{"/tmp/attach.sql", filepath.Join(dir, "attach.sql")},
		{"./walhook run & daemon", "WALHOOK_LISTEN=127.0.0.1:9464 ./walhook run & daemon"},
		{"127.0.0.1:9464", freePort(t)},
		{"127.0.0.1:9465", freePort(t)},
		{"127.0.0.1:8080", freePort(t)},
		{"127.0.0.1:8081", closedPort(t)},
	} {
		if !strings.Contains(adapted, replace[0]) {
			t.Fatalf("the walks do not hold %q any more", replace[0])
		}
		adapted = strings.ReplaceAll(adapted, replace[0], replace[1])
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", walkPrelude+adapted)
	cmd.Dir = dir
	password, _ := at.User.Password()
	cmd.Env = append(os.Environ(), "WALHOOK_TEST_EXEC=1", "PGPASSWORD="+password)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the walks end with %v\n%s", err, out)
	}
	rest := string(out)
	for _, says := range []string{
		"attached: slot", "streaming", "walhook_streaming 1", "standing by", "exit status 0", "streaming",
		"response.completed", "success", "success", "pending", "connection refused", "webhook was deleted", "dropped slot \"walhook\"",
	} {
		_, after, found := strings.Cut(rest, says)
		if !found {
			t.Errorf("the walks do not say %q where they should:\n%s", says, out)
			break
		}
		rest = after
	}
	left := testenv.Psql(t, server.URL("app"), `select count(*) from pg_replication_slots`) +
		testenv.Psql(t, server.URL("app"), `select count(*) from pg_publication`) +
		testenv.Psql(t, server.URL("app"), `select count(*) from pg_roles where rolname like 'walhook%'`) +
		testenv.Psql(t, server.URL("app"), `select count(*) from pg_namespace where nspname = 'walhook'`)
	if left != "0000" {
		t.Errorf("slots, publications, roles and schemas left: %s", left)
	}
}

// freePort returns an address at which nobody listens at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
