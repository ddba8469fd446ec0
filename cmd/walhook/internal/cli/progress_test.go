package cli

import (
	"bytes"
	"testing"
	"time"
)

// Where there is no terminal, progress is a line now and then, and nothing for what is quickly done.
func TestProgressWithoutATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newProgress(&out, "rows", 100)
	p.Set(10)
	p.Done()
	if out.Len() != 0 {
		t.Errorf("what is quickly done prints %q", out.String())
	}
	p.shown = time.Now().Add(-lineInterval)
	p.Set(20)
	p.Set(30)
	if want := "rows: 20 of about 100\n"; out.String() != want {
		t.Errorf("got %q instead of %q", out.String(), want)
	}
}
