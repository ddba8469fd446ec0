package cli

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"walhook/console"
)

func newConsoleCommand(env *Environment) *cobra.Command {
	return &cobra.Command{
		Use:   "console",
		Short: "Serve the administrators' page and the HTTP API",
		Long: `Serves a page on which administrators add webhooks, test them, read the delivery log and change the settings. Also serves the
HTTP API under /api/v1. It runs until SIGTERM, SIGINT or SIGHUP, beside the daemon or elsewhere, in any number of copies. It
connects only to the store: WALHOOK_STORE_URL or, if that is not set, WALHOOK_DATABASE_URL.

PostgreSQL decides who may do what. Members of walhook_admin can change webhooks and settings. Members of walhook_viewer see
them without URLs, headers and secrets. Nobody else can sign in. WALHOOK_CONSOLE_LOGIN is how people sign in:

  database  with a PostgreSQL role of the store and its password. Each person acts as their own role.
  oidc      with OpenID Connect, at WALHOOK_OIDC_ISSUER. WALHOOK_ADMIN_GROUPS and WALHOOK_VIEWER_GROUPS name the groups.
  proxy     with the headers of a reverse proxy, trusted only from WALHOOK_PROXY_NETWORKS. The groups are set as for oidc.

With oidc and proxy, and for the API, the role in the store's URL must be a member of walhook_admin: GRANT walhook_admin TO ...;

It listens on WALHOOK_CONSOLE_LISTEN, 127.0.0.1:8464 by default. Behind a proxy that serves https, set WALHOOK_CONSOLE_URL to
the public address. /healthz answers as long as the process is alive, and /readyz with status 503 and the reason while no page
can be served. To try the console without a database: walhook demo --console.`,
		Example: "  WALHOOK_STORE_URL=postgres://walhook_console@db/app walhook console",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := env.configFor((*Config).checkForConsole)
			if err != nil {
				return err
			}
			signal.Ignore(syscall.SIGPIPE)
			log := env.logger(cfg)
			settings := cfg.console()
			settings.Log = log
			server, err := console.New(cmd.Context(), settings)
			if err != nil {
				return err
			}
			boundMemory(0)
			defer reportToSystemd(cmd.Context(), func() (bool, string) { return true, "serving the console" }, log)()
			return server.Run(cmd.Context())
		},
	}
}
