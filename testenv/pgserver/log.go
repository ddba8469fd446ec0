package pgserver

import (
	"io"
	"os"
	"path/filepath"
)

// remembered is the maximum length of a returned log, in bytes.
const remembered = 64 << 10

func (s *Server) logFile() string { return filepath.Join(s.base, "log") }

// Log returns the end of the server's log, 64 KiB at most, and nothing after Stop.
func (s *Server) Log() string { return s.logSince(max(s.logSize()-remembered, 0)) }

func (s *Server) logSize() int64 {
	info, err := os.Stat(s.logFile())
	if err != nil {
		return 0
	}
	return info.Size()
}

// logSince returns the end of what was logged after a number of bytes.
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
