package pgserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// copyCluster copies a cluster that has never run, which costs a tenth of initdb. The copy gets a system identifier of
// its own, as initdb would give it.
func (s *Server) copyCluster(ctx context.Context, template *Server) error {
	if err := s.copyData(ctx, template.DataDir(), nil); err != nil {
		return err
	}
	if err := setIdentifier(s.DataDir(), rand.Uint64()>>1); err != nil { // SQL shows it as a bigint
		return fmt.Errorf("change the system identifier: %w", err)
	}
	return nil
}

// setIdentifier changes the system identifier of a cluster that has never run. The identifier begins pg_control, where a
// CRC-32C follows the fields; where exactly depends on the version. It is also in the header of each WAL segment.
func setIdentifier(dataDir string, identifier uint64) error {
	control := filepath.Join(dataDir, "global", "pg_control")
	content, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	castagnoli, order := crc32.MakeTable(crc32.Castagnoli), binary.NativeEndian
	end := 8
	for ; ; end += 4 {
		if end+4 > len(content) {
			return errors.New("pg_control has no checksum")
		}
		if order.Uint32(content[end:]) == crc32.Checksum(content[:end], castagnoli) {
			break
		}
	}
	order.PutUint64(content, identifier)
	order.PutUint32(content[end:], crc32.Checksum(content[:end], castagnoli))
	if err := overwrite(control, content, 0); err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(dataDir, "pg_wal", "00000001*"))
	for _, segment := range segments {
		const inSegment = 24 // xlp_sysid in XLogLongPageHeaderData
		err = errors.Join(err, overwrite(segment, content[:8], inSegment))
	}
	return err
}

// overwrite replaces part of a file, which keeps its owner.
func overwrite(name string, content []byte, offset int64) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, offset)
	return errors.Join(err, f.Close())
}
