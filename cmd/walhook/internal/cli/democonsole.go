package cli

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/console"
)

// demoPace is the time between two respondents while the console of the demo runs.
const demoPace = 4 * time.Second

// demoRespondent inserts a respondent who has started; 70 % of them have also finished.
const demoRespondent = `
insert into respondent (assessment_id, name, started_at, finished_at)
select 17, 'Respondent ' || currval(pg_get_serial_sequence('respondent', 'id')) + 1, now(), case when random() < 0.7 then now() end`

// demoConsole serves the console until the context or the daemon ends.
func demoConsole(
	ctx context.Context, cfg *Config, app *pgx.Conn, receiver *demoReceiver, daemon <-chan error, say func(string, ...any), log *slog.Logger,
) error {
	settings := cfg.console()
	settings.Listen, settings.OneTimeKey, settings.Log = "127.0.0.1:0", rand.Text(), log
	server, err := console.New(ctx, settings)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx) }()
	say("\nThe daemon keeps running. This link opens the administrators' page, and signs you in once:\n\n  %s/login?key=%s\n", server.URL(), settings.OneTimeKey)
	say("A new respondent arrives every %s. To test webhooks, send them to %s. Ctrl-C ends everything.", demoPace, receiver.url)
	receiver.hush()
	tick := time.NewTicker(demoPace)
	defer tick.Stop()
	for {
		select {
		case err := <-served: // after Ctrl-C as well
			return err
		case err := <-daemon:
			if ctx.Err() == nil {
				return fmt.Errorf("the daemon ended early: %w", err)
			}
		case <-tick.C:
			if _, err := app.Exec(ctx, demoRespondent); err != nil && ctx.Err() == nil {
				return fmt.Errorf("play the sample application: %w", err)
			}
		}
	}
}
