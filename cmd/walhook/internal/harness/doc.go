// Package harness creates installations for tests of the whole program. A [Site] has an application's database, a
// store, a receiver and an environment, and runs walhook's commands and daemons as processes.
package harness
