// Package commands tests attach, plan, doctor, preview, status, detach and their like as programs, with real servers
// and daemons as processes.
package commands
