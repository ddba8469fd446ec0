//go:build !linux

package pgserver

// MemoryFolder returns "": no file system in memory is known.
func MemoryFolder() string { return "" }
