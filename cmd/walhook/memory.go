package main

import (
	"os"
	"runtime/debug"
)

const (
	// memoryGoal is how much memory the Go runtime tries to do with: beyond it the garbage collector works harder.
	memoryGoal = 40 << 20

	// A number of webhooks goes within that goal; each one more is granted what it and its endpoint take.
	memoryWebhooks   = 10_000
	memoryPerWebhook = 3 << 10
)

// boundMemory sets the goal for a number of webhooks. GOMEMLIMIT, Go's own variable, goes before it.
func boundMemory(webhooks int) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryGoal + memoryPerWebhook*int64(max(webhooks-memoryWebhooks, 0)))
	}
}
