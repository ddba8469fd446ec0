package deliveries

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"walhook/cmd/walhook/internal/harness"
	"walhook/testenv"
	"walhook/testenv/pgserver"
)

// secrets must not appear anywhere; the values describe them.
type secrets map[string]string

// in fails the test if a text contains one of them, in any case.
func (s secrets) in(t *testing.T, where, text string) {
	t.Helper()
	lower := strings.ToLower(text)
	for secret, what := range s {
		if at := strings.Index(lower, strings.ToLower(secret)); at >= 0 {
			t.Errorf("%s shows %s: ...%s...", where, what, text[max(at-200, 0):min(at+100, len(text))])
		}
	}
}

// talkative is a server that answers and then sends unsolicited data on the connection.
func talkative(t *testing.T, text string) (host string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewReader(conn)
				for {
					req, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
						return
					}
					// Usually the answer has been read before this arrives.
					_, _ = io.WriteString(conn, text)
				}
			}()
		}
	}()
	return l.Addr().String()
}

// No output of any command, no log, metric, probe or view for viewers, and neither the server's log nor its list of
// sessions shows a password, a URL's path, query or user info, or a signing secret. Only mapped columns leave the
// table.
func TestSecretsAreShownNowhere(t *testing.T) {
	t.Parallel()
	serverLog := &harness.LogBuffer{}
	server := testenv.NewServerWith(t, pgserver.Options{Log: serverLog, Settings: map[string]string{
		"log_min_duration_statement": "0", "log_parameter_max_length": "-1", "log_parameter_max_length_on_error": "-1", "log_error_verbosity": "verbose",
		"log_connections": "on",
	}})
	const (
		password   = "pw-Zk83hunter"
		user       = "user-Yt55anna"
		urlPass    = "pass-Xs71word"
		path       = "path-Wq29token"
		query      = "query-Vp13key"
		fragment   = "frag-Uo42ment"
		signing    = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
		previous   = "Zm9yIHRoZSB0ZXN0IGFsb25lLCBhbmQgbm8gb3RoZXI="
		header     = "head-Tm65value"
		unmapped   = "row-Tn64private"
		restricted = "row-Sm90essay"
	)
	forbidden := secrets{
		password: "the database's password", url.QueryEscape("p@ :/" + password): "the database's password", user: "the user of a URL", urlPass: "the password of a URL",
		path: "the path of a URL", query: "the query of a URL", fragment: "the fragment of a URL", signing: "a signing secret", previous: "a retired secret",
		header: "a header of a webhook",
		base64.StdEncoding.EncodeToString([]byte(user + ":" + urlPass)): "the Authorization header", unmapped: "a column that is not mapped", restricted: "a column that is not mapped",
	}
	s := harness.NewSiteOn(t, server, harness.SampleSchema).With("MAX_ATTEMPTS", "2", "DELIVERY_TIMEOUT", "300ms")
	withPassword := func(raw string) string {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("postgres", "p@ :/"+password)
		return u.String()
	}
	s.With("DATABASE_URL", withPassword(s.DB), "STORE_URL", withPassword(s.Store))
	all := func(commands ...string) {
		t.Helper()
		for _, command := range commands {
			out, errOut, _ := s.Walhook(strings.Fields(command)...)
			forbidden.in(t, "walhook "+command, out+errOut)
		}
	}
	all("plan", "doctor", "doctor --json", "status", "run", "attach", "attach", "plan")

	// Not logged, as in security.md: the server logs what an administrator types if it is configured to log statements.
	quiet := "set log_min_duration_statement = -1; set log_min_error_statement = panic; "
	add := func(address, event string) {
		t.Helper()
		testenv.Exec(t, s.Store, quiet+fmt.Sprintf(`insert into walhook.webhook (assessment_id, url, event_type, secret, previous_secret, previous_secret_until, headers)
			values ('1', '%s', 'response.%s', 'whsec_%s', 'whsec_%s', now() + interval '1 day', '{"X-Key": "%s"}')`, address, event, signing, previous, header))
	}
	u, err := url.Parse(s.Receiver.URL(""))
	if err != nil {
		t.Fatal(err)
	}
	to := func(scheme, host string) string {
		return fmt.Sprintf("%s://%s:%s@%s/%s?key=%s#%s", scheme, user, urlPass, host, path, query, fragment)
	}
	s.Receiver.Respond("/"+path, func(r testenv.Request) testenv.Reply {
		echo := fmt.Sprintf("no route for %s?key=%s of %s and %s, nor for %s", r.Path, query, r.Header.Get("Authorization"), r.Header.Get("X-Key"), to("http", u.Host))
		switch r.Nth % 5 {
		case 0:
			return testenv.Reply{Status: 500, Body: echo}
		case 1:
			return testenv.Reply{Status: 302, Header: map[string]string{"Location": to("http", path+".example.com")}, Body: echo}
		case 2:
			return testenv.Reply{Status: 429, Body: strings.Repeat("x", 500) + echo}
		case 3:
			return testenv.Reply{Reset: true}
		default:
			return testenv.Reply{Hang: true}
		}
	})
	talker := talkative(t, to("http", path))
	for _, event := range []string{"created", "started", "completed"} {
		add(to("http", u.Host), event)
		add(to("https", u.Host), event)              // not a TLS server
		add(to("http", "receiver.invalid"), event)   // no such name
		add(to("http", "10.255.255.1"), event)       // refused
		add(to("http", "127.0.0.1:1"), event)        // nobody listens
		add(to("http", "169.254.169.254:80"), event) // refused
		add(to("http", talker), event)               // sends more after its answer
	}
	for _, bad := range []string{to("ftp", "h"), to("http", "h:0"), to("http", "h;x"), to("http", "[::x]")} {
		if out, err := testenv.TryPsql(t, s.Store, quiet+"insert into walhook.webhook (event_type, url) values ('response.created', '"+bad+"')"); err == nil {
			t.Errorf("%s is taken", bad)
		} else if !strings.Contains(out, "LINE 1") { // psql shows the statement itself
			forbidden.in(t, "a refusal", out)
		}
	}

	respond := func(first, last int) {
		t.Helper()
		testenv.Exec(t, s.DB, quiet+fmt.Sprintf(`insert into respondent (id, assessment_id, name, essay, started_at, finished_at)
			select g, 1, '%s', repeat('%s', 1000), now(), now() from generate_series(%d, %d) g`, unmapped, restricted, first, last))
	}
	d := s.Start().Ready()
	respond(1, 3)
	s.Fence()
	// Three events of three responses at five unreachable hosts.
	if n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.delivery_log where status = 'failed' and error <> ''"); n < 45 {
		t.Errorf("only %d deliveries failed with an error", n)
	}
	d.Stop()
	forbidden.in(t, "the daemon's log", d.Log.String())
	s.With("DISABLE_AFTER", "1ms")
	d = s.Start().Ready()
	respond(4, 4)
	testenv.Eventually(t, harness.Patience, "disabled webhooks", func() (bool, string) {
		n := testenv.Value[int64](t, s.Store, "select count(*) from walhook.incident where kind = 'webhook_disabled'")
		return n > 0, fmt.Sprintf("%d incidents", n)
	})
	s.Fence()
	_, metrics := d.Get("/metrics")
	_, probe := d.Get("/readyz")
	forbidden.in(t, "/metrics", metrics)
	forbidden.in(t, "/readyz", probe)
	forbidden.in(t, "pg_stat_activity", testenv.Psql(t, s.DB, "select query, application_name from pg_stat_activity where pid <> pg_backend_pid()"))
	viewer := s.As("walhook_viewer")
	for _, view := range []string{"delivery_log", "delivery_attempt", "incident", "settings", "webhook_overview", "pending", "endpoint_health", "explain('1')"} {
		forbidden.in(t, "the view "+view, testenv.Psql(t, viewer, "select * from walhook."+view))
	}
	rows := secrets{unmapped: forbidden[unmapped], restricted: forbidden[restricted]}
	for _, table := range testenv.Values[string](t, s.Store, "select c.oid::regclass::text from pg_class c where c.relnamespace = 'walhook'::regnamespace and c.relkind = 'r'") {
		rows.in(t, table, testenv.Psql(t, s.Store, "select * from "+table))
	}
	for _, r := range s.Receiver.Requests() {
		rows.in(t, "a request", fmt.Sprint(r))
	}
	all("status", "status --json", "doctor", "doctor --json", "detach")

	// The store becomes unavailable, and with it every session.
	server.Halt(2)
	d.Readyz(503, "")
	_, probe = d.Get("/readyz")
	forbidden.in(t, "/readyz", probe)
	d.Stop()
	forbidden.in(t, "the daemon's log", d.Log.String())
	all("status", "doctor", "plan", "attach", "reconcile", "detach")
	s.Up(server)

	// Connection strings in other formats, and invalid ones.
	parsed, err := url.Parse(s.DB)
	if err != nil {
		t.Fatal(err)
	}
	for i, wrong := range []string{
		fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password='%s' dbname=nowhere", server.Port(), password),
		fmt.Sprintf("host=127.0.0.1 port=1 user=postgres password=%s dbname=app sslmode=disable", password),
		fmt.Sprintf("host=127.0.0.1 port=%d user=nobody password=%s dbname=%s", server.Port(), password, strings.Trim(parsed.Path, "/")),
		fmt.Sprintf("postgres://127.0.0.1:%d/nowhere?user=postgres&password=%s", server.Port(), password),
		fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/nowhere?sslmode=verify-full", password, server.Port()),
		fmt.Sprintf("postgres://postgres:%s@receiver.invalid,127.0.0.1:1/app?connect_timeout=1", password),
		fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/app?sslmode=%s", password, server.Port(), password),
		fmt.Sprintf("postgres:/postgres:%s@127.0.0.1", password),
		fmt.Sprintf("postgres://postgres:%s/%s@127.0.0.1/app", password, password),
		fmt.Sprintf("postgres://postgres:%s%%zz@127.0.0.1/app", password),
		fmt.Sprintf("host=127.0.0.1 password='%s", password),
		fmt.Sprintf("mysql://root:%s@h/%s", password, password),
		password,
	} {
		variable := []string{"DATABASE_URL", "STORE_URL"}[i%2]
		before := s.Env[variable]
		s.With(variable, wrong)
		for _, command := range []string{"plan", "attach", "status"} {
			out, errOut, status := s.Walhook(command)
			if status == 0 {
				t.Errorf("walhook %s with %s=%s: status 0", command, variable, wrong)
			}
			forbidden.in(t, fmt.Sprintf("walhook %s with %s=%s", command, variable, wrong), out+errOut)
		}
		waits := s.Start()
		testenv.Eventually(t, harness.Patience, "the daemon to say what is wrong, or to end", func() (bool, string) {
			select {
			case <-waits.Exited:
				return true, ""
			default:
			}
			status, body := waits.Get("/readyz")
			forbidden.in(t, "/readyz", body)
			return status == 503 && strings.Contains(body, "connect"), body
		})
		waits.Stop()
		forbidden.in(t, "the daemon's log", waits.Log.String())
		s.With(variable, before)
	}
	all("detach --drop-schema")
	if log := serverLog.String(); !strings.Contains(log, "insert into walhook.queue") || !strings.Contains(log, "Internal Server Error") {
		t.Error("the server's log does not contain statements with their parameters")
	} else {
		forbidden.in(t, "the server's log", log)
	}
}
