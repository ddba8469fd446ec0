package documents

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"walhook/cmd/walhook/internal/harness"
	"walhook/dispatch/post"
	"walhook/testenv"
)

const receiversPage = "../../../docs/how-to/receive.md"

// receiverExamples are the receivers of the guide, by the language of their blocks. start returns how to run one; nil
// if that is not possible here. fault is a statement before work, the first line of its handler, with which handling
// fails once, after a while.
var receiverExamples = map[string]struct {
	file        string
	work, fault string
	start       func(t *testing.T, file, dir, listen string) [][]string
}{
	"go": {"go/main.go", "", "", func(t *testing.T, file, dir, _ string) [][]string {
		t.Helper()
		program := filepath.Join(dir, "receiver")
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, file).CombinedOutput(); err != nil {
			t.Fatalf("build: %v\n%s", err, out)
		}
		return [][]string{{program}}
	}},
	"js": {
		"javascript/receiver.mjs", "  const message = JSON.parse(body)\n",
		"  if (!globalThis.failed) { globalThis.failed = true; await setTimeout(300); throw new Error('not now') }\n",
		func(_ *testing.T, file, _, _ string) [][]string { return [][]string{{"node", file}} },
	},
	"python": {"python/receiver.py", "    print(message[", "    if not globals().setdefault('failed', []): time.sleep(0.3); failed.append(1); raise OSError('not now')\n", func(_ *testing.T, file, _, _ string) [][]string {
		return [][]string{{"python3", "-B", file}}
	}},
	"php": {"php/receiver.php", "    echo $message[", "    static $failed = false; if (!$failed) { $failed = true; usleep(300_000); throw new Exception('not now'); }\n", func(t *testing.T, file, _, listen string) [][]string {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "php", "-m").CombinedOutput(); err == nil && !bytes.Contains(out, []byte("pdo_sqlite")) {
			t.Skip("this PHP has no pdo_sqlite")
		}
		return [][]string{{"php", "-S", listen, file}, {"php", file, "work"}}
	}},
	"csharp": {"csharp/Program.cs", "", "", nil},
}

// The excerpts in the guide are parts of the files.
func TestPagesShowReceivers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(receiversPage)
	if err != nil {
		t.Fatal(err)
	}
	for language, example := range receiverExamples {
		file, err := os.ReadFile("../../../examples/receivers/" + example.file)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(string(text), "```"+language+"\n")
		if len(parts) < 2 {
			t.Errorf("the guide has no excerpt of %s", example.file)
		}
		for _, part := range parts[1:] {
			code, _, _ := strings.Cut(part, "```")
			if !strings.Contains(string(file), code) {
				t.Errorf("%s does not contain\n%s", example.file, code)
			}
		}
	}
}

