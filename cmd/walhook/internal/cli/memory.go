package cli

import (
	"os"
	"runtime/debug"
)

const (
	// memoryGoal is the Go runtime's soft memory limit: above it the garbage collector runs more often. Each webhook adds
	// part of the memory that it and its endpoint take.
	memoryGoal       = 40 << 20
	memoryPerWebhook = 1 << 8

	// Beyond this number, each webhook adds all of its memory, and room for the collector.
	memoryWebhooks   = 10_000
	memoryPerFurther = 3 << 9
)

// boundMemory sets the limit for a number of webhooks. Go's own variable GOMEMLIMIT has precedence.
func boundMemory(webhooks int) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	few := min(webhooks, memoryWebhooks)
	debug.SetMemoryLimit(memoryGoal + memoryPerWebhook*int64(few) + memoryPerFurther*int64(webhooks-few))
}
