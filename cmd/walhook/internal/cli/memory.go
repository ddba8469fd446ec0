package cli

import (
	"os"
	"runtime/debug"
)

const (
	// memoryGoal is how much memory the Go runtime tries to do with: beyond it the garbage collector works harder. Each webhook
	// adds a part of what it and its endpoint take.
	memoryGoal       = 40 << 20
	memoryPerWebhook = 1 << 8

	// Beyond this number of webhooks each adds all of it, and room for the collector.
	memoryWebhooks   = 10_000
	memoryPerFurther = 3 << 9
)

// boundMemory sets the goal for a number of webhooks. GOMEMLIMIT, Go's own variable, goes before it.
func boundMemory(webhooks int) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	few := min(webhooks, memoryWebhooks)
	debug.SetMemoryLimit(memoryGoal + memoryPerWebhook*int64(few) + memoryPerFurther*int64(webhooks-few))
}