// Each receiver of the guide accepts real deliveries, in order, each once, with either secret of a rotation, and
// rejects forged and old ones.
func TestPagesReceiversRun(t *testing.T) {
	t.Parallel()
	const schema = `create table respondent (id bigint primary key, assessment_id bigint, started_at timestamptz, finished_at timestamptz)`
	s := harness.NewSite(t, schema)
	s.Run()
	s.Exec("insert into respondent values (17, 17)")
	s.WaitStored()
	for file, database := range map[string]string{"../../../docs/how-to/automation.md": s.Store, receiversPage: testenv.Database(t, testenv.Postgres(t), "")} {
		for _, block := range openPage(t, file).blocks {
			block.run = true
			testenv.Psql(t, database, block.code)
		}
	}
	first, next := testenv.Value[string](t, s.Store, "select walhook.new_secret()"), testenv.Value[string](t, s.Store, "select walhook.new_secret()")
	for language, example := range receiverExamples {
		if example.start == nil {
			continue
		}
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			file, err := filepath.Abs("../../../examples/receivers/" + example.file)
			if err != nil {
				t.Fatal(err)
			}
			dir, listen := t.TempDir(), harness.FreePort(t)
			if example.fault != "" {
				file = failsOnce(t, file, dir, example.work, example.fault)
			}
			url := "http://" + listen + "/hook"
			var out harness.LogBuffer
			for _, args := range example.start(t, file, dir, listen) {
				if _, err := exec.LookPath(args[0]); err != nil {
					t.Skipf("%s is not installed", args[0])
				}
				cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
				cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, &out, &out, 5*time.Second
				cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) }
				cmd.Env = append(os.Environ(), "LISTEN="+listen, "WEBHOOK_SECRETS="+first+" "+next, "DATABASE_URL="+s.DB, "INBOX_DSN=sqlite:inbox.db")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = cmd.Wait() })
			}
			testenv.Eventually(t, harness.Patience, "the receiver to listen", func() (bool, string) {
				conn, err := net.DialTimeout("tcp", listen, time.Second)
				if err != nil {
					return false, fmt.Sprint(err, out.String())
				}
				return true, fmt.Sprint(conn.Close())
			})
			id := map[string]int{"go": 1, "js": 2, "python": 3, "php": 4}[language]
			for _, event := range []string{"created", "started", "completed", "changed"} {
				testenv.Exec(t, s.Store, "insert into walhook.webhook (assessment_id, url, event_type, secret) values ($1, $2, $3, $4)", fmt.Sprint(id), url, "response."+event, first)
			}
			handled := func(want ...string) {
				t.Helper()
				lines := ""
				for _, event := range want {
					lines += fmt.Sprintf("response.%s %d\n", event, id)
				}
				testenv.Eventually(t, harness.Patience, "the receiver's work", func() (bool, string) { return handledLines(out.String()) == lines, out.String() })
			}
			signer, err := post.NewSigner(first)
			if err != nil {
				t.Fatal(err)
			}
			// The first message cannot be handled at once, and the second does not overtake it.
			for _, event := range []string{"first", "second"} {
				body := fmt.Appendf(nil, `{"EventType":"response.%s","Timestamp":1,"Data":{"ResponseId":%d}}`, event, id)
				if got := postSigned(t, url, signer, "msg_"+event, time.Now(), body, body); got != http.StatusNoContent {
					t.Errorf("answer to the %s message: %d", event, got)
				}
			}
			handled("first", "second")
			testenv.Exec(t, s.DB, "insert into respondent values ($1, $1, now(), now())", id)
			handled("first", "second", "created", "started", "completed")
			testenv.Exec(t, s.Store, "update walhook.webhook set secret = $2 where url = $1", url, next)
			testenv.Exec(t, s.DB, "update respondent set finished_at = now() + interval '1 s' where id = $1", id)
			handled("first", "second", "created", "started", "completed", "changed")

			// Repeat the last one, as if its answer had been lost, and send some that are not walhook's.
			repeated := testenv.Value[string](t, s.Store, `select message_id from walhook.delivery_log l join walhook.webhook w on w.id = l.webhook_id
				where w.url = $1 and l.event_type = 'response.changed'`, url)
			body := fmt.Appendf(nil, `{"EventType":"response.changed","Timestamp":1,"Data":{"ResponseId":%d}}`, id)
			stranger, err := post.NewSigner(testenv.Value[string](t, s.Store, "select walhook.new_secret()"))
			if err != nil {
				t.Fatal(err)
			}
			got := []int{
				postSigned(t, url, signer, repeated, time.Now(), body, body),
				postSigned(t, url, signer, "msg_a", time.Now(), body, body),
				postSigned(t, url, stranger, "msg_b", time.Now(), body, body),
				postSigned(t, url, signer, "msg_c", time.Now(), body, bytes.Replace(body, []byte("changed"), []byte("created"), 1)),
				postSigned(t, url, signer, "msg_d", time.Now().Add(-time.Hour), body, body),
			}
			if diff := cmp.Diff([]int{204, 204, 401, 401, 401}, got); diff != "" {
				t.Errorf("answers to a repeated, a new, a forged, an altered and an old request (-want +got):\n%s", diff)
			}
			handled("first", "second", "created", "started", "completed", "changed", "changed")
		})
	}
}

// handledLines returns the lines of a receiver's output that its worker printed.
func handledLines(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "response.") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// failsOnce writes a copy of a receiver whose handler starts with fault, and returns its name.
func failsOnce(t *testing.T, file, dir, work, fault string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), work) != 1 {
		t.Fatalf("%s does not contain %q once", file, work)
	}
	copied := filepath.Join(dir, filepath.Base(file))
	if err := os.WriteFile(copied, []byte(strings.Replace(string(text), work, fault+work, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}

// postSigned posts a body with the signature of another one, usually the same, and returns the status.
func postSigned(t *testing.T, url string, signer *post.Signer, id string, at time.Time, signed, sent []byte) int {
	t.Helper()
	signature, err := signer.Sign(id, at, signed)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", fmt.Sprint(at.Unix()))
	req.Header.Set("webhook-signature", signature)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}
