package cli

import (
	"io"
	"sync"
	"time"
)

const (
	// logBuffered bounds the bytes of log lines that wait for their reader.
	logBuffered = 256 << 10
	// logFlush is how long the program's end waits for the reader.
	logFlush = time.Second
)

// logWriter is an io.Writer that never blocks. Lines go to a bounded buffer, and from there to the reader of the log. While nobody
// reads, lines that do not fit are dropped and counted.
type logWriter struct {
	out    io.Writer
	report func(dropped int)

	mu      sync.Mutex
	lines   [][]byte
	bytes   int
	dropped int
	closed  bool

	filled chan struct{} // capacity 1: lines were added, or the writer was closed
	done   chan struct{}
}

// newLogWriter starts a writer, which must be closed. report is called after lines were dropped; it may write to out.
func newLogWriter(out io.Writer, report func(dropped int)) *logWriter {
	w := &logWriter{out: out, report: report, filled: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes one line.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.bytes+len(line) > logBuffered {
		w.dropped++
		return len(line), nil
	}
	w.lines = append(w.lines, append([]byte(nil), line...))
	w.bytes += len(line)
	w.wake()
	return len(line), nil
}

func (w *logWriter) wake() {
	select {
	case w.filled <- struct{}{}:
	default:
	}
}

// run writes the buffered lines until the writer is closed. Errors are ignored: if the reader has gone, its lines are lost.
func (w *logWriter) run() {
	defer close(w.done)
	for range w.filled {
		for {
			w.mu.Lock()
			lines, dropped, closed := w.lines, w.dropped, w.closed
			w.lines, w.dropped = nil, 0
			w.mu.Unlock()
			for _, line := range lines {
				_, _ = w.out.Write(line)
				w.mu.Lock()
				w.bytes -= len(line)
				w.mu.Unlock()
			}
			if dropped > 0 {
				w.report(dropped)
			}
			if len(lines) == 0 {
				if closed {
					return
				}
				break
			}
		}
	}
}

// close writes the remaining lines, for at most logFlush.
func (w *logWriter) close() {
	w.mu.Lock()
	w.closed = true
	w.wake()
	w.mu.Unlock()
	select {
	case <-w.done:
	case <-time.After(logFlush):
	}
}
