//go:build profile

package main

import (
	"fmt"
	"os"
	"runtime/pprof"
)

// A build for the benchmark: what it does is written as a CPU profile to the file that this variable names.
const profileVariable = "BENCH_CPUPROFILE"

func init() {
	file, err := os.Create(os.Getenv(profileVariable))
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "walhook: write a CPU profile to the file that %s names: %v\n", profileVariable, err)
		os.Exit(exitUsage)
	}
	atExit = pprof.StopCPUProfile
}
