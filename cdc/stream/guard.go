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

// GuardConfig is what a Guard needs. All fields are required.
type GuardConfig struct {
	SourceURL, Slot, Publication string
	Mapping                      cdc.Mapping
	Status                       *Status
	MaxSlotLag                   int64 // bytes of WAL beyond which the slot is given up; 0: never
	Log                          *slog.Logger
}

// Guard looks at the source also while the stream stands still, or has not begun: a store that is away must neither fill the
// source's disk unseen nor let the application's writes fail. Beyond MaxSlotLag it gives the slot up, once the stream has begun,
// which then closes the gap.
type Guard struct {
	cfg          GuardConfig
	target       atomic.Pointer[guardTarget]
	reconnectDue atomic.Bool            // its connection may lead to a server that is the source no more
	dropReason   atomic.Pointer[string] // why it dropped the slot itself; nil once one of the name is there
	lastWarning  atomic.Pointer[string] // what it last told of a table that refuses the application's updates
}

// guardTarget is what a Guard knows of the source that it looks at.
type guardTarget struct {
	original *catalog.Original // nil: this is a copy, in which nothing is done
	onCopy   func(error)       // is told when the source is not the original any more
}

// NewGuard returns a Guard that Run starts. Until it is told otherwise, it takes the source for the original: the application's writes may
// need it before the store can be asked.
func NewGuard(cfg GuardConfig) *Guard { return &Guard{cfg: cfg} }

// Watch lets the guard look after the original, and tell moved with a *CopyError when the source is another database.
func (g *Guard) Watch(original *catalog.Original, moved func(error)) {
	g.target.Store(&guardTarget{original: original, onCopy: moved})
}

// Pause lets the guard leave a copy alone.
func (g *Guard) Pause() { g.target.Store(&guardTarget{}) }

// isOriginal reports whether the guard may do anything at the source.
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

// Run looks every few seconds until the context ends.
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
			// The stream tells of a source that cannot be reached.
			g.cfg.Status.recordSourceDown()
			g.cfg.Log.Debug("the guard cannot look", "error", err)
			if source != nil {
				catalog.CloseQuietly(source)
				source = nil
			}
		}
	}
}

// reconnect lets the guard look at the source through a new connection from now on.
func (g *Guard) reconnect() { g.reconnectDue.Store(true) }

// checkSlot looks at the slot once.
func (g *Guard) checkSlot(ctx context.Context, source *pgx.Conn) error {
	slot, err := catalog.InspectSlot(ctx, source, g.cfg.Slot)
	if err != nil {
		return err
	}
	if slot.Exists {
		g.dropReason.Store(nil)
	}
	if slot.IsForeign() {
		slot = &catalog.Slot{Name: slot.Name} // another database's may be in any danger
	}
	danger := SlotDanger(slot, g.cfg.MaxSlotLag)
	before := g.cfg.Status.recordSlot(SlotView{Status: SlotStatus(slot), Active: slot.ActivePID != nil, Retained: slot.Retained}, danger)
	switch {
	case danger != "" && before == "":
		g.cfg.Log.Warn("the slot nears the end of what it may hold back", "detail", danger)
	case danger == "" && before != "":
		g.cfg.Log.Info("the slot holds back little again", "slot", g.cfg.Slot, "retained", catalog.FormatBytes(slot.Retained))
	}
	if g.cfg.MaxSlotLag == 0 || slot.Retained <= g.cfg.MaxSlotLag {
		return nil
	}
	if phase := g.cfg.Status.View().Phase; phase == PhaseStarting || phase == PhaseStandby {
		return nil // it may be another daemon's
	}
	reason := fmt.Sprintf("slot %q was given up: it held back %s of WAL, and WALHOOK_MAX_SLOT_LAG allows %s",
		g.cfg.Slot, catalog.FormatBytes(slot.Retained), catalog.FormatBytes(g.cfg.MaxSlotLag))
	g.dropReason.Store(&reason)
	g.cfg.Log.Error("dropping the slot", "detail", reason)
	return catalog.DropSlot(ctx, source, g.cfg.Slot)
}

// SlotDanger says what the slot comes near to, "" while it is far from it.
func SlotDanger(s *catalog.Slot, limit int64) string {
	held := fmt.Sprintf("slot %q holds back %s of WAL", s.Name, catalog.FormatBytes(s.Retained))
	switch {
	case !s.Exists:
		return ""
	case limit > 0 && s.Retained >= limit/5*4:
		return held + fmt.Sprintf(", and is given up beyond %s (WALHOOK_MAX_SLOT_LAG)", catalog.FormatBytes(limit))
	case s.WALStatus == "unreserved":
		return held + ", more than max_slot_wal_keep_size allows: the server may invalidate it at its next checkpoint"
	case s.SafeBytes != nil && *s.SafeBytes < s.Retained/4:
		return held + fmt.Sprintf(", and the server invalidates it %s further on (max_slot_wal_keep_size)", catalog.FormatBytes(max(*s.SafeBytes, 0)))
	}
	return ""
}

// missingSlotGap is the gap of a slot that is not there.
func (g *Guard) missingSlotGap() *cdc.GapError {
	if reason := g.dropReason.Load(); reason != nil {
		return &cdc.GapError{Kind: cdc.SlotLost, Detail: *reason}
	}
	return &cdc.GapError{Kind: cdc.SlotLost, Detail: fmt.Sprintf("slot %q does not exist any more", g.cfg.Slot)}
}
