package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// here runs something on the first half of the cores, and what it starts stays there.
func here(start func() error) error { return onCores(0, runtime.NumCPU()/2, start) }

// elsewhere does so on the second half.
func elsewhere(start func() error) error {
	return onCores(runtime.NumCPU()/2, runtime.NumCPU(), start)
}

// onCores runs start on some of the cores that this process may use. With one core alone it just runs it.
func onCores(from, to int, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("look up the cores of this process: %w", err)
	}
	for cpu, n := 0, 0; n < all.Count(); cpu++ {
		if all.IsSet(cpu) {
			if n >= from && n < to {
				some.Set(cpu)
			}
			n++
		}
	}
	if some.Count() == 0 {
		return start()
	}
	if err := unix.SchedSetaffinity(0, &some); err != nil {
		return fmt.Errorf("choose cores: %w", err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	return start()
}
