package pgserver

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
)

// Copy starts a server on a copy of this one's data, like a backup of its files, with additional settings. This one
// must be halted. Each marker is an empty file that is created in the data directory, such as standby.signal.
func (s *Server) Copy(ctx context.Context, settings map[string]string, markers ...string) (*Server, error) {
	if s.Running() {
		return nil, fmt.Errorf("copy the data of a running server: halt it first")
	}
	options := s.options
	options.Settings = maps.Clone(options.Settings)
	if options.Settings == nil {
		options.Settings = map[string]string{}
	}
	maps.Copy(options.Settings, settings)
	c := &Server{bin: s.bin, options: options, as: s.as}
	if err := c.makeBase(); err != nil {
		return nil, err
	}
	err := c.copyData(ctx, s.DataDir(), markers)
	if err == nil {
		err = c.Restart(ctx)
	}
	if err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// copyData runs cp as the server's user, who must own everything.
func (s *Server) copyData(ctx context.Context, from string, markers []string) error {
	cmd := program(ctx, s.as, "", "cp", "-a", from, s.DataDir())
	cmd.Dir = s.base
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy the data: %w\n%s", err, out)
	}
	for _, marker := range markers {
		if err := os.WriteFile(filepath.Join(s.DataDir(), marker), nil, 0o644); err != nil {
			return fmt.Errorf("mark the copy: %w", err)
		}
	}
	return nil
}
