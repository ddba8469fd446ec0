package pgserver

import (
	"io"
	"os"
	"path/filepath"
)

// remembered is how much of the log an answer may hold, in bytes.
const remembered = 64 << 10

func (s *Server) logFile() string { return filepath.Join(s.base, "log") }

// Log returns the end of what the server has logged, 64 KiB of it at most, and nothing after Stop.
func (s *Server) Log() string { return s.logSince(max(s.logSize()-remembered, 0)) }

func (s *Server) logSize() int64 {
	info, err := os.Stat(s.logFile())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logSince returns what was logged after the first bytes, as far as it may be remembered.
func (s *Server) logSince(offset int64) string {
	file, err := os.Open(s.logFile())
	if err != nil {
		return ""
	}
	defer file.Close()
	text, _ := io.ReadAll(io.NewSectionReader(file, offset, remembered))
	return string(text)
}

func tail(text string, n int) string {
	if len(text) > n {
		return "..." + text[len(text)-n:]
	}
	return text
}
