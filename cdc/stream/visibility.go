package stream

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// snapshotTimeout bounds the query for the source's snapshot, which waits for nothing. A slower connection counts as
// dead.
const snapshotTimeout = 10 * time.Second

// Horizon knows which of the source's transactions a new transaction there would see. Logical decoding may send a
// commit before other sessions can see it: for a moment, or while it waits for a synchronous standby.
//
// It is safe for concurrent use.
type Horizon struct {
	connect func(context.Context) (*pgx.Conn, error)

	refreshing sync.Mutex // held during the query; guards conn
	conn       *pgx.Conn

	mu       sync.RWMutex
	snapshot snapshot
}

// snapshot is the result of pg_current_snapshot: transactions below xmin are visible, and so are those below xmax
// that are not in xip.
type snapshot struct {
	xmin, xmax int64
	xip        map[int64]struct{}
}

// NewHorizon returns a Horizon that queries the source on a connection of its own, which it opens when first needed.
func NewHorizon(connect func(context.Context) (*pgx.Conn, error)) *Horizon {
	return &Horizon{connect: connect}
}

// Refresh takes a new snapshot of the source.
func (h *Horizon) Refresh(ctx context.Context) error {
	h.refreshing.Lock()
	defer h.refreshing.Unlock()
	text, err := h.query(ctx)
	if err != nil && h.conn != nil && ctx.Err() == nil {
		// The connection may be stale. Only a new one shows whether the source is down.
		_ = h.conn.Close(ctx)
		text, err = h.query(ctx)
	}
	if err != nil {
		return err
	}
	s, err := parseSnapshot(text)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.snapshot = s
	h.mu.Unlock()
	return nil
}

// Reconnect takes a new snapshot on a new connection: the old one may lead to a server that is no longer the source.
func (h *Horizon) Reconnect(ctx context.Context) error {
	closing, cancel := context.WithTimeout(ctx, time.Second)
	h.Close(closing)
	cancel()
	return h.Refresh(ctx)
}

func (h *Horizon) query(ctx context.Context) (text string, err error) {
	if h.conn == nil || h.conn.IsClosed() {
		conn, err := h.connect(ctx)
		if err != nil {
			return "", err
		}
		h.conn = conn
	}
	asking, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	if err := h.conn.QueryRow(asking, "select pg_current_snapshot()::text").Scan(&text); err != nil {
		return "", fmt.Errorf("read the snapshot of the source: %w", err)
	}
	return text, nil
}

// Close closes the connection. Refresh opens another one.
func (h *Horizon) Close(ctx context.Context) {
	h.refreshing.Lock()
	defer h.refreshing.Unlock()
	if h.conn != nil {
		_ = h.conn.Close(ctx)
		h.conn = nil
	}
}

// Visible reports whether the transaction with this 64-bit id is visible in the last snapshot. 0 stands for a
// transaction that is known to be visible.
func (h *Horizon) Visible(xid int64) bool {
	if xid == 0 {
		return true
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.snapshot.visible(xid)
}

// Widen adds the last snapshot's epoch to a 32-bit transaction id of the replication protocol. Fewer than 2^31
// transactions lie between the two, so the nearest epoch is the right one.
func (h *Horizon) Widen(xid uint32) int64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return widen(xid, h.snapshot.xmax)
}

func widen(xid uint32, near int64) int64 {
	if xid == 0 {
		return 0
	}
	wide := near + int64(int32(xid-uint32(near)))
	if wide <= 0 {
		return int64(xid)
	}
	return wide
}

func (s snapshot) visible(xid int64) bool {
	if xid < s.xmin {
		return true
	}
	if xid >= s.xmax {
		return false
	}
	_, running := s.xip[xid]
	return !running
}

// parseSnapshot parses a pg_snapshot, "xmin:xmax:xip,xip..." (PostgreSQL manual, table 9.80).
func parseSnapshot(text string) (snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return snapshot{}, fmt.Errorf("parse the snapshot %q: it does not have three parts", text)
	}
	xmin, errMin := strconv.ParseInt(parts[0], 10, 64)
	xmax, errMax := strconv.ParseInt(parts[1], 10, 64)
	if errMin != nil || errMax != nil {
		return snapshot{}, fmt.Errorf("parse the snapshot %q: its bounds are not numbers", text)
	}
	s := snapshot{xmin: xmin, xmax: xmax}
	if parts[2] != "" {
		s.xip = map[int64]struct{}{}
		for _, item := range strings.Split(parts[2], ",") {
			xid, err := strconv.ParseInt(item, 10, 64)
			if err != nil {
				return snapshot{}, fmt.Errorf("parse the snapshot %q: %q is not a transaction id", text, item)
			}
			s.xip[xid] = struct{}{}
		}
	}
	return s, nil
}
