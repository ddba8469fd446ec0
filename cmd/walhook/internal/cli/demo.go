package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"walhook/cdc"
	"walhook/testenv/pgserver"
)

func newDemoCommand(_ *Environment) *cobra.Command {
	var withConsole bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Demonstrate walhook on a temporary PostgreSQL",
		Long: `Starts a throwaway PostgreSQL (one found on this machine, else one that is downloaded), a sample assessment application, a
receiver and the daemon, and plays respondents through created, started, completed and changed. Prints each change, the POST
that it became, and the delivery log. Takes about ten seconds and leaves nothing behind. It reads no WALHOOK_ variable; PGBIN,
if set, is the folder with initdb and postgres.

With --console it then keeps running until Ctrl-C, with new respondents every few seconds, and serves the administrators' page.
It prints a link to the page that signs you in once.`,
		Example: "  walhook demo --console",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := demo(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), withConsole)
			if interrupted := cmd.Context().Err(); interrupted != nil && err != nil {
				return interrupted // whatever it broke
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&withConsole, "console", false, "keep running, and serve the administrators' page")
	return cmd
}

// demoSchema is the schema of the sample application. walhook adds nothing to its tables.
const demoSchema = `
create table assessment (id bigint primary key, title text not null, external_id text);
create table respondent (
  id            bigint generated always as identity primary key,
  assessment_id bigint not null references assessment (id),
  name          text not null,
  page          integer not null default 0,
  started_at    timestamptz,
  finished_at   timestamptz
);
insert into assessment values (17, 'Safety at work', 'LMS-17'), (18, 'Draft', null);`

// demoStep is one thing that the sample application does.
type demoStep struct {
	what  string
	sql   string
	posts int // how many POSTs it causes
}

var demoSteps = []demoStep{
	{"Ada opens the assessment", "insert into respondent (assessment_id, name) values (17, 'Ada Lovelace')", 1},
	{"Ada saves the first page", "update respondent set started_at = now(), page = 1 where name = 'Ada Lovelace'", 1},
	{"Ada saves another page: nothing fires", "update respondent set page = 2 where name = 'Ada Lovelace'", 0},
	{
		"Grace does all of it in one transaction",
		"insert into respondent (assessment_id, name, started_at, finished_at) values (17, 'Grace Hopper', now(), now())", 3,
	},
	{
		"A transaction that is rolled back never existed",
		"begin; update respondent set finished_at = now() where name = 'Ada Lovelace'; rollback", 0,
	},
	{"Ada finishes", "update respondent set finished_at = now() where name = 'Ada Lovelace'", 1},
	{"Ada finishes again", "update respondent set finished_at = now() where name = 'Ada Lovelace'", 1},
	{
		"A repair that walhook.silence() keeps quiet",
		"begin; select walhook.silence(); update respondent set finished_at = now(); commit", 0,
	},
}

func demo(ctx context.Context, out, errOut io.Writer, withConsole bool) error {
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	say("Starting a throwaway PostgreSQL ...")
	server, err := pgserver.Start(ctx, pgserver.Options{Progress: func(text string) { say("%s", text) }})
	if err != nil {
		return err
	}
	defer server.Stop()
	say("PostgreSQL %d.%d runs on port %d.", server.Version()/10000, server.Version()%10000, server.Port())

	receiver, err := newDemoReceiver(out)
	if err != nil {
		return err
	}
	defer receiver.close()
	cfg, err := demoConfig(server.URL("postgres"))
	if err != nil {
		return err
	}
	app, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect the sample application: %w", err)
	}
	defer app.Close(context.WithoutCancel(ctx))
	if _, err := app.Exec(ctx, demoSchema); err != nil {
		return fmt.Errorf("create the sample application's tables: %w", err)
	}

	log := newLogger(errOut, cfg.LogLevel, cfg.LogFormat)
	if err := autoAttach(ctx, cfg, &readiness{}, log); err != nil {
		return err
	}
	say("Attached. An administrator adds a webhook for each event, by SQL:")
	for event := range cdc.EventTypes {
		statement := fmt.Sprintf("INSERT INTO walhook.webhook (assessment_id, url, event_type, secret) VALUES ('17', '%s', '%s', walhook.new_secret())", receiver.url, event)
		say("  %s;", statement)
		if _, err := app.Exec(ctx, statement); err != nil {
			return fmt.Errorf("add a webhook: %w", err)
		}
	}
	daemonCtx, stop := context.WithCancel(ctx)
	daemon, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		daemon <- runDaemon(daemonCtx, cfg, log)
	}()
	// Also after an interrupt, the server must run until the daemon has stopped.
	defer func() {
		stop()
		<-ended
	}()

	for _, step := range demoSteps {
		say("\n%s", step.what)
		say("  %s;", step.sql)
		if _, err := app.Exec(ctx, step.sql); err != nil {
			return fmt.Errorf("play the sample application: %w", err)
		}
		if err := receiver.wait(ctx, step.posts, daemon); err != nil {
			return err
		}
	}
	if withConsole {
		return demoConsole(ctx, cfg, app, receiver, daemon, say, log)
	}
	stop()
	if err := <-daemon; err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	say("\nOn SIGTERM the daemon finished and recorded in-flight attempts, and stored its position.")
	say("\nThe log, as an administrator reads it: SELECT ... FROM walhook.delivery_log")
	return printDemoLog(ctx, app, out)
}

