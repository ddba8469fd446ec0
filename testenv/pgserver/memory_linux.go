package pgserver

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// MemoryFolder returns the folder for a new server: a file system in memory as long as there is plenty of room,
// otherwise "", which is the folder for temporary files. Each database consists of hundreds of files, and creating and
// deleting them takes several times as long on a disk.
func MemoryFolder() string {
	const folder, tmpfs, plenty = "/dev/shm", 0x01021994, 4 << 30
	var fs syscall.Statfs_t
	if syscall.Statfs(folder, &fs) != nil || fs.Type != tmpfs || fs.Bavail*uint64(fs.Bsize) < plenty || availableMemory() < plenty {
		return ""
	}
	return folder
}

// availableMemory returns how many bytes can be used without swapping, 0 if that is unknown.
func availableMemory() (kB uint64) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kB); n == 1 {
			return kB << 10
		}
	}
	return 0
}
