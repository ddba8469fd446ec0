package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// lineInterval is the interval between lines of progress without a terminal.
const lineInterval = 5 * time.Second

// progress shows the progress of long work: a bar on a terminal, lines elsewhere.
type progress struct {
	w     io.Writer
	label string
	total int64
	done  int64
	shown time.Time

	bars *mpb.Progress
	bar  *mpb.Bar
}

// newProgress starts; total may be an estimate, or 0 if nothing is known.
func newProgress(w io.Writer, label string, total int64) *progress {
	p := &progress{w: w, label: label, total: total, shown: time.Now()}
	if file, ok := w.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(48))
		p.bar = p.bars.AddBar(max(total, 1), mpb.PrependDecorators(decor.Name(label+" "), decor.CountersNoUnit("%d of about %d ")),
			mpb.AppendDecorators(decor.AverageETA(decor.ET_STYLE_GO)))
	}
	return p
}

// Set shows that so much is done.
func (p *progress) Set(done int64) {
	p.done = done
	if p.bar != nil {
		if done > p.total { // it was an estimate
			p.total = done
			p.bar.SetTotal(done, false)
		}
		p.bar.SetCurrent(done)
		return
	}
	if now := time.Now(); now.Sub(p.shown) >= lineInterval {
		p.shown = now
		fmt.Fprintf(p.w, "%s: %d of about %d\n", p.label, done, p.total)
	}
}

// Done ends it.
func (p *progress) Done() {
	if p.bar != nil {
		p.bar.SetTotal(p.done, true)
		p.bars.Wait()
	}
}