// demoConfig returns the daemon's configuration. It ignores the variables that the user has set.
func demoConfig(url string) (*Config, error) {
	for _, v := range Variables {
		if err := os.Unsetenv(Prefix + "_" + v.Name); err != nil {
			return nil, fmt.Errorf("set up the demonstration: %w", err)
		}
	}
	for name, value := range map[string]string{
		"DATABASE_URL": url, "ASSESSMENT_TABLE": "public.assessment", "ASSESSMENT_NAME": "title",
		"ALLOW_NETWORKS": "127.0.0.0/8", "LISTEN": "127.0.0.1:0", "LOG_LEVEL": "warn",
	} {
		if err := os.Setenv(Prefix+"_"+name, value); err != nil {
			return nil, fmt.Errorf("set up the demonstration: %w", err)
		}
	}
	return ReadConfig()
}

func printDemoLog(ctx context.Context, app *pgx.Conn, out io.Writer) error {
	rows, err := app.Query(ctx, `select delivery_id, to_char(delivered_at, 'HH24:MI:SS.MS'), response_id, event_type, status, attempts, http_status
		from walhook.delivery_log order by delivery_id`)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	const line = "  %-11v %-13v %-11v %-18v %-7v %8v %11v\n"
	fmt.Fprintf(out, line, "delivery_id", "delivered_at", "response_id", "event_type", "status", "attempts", "http_status")
	var (
		id                          int64
		at, response, event, status string
		attempts, httpStatus        int
	)
	_, err = pgx.ForEachRow(rows, []any{&id, &at, &response, &event, &status, &attempts, &httpStatus}, func() error {
		fmt.Fprintf(out, line, id, at, response, event, status, attempts, httpStatus)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

// demoReceiver prints each POST that it gets.
type demoReceiver struct {
	url    string
	server *http.Server
	got    chan struct{}
	silent atomic.Bool
}

// hush stops the printing and counting of POSTs.
func (r *demoReceiver) hush() { r.silent.Store(true) }

func newDemoReceiver(out io.Writer) (*demoReceiver, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start the receiver: %w", err)
	}
	r := &demoReceiver{url: "http://" + listener.Addr().String() + "/hook", got: make(chan struct{}, 100)}
	var mu sync.Mutex
	r.server = &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(io.LimitReader(req.Body, 1<<16))
		if r.silent.Load() {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			fmt.Fprintf(out, "    -> %s %s %s\n", req.Method, req.URL.Path, body)
			fmt.Fprintf(out, "       webhook-id: %s  webhook-signature: %.20s...\n", req.Header.Get("webhook-id"), req.Header.Get("webhook-signature"))
		}
		r.got <- struct{}{}
	})}
	go func() { _ = r.server.Serve(listener) }()
	return r, nil
}

// wait waits for n POSTs, and then for a moment to see that no further one comes.
func (r *demoReceiver) wait(ctx context.Context, n int, daemon <-chan error) error {
	for range n {
		select {
		case <-r.got:
		case err := <-daemon:
			return fmt.Errorf("the daemon ended early: %w", err)
		case <-time.After(15 * time.Second):
			return errors.New("no POST arrived within 15 s")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-r.got:
		return errors.New("an unexpected POST arrived")
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (r *demoReceiver) close() { _ = r.server.Close() }
