//go:build profile

package cli

import (
	"fmt"
	"os"
	"runtime/pprof"
)

// A build for the benchmark: what it does is written to the files with these names after the one that the variable gives.
const (
	profileVariable = "BENCH_PROFILE"
	cpuProfile      = ".cpu"
	allocsProfile   = ".allocs"
)

func init() {
	name := os.Getenv(profileVariable)
	if name == "" {
		fmt.Fprintf(os.Stderr, "walhook: this build writes profiles; set %s to a name for their files\n", profileVariable)
		os.Exit(ExitUsage)
	}
	cpu, err := os.Create(name + cpuProfile)
	if err == nil {
		err = pprof.StartCPUProfile(cpu)
	}
	allocs, err2 := os.Create(name + allocsProfile)
	for _, err := range []error{err, err2} {
		if err != nil {
			fmt.Fprintf(os.Stderr, "walhook: write the profiles that %s names: %v\n", profileVariable, err)
			os.Exit(ExitUsage)
		}
	}
	atExit = func() {
		pprof.StopCPUProfile()
		if err := pprof.Lookup("allocs").WriteTo(allocs, 0); err != nil {
			fmt.Fprintf(os.Stderr, "walhook: write the profile of allocations: %v\n", err)
		}
	}
}
