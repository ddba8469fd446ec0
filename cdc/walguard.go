package cdc

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// guard looks at the source also while the stream stands still: a store that is away must neither fill the source's disk unseen
// nor let the application's writes fail. Beyond MaxSlotLag it gives the slot up, and the stream then closes the gap.
func (s *Stream) guard(ctx context.Context) {
	var source *pgx.Conn
	defer func() {
		if source != nil {
			closeQuietly(source)
		}
	}()
	for pause := time.Duration(0); ; pause = watchInterval {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		var err error
		if source == nil {
			source, err = ConnectSource(ctx, s.cfg.SourceURL)
		}
		if err == nil {
			err = s.weigh(ctx, source)
		}
		if phase := s.cfg.Status.View().Phase; err == nil && (phase == PhaseStarting || phase == PhaseRetrying) {
			err = s.shield(ctx, source)
		}
		if err != nil {
			// The stream tells of a source that cannot be reached.
			s.cfg.Status.unreached()
			s.cfg.Log.Debug("the guard cannot look", "error", err)
			if source != nil {
				closeQuietly(source)
				source = nil
			}
		}
	}
}

// weigh looks at the slot once.
func (s *Stream) weigh(ctx context.Context, source *pgx.Conn) error {
	slot, err := inspectSlot(ctx, source, s.cfg.Slot)
	if err != nil {
		return err
	}
	danger := slot.danger(s.cfg.MaxSlotLag)
	before := s.cfg.Status.weighed(SlotView{Status: slot.status(), Active: slot.ActivePID != nil, Retained: slot.Retained}, danger)
	switch {
	case danger != "" && before == "":
		s.cfg.Log.Warn("the slot nears the end of what it may hold back", "detail", danger)
	case danger == "" && before != "":
		s.cfg.Log.Info("the slot holds back little again", "slot", s.cfg.Slot, "retained", bytesText(slot.Retained))
	}
	if s.cfg.MaxSlotLag == 0 || slot.Retained <= s.cfg.MaxSlotLag {
		return nil
	}
	if phase := s.cfg.Status.View().Phase; phase == PhaseStarting || phase == PhaseStandby || phase == PhaseMending {
		return nil // it may be another daemon's slot, or a new one
	}
	reason := fmt.Sprintf("slot %q was given up: it held back %s of WAL, and WALHOOK_MAX_SLOT_LAG allows %s",
		s.cfg.Slot, bytesText(slot.Retained), bytesText(s.cfg.MaxSlotLag))
	s.gaveUp.Store(&reason)
	s.cfg.Log.Error("dropping the slot", "detail", reason)
	return dropSlot(ctx, source, s.cfg.Slot)
}

// danger says what the slot comes near to, "" while it is far from it.
func (s *SlotInfo) danger(limit int64) string {
	held := fmt.Sprintf("slot %q holds back %s of WAL", s.Name, bytesText(s.Retained))
	switch {
	case !s.Exists:
		return ""
	case limit > 0 && s.Retained >= limit/5*4:
		return held + fmt.Sprintf(", and is given up beyond %s (WALHOOK_MAX_SLOT_LAG)", bytesText(limit))
	case s.WALStatus == "unreserved":
		return held + ", more than max_slot_wal_keep_size allows: the server may invalidate it at its next checkpoint"
	case s.SafeBytes != nil && *s.SafeBytes < s.Retained/4:
		return held + fmt.Sprintf(", and the server invalidates it %s further on (max_slot_wal_keep_size)", bytesText(max(*s.SafeBytes, 0)))
	}
	return ""
}

// missingSlot is the gap of a slot that is not there.
func (s *Stream) missingSlot() *GapError {
	if reason := s.gaveUp.Load(); reason != nil {
		return &GapError{SlotLost, *reason}
	}
	return &GapError{SlotLost, fmt.Sprintf("slot %q does not exist any more", s.cfg.Slot)}
}
