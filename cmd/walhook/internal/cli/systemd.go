package cli

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// systemdInterval is how often the status for systemd is refreshed.
const systemdInterval = time.Second

// reportToSystemd reports to the service manager when the daemon becomes ready, what /readyz says, that it is alive, and that
// it stops. Call the returned function when all else has ended: the watchdog also covers a stop. Without NOTIFY_SOCKET it
// does nothing.
func reportToSystemd(ctx context.Context, ready func() (bool, string), log *slog.Logger) (end func()) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return func() {}
	}
	interval := systemdInterval
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("cannot read the watchdog's interval; systemd gets no keepalives", "error", err)
	} else if watchdog > 0 {
		interval = min(interval, watchdog/2)
	}
	send := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Debug("systemd was not notified", "error", err)
		}
	}
	ending := make(chan struct{})
	go func() {
		ticks := time.NewTicker(interval)
		defer ticks.Stop()
		stopping, started, last := ctx.Done(), false, ""
		for {
			if watchdog > 0 {
				send(daemon.SdNotifyWatchdog)
			}
			if ok, reason := ready(); stopping != nil {
				if ok && !started {
					started = true
					send(daemon.SdNotifyReady)
				}
				if reason != last {
					last = reason
					send("STATUS=" + oneLine(reason, longestReason))
				}
			}
			select {
			case <-ticks.C:
			case <-stopping:
				stopping = nil
				send(daemon.SdNotifyStopping + "\nSTATUS=stopping: recording attempts in flight")
			case <-ending:
				return
			}
		}
	}()
	return func() { close(ending) } // without waiting: a service manager that does not read must not keep the process
}
