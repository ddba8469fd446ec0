package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"walhook/cdc"
	"walhook/cdc/catalog"
)

// GuardConfig configures a Guard. All fields are required.
type GuardConfig struct {
	SourceURL, Slot, Publication string
	Mapping                      cdc.Mapping
	Status                       *Status
	MaxSlotLag                   int64 // retained bytes of WAL beyond which the guard drops the slot; 0: unlimited
	Log                          *slog.Logger
}

// Guard protects the source even while nothing is streamed, or the stream has not started yet: an unreachable store
// must neither fill the source's disk unnoticed nor make the application's writes fail. Once the stream has started,
// the guard drops a slot that retains more than MaxSlotLag; the stream then closes the gap.
type Guard struct {
	cfg          GuardConfig
	target       atomic.Pointer[guardTarget]
	reconnectDue atomic.Bool            // the connection may lead to a server that is no longer the source
	dropReason   atomic.Pointer[string] // why the guard dropped the slot; nil once a slot of that name exists
	lastWarning  atomic.Pointer[string] // the last reported table that rejects the application's updates
}

// guardTarget is the source that a Guard protects.
type guardTarget struct {
	original *catalog.Original // nil: a copy, which the guard leaves alone
	onCopy   func(error)       // called with a *CopyError if the source is no longer the original
}

// NewGuard returns a Guard; Run starts it. Until Watch or Pause is called it treats the source as the original: the
// application's writes may need protection before the store can be read.
func NewGuard(cfg GuardConfig) *Guard { return &Guard{cfg: cfg} }

// Watch makes the guard protect the original, and call onCopy with a *CopyError when the source is another database.
func (g *Guard) Watch(original *catalog.Original, onCopy func(error)) {
	g.target.Store(&guardTarget{original: original, onCopy: onCopy})
}

// Pause makes the guard leave the source alone, because it is a copy.
func (g *Guard) Pause() { g.target.Store(&guardTarget{}) }

// isOriginal reports whether the guard may change anything on the source.
func (g *Guard) isOriginal(ctx context.Context, source *pgx.Conn) (bool, error) {
	s := g.target.Load()
	if s == nil {
		return true, nil
	}
	if s.original == nil {
		return false, nil
	}
	err := s.original.CheckSource(ctx, source)
	if copied := (*catalog.CopyError)(nil); errors.As(err, &copied) {
		s.onCopy(err)
	}
	return err == nil, err
}

// Run checks the source every few seconds until the context ends.
func (g *Guard) Run(ctx context.Context) {
	var source *pgx.Conn
	defer func() {
		if source != nil {
			catalog.CloseQuietly(source)
		}
	}()
	for pause := time.Duration(0); ; pause = watchInterval {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		var err error
		if g.reconnectDue.Swap(false) && source != nil {
			catalog.CloseQuietly(source)
			source = nil
		}
		if source == nil {
			source, err = catalog.ConnectSource(ctx, g.cfg.SourceURL)
		}
		acts := false
		if err == nil {
			acts, err = g.isOriginal(ctx, source)
		}
		if err == nil && acts {
			err = g.checkSlot(ctx, source)
		}
		if phase := g.cfg.Status.View().Phase; err == nil && acts && phase != PhaseStreaming && phase != PhaseStandby {
			err = g.protectWhileIdle(ctx, source)
		}
		if err != nil {
			// The stream reports a source that cannot be reached.
			g.cfg.Status.recordSourceDown()
			g.cfg.Log.Debug("guard check failed", "error", err)
			if source != nil {
				catalog.CloseQuietly(source)
				source = nil
			}
		}
	}
}

// reconnect makes the guard open a new connection to the source.
func (g *Guard) reconnect() { g.reconnectDue.Store(true) }

// checkSlot inspects the slot once, and drops it if it retains too much WAL.
func (g *Guard) checkSlot(ctx context.Context, source *pgx.Conn) error {
	slot, err := catalog.InspectSlot(ctx, source, g.cfg.Slot)
	if err != nil {
		return err
	}
	if slot.Exists {
		g.dropReason.Store(nil)
	}
	if slot.IsForeign() {
		slot = &catalog.Slot{Name: slot.Name} // the state of another database's slot is irrelevant
	}
	danger := SlotDanger(slot, g.cfg.MaxSlotLag)
	g.cfg.Status.recordWALEnd(slot.WALEnd)
	before := g.cfg.Status.recordSlot(SlotView{Status: SlotStatus(slot), Active: slot.ActivePID != nil, Retained: slot.Retained}, danger)
	switch {
	case danger != "" && before == "":
		g.cfg.Log.Warn("the slot is close to its WAL limit", "detail", danger)
	case danger == "" && before != "":
		g.cfg.Log.Info("the slot retains little WAL again", "slot", g.cfg.Slot, "retained", catalog.FormatBytes(slot.Retained))
	}
	if g.cfg.MaxSlotLag == 0 || slot.Retained <= g.cfg.MaxSlotLag {
		return nil
	}
	if phase := g.cfg.Status.View().Phase; phase == PhaseStarting || phase == PhaseStandby {
		return nil // it may belong to another daemon
	}
	reason := fmt.Sprintf("slot %q was dropped: it retained %s of WAL, and WALHOOK_MAX_SLOT_LAG allows %s",
		g.cfg.Slot, catalog.FormatBytes(slot.Retained), catalog.FormatBytes(g.cfg.MaxSlotLag))
	g.dropReason.Store(&reason)
	g.cfg.Log.Error("dropping the slot", "detail", reason)
	return catalog.DropSlot(ctx, source, g.cfg.Slot)
}

// SlotDanger describes a slot that is about to be dropped or invalidated; "" if it is not.
func SlotDanger(s *catalog.Slot, limit int64) string {
	held := fmt.Sprintf("slot %q retains %s of WAL", s.Name, catalog.FormatBytes(s.Retained))
	switch {
	case !s.Exists:
		return ""
	case limit > 0 && s.Retained >= limit/5*4:
		return held + fmt.Sprintf(", and is dropped beyond %s (WALHOOK_MAX_SLOT_LAG)", catalog.FormatBytes(limit))
	case s.WALStatus == "unreserved":
		return held + ", more than max_slot_wal_keep_size allows: the server may invalidate it at its next checkpoint"
	case s.SafeBytes != nil && *s.SafeBytes < s.Retained/4:
		return held + fmt.Sprintf(", and the server invalidates it after another %s (max_slot_wal_keep_size)",
			catalog.FormatBytes(max(*s.SafeBytes, 0)))
	}
	return ""
}

// missingSlotGap returns the gap of a slot that does not exist.
func (g *Guard) missingSlotGap() *cdc.GapError {
	if reason := g.dropReason.Load(); reason != nil {
		return &cdc.GapError{Kind: cdc.SlotLost, Detail: *reason}
	}
	return &cdc.GapError{Kind: cdc.SlotLost, Detail: fmt.Sprintf("slot %q does not exist any more", g.cfg.Slot)}
}
