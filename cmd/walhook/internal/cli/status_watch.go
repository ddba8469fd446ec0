package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"walhook/cdc/setup"
)

const (
	// shortestWatch is the shortest interval of a watch, which opens a connection to both databases each time.
	shortestWatch = 100 * time.Millisecond

	// watchPatience bounds one refresh.
	watchPatience = 10 * time.Second
)

// watch shows the status repeatedly.
type watch struct {
	out   io.Writer
	cfg   *Config
	every time.Duration
	json  bool
	shown int // times
}

// run refreshes until the context ends, which is no error.
func (w *watch) run(ctx context.Context) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		block, err := w.refresh(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.out.Write(w.draw(block)); err != nil {
			return fmt.Errorf("write the status: %w", err)
		}
		w.shown++
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// refresh returns what to print this time.
func (w *watch) refresh(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, watchPatience)
	defer cancel()
	o := setup.Observe(ctx, w.cfg.sourceURL(), w.cfg.storeURL(), w.cfg.Slot)
	var block bytes.Buffer
	if w.json {
		err := json.NewEncoder(&block).Encode(o)
		return block.Bytes(), err
	}
	fmt.Fprintf(&block, "at %s\n", o.At.Format(clock))
	printObservation(&block, o)
	return block.Bytes(), nil
}

// draw returns the block as it goes to a terminal, in place of the one before, or elsewhere, below it.
func (w *watch) draw(block []byte) []byte {
	if w.json {
		return block
	}
	if file, ok := w.out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		width, height, err := term.GetSize(int(file.Fd()))
		if err != nil {
			width, height = 0, 0
		}
		return Redraw(string(block), width, height, w.shown == 0)
	}
	if w.shown > 0 {
		return append([]byte("\n"), block...)
	}
	return block
}

// Control sequences of ECMA-48, which every terminal of today knows.
const (
	clearAll   = "\x1b[2J"
	toTop      = "\x1b[H"
	clearRight = "\x1b[K"
	clearBelow = "\x1b[J"
)

// Redraw writes a block over the previous one. If the size of the screen is known, it cuts lines so that none wraps and the
// screen never scrolls. The terminal translates each newline to its own line end.
func Redraw(block string, width, height int, first bool) []byte {
	var b strings.Builder
	if first {
		b.WriteString(clearAll)
	}
	b.WriteString(toTop)
	lines := strings.Split(strings.TrimSuffix(block, "\n"), "\n")
	if room := height - 1; room > 0 && len(lines) > room {
		lines = append(lines[:room-1:room-1], fmt.Sprintf("and %d more lines", len(lines)-room+1))
	}
	for _, line := range lines {
		if runes := []rune(line); width > 0 && len(runes) > width {
			line = string(runes[:width])
		}
		b.WriteString(line + clearRight + "\n")
	}
	b.WriteString(clearBelow)
	return []byte(b.String())
}
